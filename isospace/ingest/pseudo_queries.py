"""Generate pseudo-queries from a corpus: a sentence asks for its chunk, or a title for its text.

The passage that answers a query is re-encoded without it, since the query would otherwise find itself. On two
collections with judgements, sentences ranked fits in the same order as real queries; titles were too easy on one (see
docs/benchmarks.md).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass
from typing import Literal, TypeAlias

from isospace.ingest.prose import SENTENCE_END, Sentence

PseudoKind = Literal["titles", "sentences"]
FindSentences: TypeAlias = Callable[[str], Sequence[Sentence]]
"""Finds the sentences of a text that may become queries.

Without one, every piece of a text may, markup too: a fit that chooses among candidates, pairs, and distillations take
those. Other pieces would change the space or the encoder that a recipe makes of the same corpus.
"""
_MIN_WORDS, _MAX_WORDS = 4, 40
# In scripts without spaces between words, length is measured in characters.
_CHARACTERS_PER_WORD = 5


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk to generate a pseudo-query from.

    Attributes
    ----------
    title
        Title of the document.
    prefix
        Prepended to the text when it is encoded.
    """

    doc_id: str
    title: str
    prefix: str
    text: str


@dataclass(frozen=True, slots=True)
class PseudoQuery:
    """A query, and the passage that answers it.

    Attributes
    ----------
    passage
        Row of the passage.
    remainder
        Text to encode for the passage, without the query.
    """

    text: str
    passage: int
    remainder: str


def choose_pseudo_kind(
    passages: Sequence[Passage], kind: Literal["auto", "titles", "sentences"], find: FindSentences | None = None
) -> PseudoKind:
    """Choose sentences, unless few passages have several sentences and more have a usable title."""
    if kind != "auto":
        return kind
    rng = random.Random(0)
    with_sentences = sum(_from_sentence(passage, rng, find=find) is not None for passage in passages)
    with_title = sum(_is_query(passage.title) for passage in passages)
    return "titles" if 4 * with_sentences < len(passages) and with_sentences < with_title else "sentences"


def make_pseudo_queries(
    passages: Sequence[Passage],
    kind: PseudoKind,
    *,
    size: int,
    seed: int,
    exclude: Set[str] = frozenset(),
    find: FindSentences | None = None,
) -> list[PseudoQuery]:
    """Generate at most one query per document, and at most `size` queries.

    Parameters
    ----------
    seed
        Selects the documents and the sentences.
    exclude
        Texts that must not become a query, such as queries of an earlier call.
    find
        Finds the sentences of a text that may become queries; None for all of its pieces.
    """
    rng = random.Random(seed)
    rows = list(range(len(passages)))
    rng.shuffle(rows)
    queries: list[PseudoQuery] = []
    seen: set[str] = set()
    for row in rows:
        passage = passages[row]
        if passage.doc_id in seen:
            continue
        split = _from_title(passage) if kind == "titles" else _from_sentence(passage, rng, exclude, find)
        if split is None or split[0] in seen or split[0] in exclude:
            continue
        # A title shared by several documents becomes one query.
        query, remainder = split
        seen |= {passage.doc_id, query}
        queries.append(PseudoQuery(query, row, remainder))
        if len(queries) == size:
            break
    return queries


def _from_title(passage: Passage) -> tuple[str, str] | None:
    title = " ".join(passage.title.split())
    # A document that is a title alone would answer itself.
    is_apart = passage.text != passage.title and _words(passage.text) >= 2 * _MIN_WORDS
    return (title, passage.text) if _is_query(title) and is_apart else None


def _from_sentence(
    passage: Passage, rng: random.Random, exclude: Set[str] = frozenset(), find: FindSentences | None = None
) -> tuple[str, str] | None:
    sentences = [part for part in SENTENCE_END.split(passage.text) if part.strip()]
    if find is not None:
        return _from_found(passage, rng, exclude, find(passage.text)) if len(sentences) >= 3 else None
    queries = [" ".join(text.split()) for text in sentences]
    usable = [number for number, text in enumerate(queries) if _is_query(text) and text not in exclude]
    if len(sentences) < 3 or not usable:
        return None
    chosen = rng.choice(usable)
    rest = " ".join(text.strip() for number, text in enumerate(sentences) if number != chosen)
    return queries[chosen], passage.prefix + rest


def _from_found(
    passage: Passage, rng: random.Random, exclude: Set[str], found: Sequence[Sentence]
) -> tuple[str, str] | None:
    usable = [sentence for sentence in found if _is_query(sentence.text) and sentence.text not in exclude]
    if not usable:
        return None
    chosen = rng.choice(usable)
    rest = f"{passage.text[: chosen.start]}{passage.text[chosen.end :].lstrip(' ')}".strip()
    return chosen.text, passage.prefix + rest


def _is_query(text: str) -> bool:
    return _MIN_WORDS <= _words(text) <= _MAX_WORDS


def _words(text: str) -> int:
    spaced = len(text.split())
    return max(spaced, len(text) // _CHARACTERS_PER_WORD) if spaced < _MIN_WORDS else spaced
