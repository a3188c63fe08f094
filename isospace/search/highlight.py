"""Find the spans of a text that match words of the query."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from isospace.search.spec import LexicalSpec
from isospace.search.words import find_words, words_of

if TYPE_CHECKING:
    from isospace.search.bm25 import WordIndex

Spans = list[tuple[int, int]]


# A word of more chunks than this says nothing about one of them, whatever its language.
_COMMON = 0.25


def highlighter(query: str, spec: LexicalSpec, share: Callable[[str], float] | None = None) -> Callable[[str], Spans]:
    """Return a function that finds the spans of a text's words that match a word of the query.

    Words match if the lexical index holds them alike. Offsets count characters. Stopwords of the query match nothing,
    and neither do words that a quarter of the chunks contain, unless the query has no others.

    Parameters
    ----------
    share
        Returns the share of chunks that contain a word; without it, no word is too common.
    """
    wanted = set(words_of([query], spec, "query")[0])
    if share is not None:
        wanted = {word for word in wanted if share(word) <= _COMMON} or wanted

    def spans(text: str) -> Spans:
        return _joined((word.start, word.end) for word in find_words(text, spec) if word.text in wanted)

    return spans


def snapshot_highlighter(query: str, words: WordIndex | None) -> Callable[[str], Spans]:
    """Return the highlighter of a query by the rules of a snapshot's lexical index, or the usual ones if it has none.

    The mode of a search does not matter: what was found by its vector may share words with the query, or none.
    """
    if words is None:
        return highlighter(query, LexicalSpec())
    return highlighter(query, words.spec, words.share)


def _joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """Join spans that overlap, as pairs of characters do."""
    joined: Spans = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
