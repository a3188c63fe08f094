"""What chunking needs from a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Offsets = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """What chunking needs from a tokenizer.

    Attributes
    ----------
    offsets
        Returns the character offsets of the tokens of texts, without special tokens.
    counts
        Returns the token counts of texts encoded as documents, with prompt and special tokens.
    limit
        Maximum number of tokens that the encoder accepts.
    windowed
        Whether the encoder splits longer texts into windows instead of truncating them.
    unknown
        Returns the numbers of unknown tokens and of all tokens of texts; None if no token can be unknown.
    """

    offsets: Callable[[Sequence[str]], Sequence[Offsets]]
    counts: Callable[[Sequence[str]], list[int]]
    limit: int
    windowed: bool = False
    unknown: Callable[[Sequence[str]], list[tuple[int, int]]] | None = None
