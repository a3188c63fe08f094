"""What is prepended to the text of a chunk when it is encoded: the title of its document, and the headings above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isospace.ingest.document import Document
from isospace.ingest.headings import Heading, Outline
from isospace.ingest.spec import ChunkingSpec
from isospace.ingest.token_counter import Offsets, TokenCounter

# A title may use one fourth of a chunk's tokens, and headings another one; what is longer is truncated.
_DIVISOR = 4
_BETWEEN = " > "


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The prefixes of the chunks of one document.

    Attributes
    ----------
    title
        The prefix without headings, and its tokens.
    headed
        The prefix with all headings of a section, and its tokens, by the start of the last heading; empty if the recipe
        wants no headings.
    """

    outline: Outline
    title: tuple[str, int]
    headed: Mapping[int, tuple[str, int]]

    def at(self, first: int, new: int) -> tuple[str, int]:
        """Return the prefix of a chunk, and its tokens.

        Parameters
        ----------
        first
            Where the chunk begins: headings from there on are in its text.
        new
            Where it begins to say what the chunk before it does not: its section is that of this place.
        """
        section = self.outline.at(new) if self.headed else None
        above = [one for one in section.headings if one.start < first] if section else []
        return self.headed[above[-1].start] if above else self.title

    @property
    def most_tokens(self) -> int:
        """Tokens of the longest prefix."""
        return max((tokens for _, tokens in self.headed.values()), default=self.title[1])


def prefixes_of(
    documents: Sequence[Document],
    outlines: Sequence[Outline],
    spec: ChunkingSpec,
    budget: int,
    counter: TokenCounter,
) -> list[Prefixes]:
    """Return the prefixes for the chunks of each document, whose tokens are counted together.

    Parameters
    ----------
    budget
        Tokens of a chunk, without prompt and special tokens.
    """
    titles = _titles([encoded_title(d, spec) for d in documents], budget // _DIVISOR, counter)
    return [
        Prefixes(outline, title, _headed(document, outline, title, spec, budget // _DIVISOR, counter))
        for document, outline, title in zip(documents, outlines, titles, strict=True)
    ]


def encoded_title(document: Document, spec: ChunkingSpec) -> str:
    """Return the title to prepend; none if the title is all the document has."""
    return document.title if spec.include_title and document.title != document.text else ""


def _titles(titles: list[str], limit: int, counter: TokenCounter) -> list[tuple[str, int]]:
    """Return the prefix of each title, cut to `limit` tokens, and its number of tokens."""
    offsets = counter.offsets(titles)
    prefixes = []
    for title, tokens in zip(titles, offsets, strict=True):
        shortened = title if len(tokens) <= limit else title[: tokens[limit][0]].rstrip()
        prefixes.append((shortened + " " if shortened else "", min(len(tokens), limit)))
    return prefixes


def _headed(
    document: Document,
    outline: Outline,
    title: tuple[str, int],
    spec: ChunkingSpec,
    limit: int,
    counter: TokenCounter,
) -> dict[int, tuple[str, int]]:
    """Return the prefix of each section of a document, by the start of its last heading; none if not asked for."""
    if not spec.include_headings:
        return {}
    chains = {one.headings[-1].start: one.headings for one in outline.sections if one.headings}
    # In many documents, the first heading is the title.
    named = [_named(headings, encoded_title(document, spec)) for headings in chains.values()]
    offsets = counter.offsets([_BETWEEN.join(names) for names in named])
    shortened = (_shortened(names, places, limit) for names, places in zip(named, offsets, strict=True))
    before, tokens = title
    return {
        start: (before + text + " " if text else before, tokens + count)
        for start, (text, count) in zip(chains, shortened, strict=True)
    }


def _named(headings: tuple[Heading, ...], title: str) -> list[str]:
    return [one.text for one in (headings[1:] if headings[0].text == title else headings)]


def _shortened(names: list[str], offsets: Offsets, limit: int) -> tuple[str, int]:
    """Return headings joined, and their number of tokens: of too many, the last ones that fit; a last one is cut."""
    text = _BETWEEN.join(names)
    begin = 0
    for name in names[:-1]:
        if sum(start >= begin for start, _ in offsets) <= limit:
            break
        begin += len(name) + len(_BETWEEN)
    places = [start for start, _ in offsets if start >= begin]
    end = places[limit] if len(places) > limit else len(text)
    return text[begin:end].rstrip(), min(len(places), limit)
