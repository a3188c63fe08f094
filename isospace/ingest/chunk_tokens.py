"""Tokens of chunks: taken from those of the document where they are the same, and made anew elsewhere.

Let white space precede and follow a piece of a text, or the text end there. If the tokenizer works on the words between
white space one by one, the tokens of the piece alone are those that it has in the text. `TextTokens.ids` is None for
other tokenizers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from isospace.ingest.token_counter import ChunkTokens, TextTokens, TokenCounter, TokenIds, TokenSource

# Python and tokenizers disagree about which other characters are white space.
SPACES = " \t\n\r"


@dataclass(frozen=True, eq=False, slots=True)
class Piece:
    """A part of a text, and what is prepended to it.

    Attributes
    ----------
    tokens
        The tokens of the whole text.
    starts
        Where each of them begins.
    """

    prefix: str
    text: str
    start: int
    end: int
    tokens: TextTokens
    starts: Sequence[int]

    @property
    def encoded_text(self) -> str:
        """Prefix and part."""
        return self.prefix + self.text[self.start : self.end]


def read_texts(texts: Sequence[str], counter: TokenCounter) -> list[TextTokens]:
    """Return the tokens of texts without prompt and special tokens."""
    if counter.source is None:
        return [TextTokens(offsets) for offsets in counter.offsets(texts)]
    return counter.source.read(texts)


def count_texts(texts: Sequence[str], counter: TokenCounter) -> list[tuple[int, ChunkTokens | None]]:
    """Return the number of tokens of texts as documents, and the tokens if the counter knows them."""
    if counter.source is None:
        return [(count, None) for count in counter.counts(texts)]
    return [(len(tokens.ids), tokens) for tokens in counter.source.encode(texts)]


def count_pieces(pieces: Sequence[Piece], counter: TokenCounter) -> list[tuple[int, ChunkTokens | None]]:
    """Return the number of tokens of pieces as documents, and the tokens if the counter knows them."""
    counted = {} if counter.source is None else _joined(pieces, counter.source)
    others = [number for number in range(len(pieces)) if number not in counted]
    found = count_texts([pieces[number].encoded_text for number in others], counter) if others else []
    made = dict(zip(others, found, strict=True))
    return [made[n] if n in made else (len(counted[n].ids), counted[n]) for n in range(len(pieces))]


def _joined(pieces: Sequence[Piece], source: TokenSource) -> dict[int, ChunkTokens]:
    """Return the tokens of pieces that follow from those of their texts, by number."""
    own = {number: ids for number, piece in enumerate(pieces) if (ids := _own_ids(piece)) is not None}
    joined = source.join([pieces[number].prefix for number in own], list(own.values())) if own else []
    return {} if joined is None else dict(zip(own, joined, strict=True))


def _own_ids(piece: Piece) -> TokenIds | None:
    ids, text = piece.tokens.ids, piece.text
    if ids is None or (piece.prefix and piece.prefix[-1] not in SPACES):
        return None
    if piece.start > 0 and text[piece.start - 1] not in SPACES:
        return None
    if piece.end < len(text) and text[piece.end] not in SPACES:
        return None
    return ids[bisect_left(piece.starts, piece.start) : bisect_left(piece.starts, piece.end)]
