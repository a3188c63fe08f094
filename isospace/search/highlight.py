"""Find the spans of a text that match words of the query."""

from __future__ import annotations

import re
from collections.abc import Callable

from isospace.search.bm25 import stemmed
from isospace.search.spec import LexicalSpec

Spans = list[tuple[int, int]]


def highlighter(query: str, spec: LexicalSpec) -> Callable[[str], Spans]:
    """Return a function that finds the spans of a text's words that match a word of the query.

    Words match if the lexical index stems them alike. Offsets count characters; stopwords of the query match nothing.
    """
    pattern = re.compile(spec.pattern)
    wanted = set(stemmed([match.group().lower() for match in pattern.finditer(query)], spec))

    def spans(text: str) -> Spans:
        candidates = [match.span() for match in pattern.finditer(text)]
        words = stemmed([text[start:end].lower() for start, end in candidates], spec, keep_all=True)
        return [span for span, word in zip(candidates, words, strict=True) if word in wanted]

    return spans
