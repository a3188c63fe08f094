"""Numbers in sentences."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is one: 1 chunk, 1,989 chunks."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def money_text(amount: float) -> str:
    """Return an amount of money with as many digits as it takes to see it."""
    return f"{amount:,.2f}" if amount >= 0.1 or not amount else f"{amount:,.2g}"
