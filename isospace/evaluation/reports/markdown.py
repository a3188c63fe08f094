"""Texts of a corpus inside Markdown."""

from __future__ import annotations

import re

_ACTIVE = re.compile(r"([\\\\`*_\[\]<>!|~#])")


def as_cell(text: str) -> str:
    """Return a text as one line that is shown as it is: no markup, no image, no end of the table's row."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
