"""What chunking needs from a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Offsets = Sequence[tuple[int, int]]
TokenIds = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False, slots=True)
class TextTokens:
    """The tokens of a text without prompt and special tokens.

    Attributes
    ----------
    offsets
        Character offsets of the tokens that cover text.
    ids
        (len(offsets),) int32 token IDs; None if the tokens of a piece of the text may be others.
    """

    offsets: Offsets
    ids: TokenIds | None = None


@dataclass(frozen=True, eq=False, slots=True)
class ChunkTokens:
    """The tokens of a text encoded as a document.

    Attributes
    ----------
    ids
        (length,) int32 token IDs with prompt and special tokens, never truncated.
    unknown
        Numbers of unknown tokens and of all tokens, without prompt and special tokens; None if they do not follow from
        the IDs.
    """

    ids: TokenIds
    unknown: tuple[int, int] | None = None


class TokenSource(Protocol):
    """Makes the token IDs that an encoder receives."""

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""

    @property
    def is_kept(self) -> bool:
        """Whether the encoder takes these IDs instead of making its own."""

    def read(self, texts: Sequence[str]) -> list[TextTokens]:
        """Return the tokens of texts without prompt and special tokens."""

    def encode(self, texts: Sequence[str]) -> list[ChunkTokens]:
        """Return the tokens of texts as documents."""

    def join(self, prefixes: Sequence[str], pieces: Sequence[TokenIds]) -> list[ChunkTokens] | None:
        """Return the tokens of prefixes and pieces of texts as documents.

        Parameters
        ----------
        prefixes
            Each is empty, or ends in white space.
        pieces
            The part of `TextTokens.ids` of each piece, which has white space around it in its text.

        Returns
        -------
        list of ChunkTokens or None
            What `encode` returns for each prefix with its piece; None if this cannot be told from the IDs.
        """


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
    source
        Makes the token IDs of which `counts` are the numbers; None if only their numbers are known.
    """

    offsets: Callable[[Sequence[str]], Sequence[Offsets]]
    counts: Callable[[Sequence[str]], list[int]]
    limit: int
    windowed: bool = False
    unknown: Callable[[Sequence[str]], list[tuple[int, int]]] | None = None
    source: TokenSource | None = None
