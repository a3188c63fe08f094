"""How the texts of a call are divided into requests."""

from __future__ import annotations

from collections.abc import Sequence

# Smaller requests are not worth their overhead, however many could be sent at a time.
FEWEST = 32


def estimate_tokens(text: str) -> int:
    """Return a cautious number of tokens of a text without its tokenizer: half of its UTF-8 bytes, and two."""
    return len(text.encode("utf-8", "replace")) // 2 + 2


def plan_batches(
    tokens: Sequence[int], *, most_texts: int, most_tokens: int | None, concurrency: int
) -> list[tuple[int, ...]]:
    """Return the rows of each request, in order: each row once.

    A request has at most `most_texts` texts and `most_tokens` tokens; a text with more is alone. A call with few texts
    is divided further, down to `FEWEST` a request, so that `concurrency` requests can be sent at a time. The division
    depends on the arguments alone.
    """
    even = -(-len(tokens) // max(1, concurrency))
    most = min(most_texts, max(FEWEST, even))
    batches: list[tuple[int, ...]] = []
    current: list[int] = []
    total = 0
    for row, count in enumerate(tokens):
        full = len(current) >= most or (most_tokens is not None and total + count > most_tokens)
        if current and full:
            batches.append(tuple(current))
            current, total = [], 0
        current.append(row)
        total += count
    return [*batches, tuple(current)] if current else batches
