"""The token IDs that an encoder receives for chunks, from the tokens of the document where they are the same.

If white space separates what a tokenizer works on (`isospace.encoding.piece_rules`), the tokens of a text are those of
its pieces between white space, one after the other. Other tokenizers may merge white space with the word behind it
(byte-level BPE), or begin a text otherwise than a word (SentencePiece). Their chunks are tokenized by themselves, from
pieces that were seen before where that is possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from isospace.encoding.piece_tokenizer import PieceTokenizer, Spans, open_pieces
from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.chunk_tokens import SPACES
from isospace.ingest.token_counter import ChunkTokens, TextTokens, TokenIds


@dataclass(frozen=True)
class ChunkTokenizer:
    """Makes the token IDs of chunks; a `TokenSource`.

    Attributes
    ----------
    prompt
        Put before every text.
    is_kept
        Whether the encoder takes these IDs instead of making its own.
    """

    tokenizer: Tokenizer
    prompt: str
    is_kept: bool = True

    @property
    def digest(self) -> str:
        """SHA-256 of the tokenizer's file."""
        return self.tokenizer.digest

    @cached_property
    def _is_separable(self) -> bool:
        """Whether the tokens of a piece between white space are the same in the text and alone."""
        is_apart = not self.prompt or self.prompt[-1] in SPACES
        return is_apart and self._pieces is not None and self._pieces.cut == "spaces"

    @cached_property
    def _pieces(self) -> PieceTokenizer | None:
        return open_pieces(self.tokenizer)

    @cached_property
    def _frame(self) -> tuple[TokenIds, TokenIds]:
        """The special tokens before and after a text."""
        head, tail = self.tokenizer.frame("")
        return np.array(head, np.int32), np.array(tail, np.int32)

    @cached_property
    def _special(self) -> int:
        return len(self.tokenizer.all_ids([""])[0])

    @cached_property
    def _prompt_ids(self) -> TokenIds:
        return np.array(self.tokenizer.all_ids([self.prompt], special=False)[0], np.int32)

    def read(self, texts: Sequence[str]) -> list[TextTokens]:
        """Return the tokens of texts without prompt and special tokens."""
        if self._pieces is None:
            return [TextTokens(offsets) for offsets in self.tokenizer.offsets(texts)]
        return [_text_tokens(spans, is_separable=self._is_separable) for spans in self._pieces.spans(texts)]

    def encode(self, texts: Sequence[str]) -> list[ChunkTokens]:
        """Return the tokens of texts as documents."""
        # A token that begins in the prompt may reach into the text.
        is_counted = not self.prompt or self._is_separable
        return [
            self._chunk_tokens(ids, is_counted=is_counted) for ids in self._ids([self.prompt + text for text in texts])
        ]

    def _ids(self, texts: Sequence[str]) -> list[TokenIds]:
        """Return the token IDs of texts with special tokens."""
        if self._pieces is None:
            return [np.array(ids, np.int32) for ids in self.tokenizer.all_ids(texts)]
        head, tail = self._frame
        return [np.concatenate([head, ids, tail]) for ids in self._pieces.ids(texts)]

    def join(self, prefixes: Sequence[str], pieces: Sequence[TokenIds]) -> list[ChunkTokens] | None:
        """Return the tokens of prefixes and pieces of texts as documents; None if they do not follow from the IDs.

        Parameters
        ----------
        prefixes
            Each is empty, or ends in white space.
        pieces
            The part of `TextTokens.ids` of each piece, which has white space around it in its text.
        """
        if not self._is_separable:
            return None
        distinct = list(dict.fromkeys(prefixes))
        found = self.tokenizer.all_ids([self.prompt + prefix for prefix in distinct], special=False)
        head, tail = self._frame
        before = {
            prefix: np.concatenate([head, np.array(ids, np.int32)]) for prefix, ids in zip(distinct, found, strict=True)
        }
        return [
            self._chunk_tokens(np.concatenate([before[prefix], piece, tail]), is_counted=True)
            for prefix, piece in zip(prefixes, pieces, strict=True)
        ]

    def _chunk_tokens(self, ids: TokenIds, *, is_counted: bool) -> ChunkTokens:
        unknown = self.tokenizer.unknown_id
        if unknown is None:
            return ChunkTokens(ids)
        counts = None
        if is_counted:
            total = len(ids) - self._special - len(self._prompt_ids)
            in_prompt = np.count_nonzero(self._prompt_ids == unknown)
            counts = int(np.count_nonzero(ids == unknown) - in_prompt), total
        return ChunkTokens(self.tokenizer.kept_ids(ids), counts)


def _text_tokens(spans: Spans, *, is_separable: bool) -> TextTokens:
    is_covering = spans.ends > spans.starts
    # By its rules, every token covers text, and they are in its order. Otherwise, none can be cut out.
    is_whole = is_separable and bool(is_covering.all() and (np.diff(spans.starts) >= 0).all())
    starts, ends = spans.starts[is_covering].tolist(), spans.ends[is_covering].tolist()
    return TextTokens(list(zip(starts, ends, strict=True)), spans.ids if is_whole else None)
