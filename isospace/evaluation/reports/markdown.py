"""Escape texts for Markdown."""

from __future__ import annotations

import re

_ACTIVE = re.compile(r"([\\\\`*_\[\]<>!|~#])")


def as_cell(text: str) -> str:
    """Escape a text for a table cell: one line, without active markup, images, or cell borders."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
