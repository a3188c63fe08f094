"""The encoder: text to raw vectors, by the tokenizer and the graph that lie in the store.

Texts are tokenized ahead in the background, grouped so that (almost) nothing is padded, and computed by a
backend; what a text's vector is does not depend on its neighbours.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from isospace.encoding.backends.base import Backend
from isospace.encoding.batching import Batch
from isospace.encoding.pooling import pooling_weights
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.tokenizer import Tokenizer, Tokens
from isospace.encoding.windows import cut_windows, pool_windows
from isospace.errors import EncoderError
from isospace.ingest.chunking import TokenCounter
from isospace.transform.affine import Role
from isospace.transform.vectors import Float32

_LOG = logging.getLogger(__name__)
# Texts that are grouped by length together, and tokenized while those before them are computed. A GPU would be idle
# until its first block is tokenized: that one is small, and each is twice the one before it. On a CPU both are the work
# of
# the same processors, and whole blocks make fewer and larger calls.
FIRST_BLOCK_TEXTS, BLOCK_TEXTS = 512, 8192


class Encoder(Protocol):
    """What the rest of isospace asks of an encoder."""

    @property
    def record(self) -> EncoderRecord:
        """Its identity."""

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Token ids with prompt and special tokens, whole."""

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """(n, d) float32 raw vectors."""


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """A loaded encoder.

    Attributes
    ----------
    record
        Its identity.
    tokenizer
        Its tokenizer.
    backend
        What computes.
    lock
        Held by whoever encodes a shard: two at once would only share the same device.
    """

    record: EncoderRecord
    tokenizer: Tokenizer
    backend: Backend
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token ids of each text with its role's prompt and special tokens, never truncated."""
        return tokenize(self.tokenizer, self.record, texts, role)

    def counter(self) -> TokenCounter:
        """Return what chunking needs of the tokenizer."""
        return token_counter(self.tokenizer, self.record)

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Encode texts.

        Parameters
        ----------
        texts
            n strings. One with more tokens than the encoder takes is encoded in windows if the record has them; else
            it is cut, which is logged.
        role
            Decides the prompt.

        Returns
        -------
        numpy.ndarray
            (n, d) float32 raw vectors.

        Raises
        ------
        EncoderError
            If the model returns NaN or infinity, or another dimension than recorded.
        """
        vectors = np.empty((len(texts), self.record.dimension), np.float32)
        for start, pieces in self._ahead(texts, role):
            vectors[start : start + len(pieces)] = self._compute(pieces, role)
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise EncoderError(
                f"the encoder returned NaN or infinity for the text {texts[row][:80]!r}. Check the model."
            )
        return vectors

    def encode_ids(self, ids: Sequence[Sequence[int]], role: Role) -> Float32:
        """Encode sequences of token ids that `require_ids` has accepted: (n, d) float32 raw vectors."""
        return self._compute([[Tokens(np.array(one, np.int32))] for one in ids], role)

    def require_ids(self, ids: Sequence[Sequence[int]], role: Role) -> None:
        """Refuse token ids that `tokenize` would not give for any text of this role.

        Raises
        ------
        EncoderError
            If an id is beyond the vocabulary, the sequence lacks special tokens or the role's prompt, or the pooling
            needs the words that ids do not tell.
        """
        if "subword" in self.record.pooling:
            raise EncoderError("token ids do not tell words, which this encoder pools by. Send the text.")
        head, tail = self.tokenizer.frame(self.record.prompts[role])
        for number, one in enumerate(ids):
            if (highest := max(one)) >= self.tokenizer.size:
                raise EncoderError(
                    f"input {number}: token id {highest} is beyond this encoder's {self.tokenizer.size}; the ids are "
                    "of another tokenizer. Send the text (LangChain: check_embedding_ctx_length=False)."
                )
            if (
                list(one[: len(head)]) != head
                or (tail and list(one[-len(tail) :]) != tail)
                or len(one) < len(head + tail)
            ):
                raise EncoderError(
                    f"input {number}: token ids {list(one[:6])}…{list(one[-3:])} lack what this encoder puts around a "
                    f"{role}: {head} … {tail}. Send them whole, or send the text (LangChain: "
                    "check_embedding_ctx_length=False)."
                )

    def _ahead(self, texts: Sequence[str], role: Role) -> Iterator[tuple[int, list[list[Tokens]]]]:
        """Yield blocks of texts as pieces, the next block being tokenized meanwhile."""
        starts = block_starts(len(texts), BLOCK_TEXTS if self.backend.device == "cpu" else FIRST_BLOCK_TEXTS)
        blocks = [texts[start:end] for start, end in pairwise([*starts, len(texts)])]
        if len(blocks) <= 1:
            yield from ((0, self._pieces(block, role)) for block in blocks)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as background:
            coming = background.submit(self._pieces, blocks[0], role)
            for number, start in enumerate(starts):
                ready = coming.result()
                if number + 1 < len(blocks):
                    coming = background.submit(self._pieces, blocks[number + 1], role)
                yield start, ready

    def _pieces(self, texts: Sequence[str], role: Role) -> list[list[Tokens]]:
        """Tokenize; each text gives one piece, or as many as it has windows."""
        record, prompt = self.record, self.record.prompts[role]
        detailed = record.windows is not None or "subword" in record.pooling
        tokens = self.tokenizer.tokens(texts, prompt=prompt, detailed=detailed)
        if empty := [row for row, found in enumerate(tokens) if not len(found.ids)]:
            raise EncoderError(
                f"the text {texts[empty[0]][:40]!r} has no tokens, and this tokenizer adds none of its own. Leave it "
                "out."
            )
        long = [row for row, found in enumerate(tokens) if len(found.ids) > record.max_tokens]
        if not long:
            return [[found] for found in tokens]
        if record.windows is not None:
            too_long = set(long)
            return [
                cut_windows(found, record.windows) if row in too_long else [found] for row, found in enumerate(tokens)
            ]
        _LOG.warning(
            "%d of %d texts exceed %d tokens and are cut; longest: %d",
            len(long),
            len(texts),
            record.max_tokens,
            max(len(tokens[row].ids) for row in long),
        )
        cut = self.tokenizer.tokens(
            [texts[row] for row in long], prompt=prompt, limit=record.max_tokens, detailed=detailed
        )
        for row, found in zip(long, cut, strict=True):
            tokens[row] = found
        return [[found] for found in tokens]

    def batches(self, texts: Sequence[str], role: Role) -> list[Batch]:
        """Return what the backend is given for texts: for calibration and for measuring."""
        flat = [piece for windows in self._pieces(texts, role) for piece in windows]
        return [self.batch(group, flat, role) for group in self.backend.batches([len(piece.ids) for piece in flat])]

    def _compute(self, pieces: list[list[Tokens]], role: Role) -> Float32:
        flat = [piece for windows in pieces for piece in windows]
        vectors = np.empty((len(flat), self.record.dimension), np.float32)
        rows = self.backend.batches([len(piece.ids) for piece in flat])
        self.backend.run((self.batch(group, flat, role) for group in rows), vectors)
        if len(flat) == len(pieces) or self.record.windows is None:
            return vectors
        counts = [len(windows) for windows in pieces]
        pooling, normalize = self.record.windows.pooling, self.record.normalizes
        return pool_windows(vectors, counts, pooling=pooling, normalize=normalize)

    def batch(self, rows: list[int], pieces: list[Tokens], role: Role) -> Batch:
        """Return what the backend is given for some of the pieces."""
        lengths = np.array([len(pieces[row].ids) for row in rows], np.int64)
        shape = (len(rows), int(lengths.max()))
        mask = np.arange(shape[1])[None, :] < lengths[:, None]
        ids = np.zeros(shape, np.int64)
        ids[mask] = np.concatenate([pieces[row].ids for row in rows])
        words = np.full(shape, -1, np.int64)
        if known := [found for row in rows if (found := pieces[row].words) is not None]:
            words[mask] = np.concatenate(known)
        skip = self.record.prompt_tokens[role]
        weights = [pooling_weights(kind, mask, prompt_tokens=skip, words=words) for kind in self.record.pooling]
        return Batch(np.asarray(rows, np.int64), ids, np.stack(weights, axis=1), lengths)


def block_starts(texts: int, first: int) -> list[int]:
    """Return where the blocks of so many texts begin, the first of which has at most `first`."""
    starts, start, size = [], 0, first
    while start < texts:
        starts.append(start)
        start, size = start + size, min(2 * size, BLOCK_TEXTS)
    return starts


def tokenize(tokenizer: Tokenizer, record: EncoderRecord, texts: Sequence[str], role: Role) -> list[list[int]]:
    """Return the token ids of each text with its role's prompt and special tokens, never truncated."""
    prompt = record.prompts[role]
    return tokenizer.ids([prompt + text for text in texts])


def token_counter(tokenizer: Tokenizer, record: EncoderRecord) -> TokenCounter:
    """Return what chunking needs of an encoder's tokenizer."""
    return TokenCounter(
        offsets=tokenizer.offsets,
        counts=lambda texts: [len(ids) for ids in tokenize(tokenizer, record, texts, "document")],
        limit=record.max_tokens,
        windowed=record.windows is not None,
    )
