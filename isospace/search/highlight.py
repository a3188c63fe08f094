"""Find the spans of a text that match words of the query."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from isospace.search.spec import LexicalSpec
from isospace.search.words import find_words, words_of

Spans = list[tuple[int, int]]


def highlighter(query: str, spec: LexicalSpec) -> Callable[[str], Spans]:
    """Return a function that finds the spans of a text's words that match a word of the query.

    Words match if the lexical index holds them alike. Offsets count characters; stopwords of the query match nothing.
    """
    wanted = set(words_of([query], spec, "query")[0])

    def spans(text: str) -> Spans:
        return _joined((word.start, word.end) for word in find_words(text, spec) if word.text in wanted)

    return spans


def _joined(spans: Iterable[tuple[int, int]]) -> Spans:
    """Join spans that overlap, as pairs of characters do."""
    joined: Spans = []
    for start, end in sorted(spans):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
