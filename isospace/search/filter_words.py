"""Write a filter with the words of SQL in Python's grammar: `=`, `like`, `contains`, `is null`, `AND`."""

from __future__ import annotations

import re

QUOTED = r"""'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3}|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|#[^\n]*"""
"""What stays as it is, with `re.DOTALL`: quoted texts, and comments."""
_PARTS = re.compile(QUOTED + r"|(?P<word>[^\W\d]\w*(?:\s+[^\W\d]\w*)*)|(?P<sign><>|[=!<>]=|=)", re.DOTALL)
# Operators of Python that bind more tightly than comparisons, and that no filter uses otherwise.
LIKE, NOT_LIKE, CONTAINS, NOT_CONTAINS = "@", "//", ">>", "<<"
_PHRASES = (
    (r"not\s+like", NOT_LIKE),
    (r"not\s+contains", NOT_CONTAINS),
    (r"like", LIKE),
    (r"contains", CONTAINS),
    (r"is\s+not\s+null", "is not None"),
    (r"is\s+null", "is None"),
    (r"and", "and"),
    (r"or", "or"),
    (r"not", "not"),
    (r"in", "in"),
    (r"is", "is"),
    (r"none|null", "None"),
    (r"true", "True"),
    (r"false", "False"),
)
_PHRASE = re.compile("|".join(rf"(?P<p{n}>\b{phrase}\b)" for n, (phrase, _) in enumerate(_PHRASES)), re.IGNORECASE)
_SIGNS = {"<>": "!=", "=": "=="}


def in_python(text: str) -> str:
    """Return a filter in Python's grammar; what is in quotes stays, and so does what is in Python's grammar already."""
    return _PARTS.sub(_part, text)


def _part(match: re.Match[str]) -> str:
    if match["word"] is not None:
        return _PHRASE.sub(lambda found: _PHRASES[int(str(found.lastgroup)[1:])][1], match["word"])
    return _SIGNS.get(match["sign"], match["sign"]) if match["sign"] is not None else match[0]
