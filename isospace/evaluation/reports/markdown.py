"""Escape texts for Markdown."""

from __future__ import annotations

import re

_PLAIN = re.compile(r"([\\*\[\]<>|~])")
_ACTIVE = re.compile(r"([\\\\`*_\[\]<>!|~#])")


def as_text(text: str) -> str:
    """Escape a text for a paragraph, such as a message that quotes the names of documents; code in it stays code."""
    parts = " ".join(text.split()).split("`")
    # Text between two backticks is code, in which nothing is escaped.
    is_whole = len(parts) % 2 == 1
    return "`".join(part if place % 2 and is_whole else _PLAIN.sub(r"\\\1", part) for place, part in enumerate(parts))


def as_cell(text: str) -> str:
    """Escape a text for a table cell: one line, without active markup, images, or cell borders."""
    return _ACTIVE.sub(r"\\\1", " ".join(text.split()))
