"""Queries made from a corpus, where there are none: a sentence asks for the chunk it was taken from, a title for its text.

What answers a query is encoded again without it; else the query would find itself. On the two judged collections at
hand, sentences ranked fits as the judged queries did, and titles were too easy on one of them (docs/benchmarks.md).
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Literal

PseudoKind = Literal["titles", "sentences"]
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])|\n\s*\n")
_FEWEST_WORDS, _MOST_WORDS = 4, 40
# A script without spaces has no words to count; its sentences are measured in characters.
_CHARACTERS_A_WORD = 5


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk as a pseudo-query is made from it.

    Attributes
    ----------
    doc_id
        Its document.
    title, prefix, text
        Of the document; what is put before the text when it is encoded; the text.
    """

    doc_id: str
    title: str
    prefix: str
    text: str


@dataclass(frozen=True, slots=True)
class PseudoQuery:
    """A query that some passage answers.

    Attributes
    ----------
    text
        The query.
    passage
        Row of the passage.
    remainder
        What the encoder is given for the passage: all of it but the query.
    """

    text: str
    passage: int
    remainder: str


def usable_kind(passages: Sequence[Passage], kind: Literal["auto", "titles", "sentences"]) -> PseudoKind:
    """Decide between titles and sentences: sentences, unless few passages have several and most have a title."""
    if kind != "auto":
        return kind
    chance = random.Random(0)
    several = sum(_from_sentence(passage, chance) is not None for passage in passages)
    titled = sum(_is_query(passage.title) for passage in passages)
    return "titles" if 4 * several < len(passages) and several < titled else "sentences"


def make_pseudo_queries(
    passages: Sequence[Passage], kind: PseudoKind, *, size: int, seed: int, taken: Set[str] = frozenset()
) -> list[PseudoQuery]:
    """Make at most one query a document, answered by one of its chunks.

    Parameters
    ----------
    passages
        Chunks, of any documents.
    kind
        Titles or sentences.
    size
        Most queries.
    seed
        Decides which documents, and which sentences.
    taken
        Queries that were made before, and are not made again.

    Returns
    -------
    list of PseudoQuery
    """
    chance = random.Random(seed)
    rows = list(range(len(passages)))
    chance.shuffle(rows)
    made: list[PseudoQuery] = []
    seen: set[str] = set()
    for row in rows:
        passage = passages[row]
        if passage.doc_id in seen:
            continue
        found = _from_title(passage) if kind == "titles" else _from_sentence(passage, chance, taken)
        if found is None or found[0] in seen or found[0] in taken:
            continue
        # A title shared by several documents asks for none of them.
        seen |= {passage.doc_id, found[0]}
        made.append(PseudoQuery(found[0], row, found[1]))
        if len(made) == size:
            break
    return made


def _from_title(passage: Passage) -> tuple[str, str] | None:
    title = " ".join(passage.title.split())
    return (title, passage.text) if _is_query(title) and _words(passage.text) >= 2 * _FEWEST_WORDS else None


def _from_sentence(passage: Passage, chance: random.Random, taken: Set[str] = frozenset()) -> tuple[str, str] | None:
    sentences = [part for part in _SENTENCE_END.split(passage.text) if part.strip()]
    asked = [" ".join(text.split()) for text in sentences]
    usable = [number for number, text in enumerate(asked) if _is_query(text) and text not in taken]
    if len(sentences) < 3 or not usable:
        return None
    chosen = chance.choice(usable)
    rest = " ".join(text.strip() for number, text in enumerate(sentences) if number != chosen)
    return asked[chosen], passage.prefix + rest


def _is_query(text: str) -> bool:
    return _FEWEST_WORDS <= _words(text) <= _MOST_WORDS


def _words(text: str) -> int:
    spaced = len(text.split())
    return max(spaced, len(text) // _CHARACTERS_A_WORD) if spaced < _FEWEST_WORDS else spaced
