"""Which spans of a text hold words of the query."""

from __future__ import annotations

import re

from isospace.config import LexicalSpec
from isospace.retrieval.lexical import stemmed


def highlights(query: str, text: str, spec: LexicalSpec) -> list[tuple[int, int]]:
    """Return start and end of each word of `text` that the query has too, reduced as the lexical index reduces words.

    Offsets count characters; words of the query that the index leaves out are left out here.
    """
    pattern = re.compile(spec.pattern)
    wanted = set(stemmed([match.group().lower() for match in pattern.finditer(query)], spec))
    spans = [(match.start(), match.end()) for match in pattern.finditer(text)]
    words = stemmed([text[start:end].lower() for start, end in spans], spec, keep_all=True)
    return [span for span, word in zip(spans, words, strict=True) if word in wanted]
