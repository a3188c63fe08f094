"""Which spans of a text hold words of the query."""

from __future__ import annotations

import re
from collections.abc import Callable

from isospace.search.bm25 import stemmed
from isospace.search.spec import LexicalSpec

Spans = list[tuple[int, int]]


def highlighter(query: str, spec: LexicalSpec) -> Callable[[str], Spans]:
    """Return what finds start and end of each word that a text shares with the query, as the lexical index reduces words.

    Offsets count characters; words of the query that the index leaves out are left out here.
    """
    pattern = re.compile(spec.pattern)
    wanted = set(stemmed([match.group().lower() for match in pattern.finditer(query)], spec))

    def spans(text: str) -> Spans:
        found = [match.span() for match in pattern.finditer(text)]
        words = stemmed([text[start:end].lower() for start, end in found], spec, keep_all=True)
        return [span for span, word in zip(found, words, strict=True) if word in wanted]

    return spans
