"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: 1 chunk, 1,989 chunks."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
