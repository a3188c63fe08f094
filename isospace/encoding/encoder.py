"""The encoder: turns text into raw vectors, with the tokenizer and the graph from the store.

Texts are tokenized ahead in a background thread, grouped into batches with little or no padding, and computed by a
backend. A text's vector does not depend on the texts it shares a batch with.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from isospace.encoding.backends.base import Backend, Described
from isospace.encoding.batching import Batch
from isospace.encoding.forks import require_loaded_here
from isospace.encoding.pooling import pooling_weights
from isospace.encoding.registry.record import EncoderRecord
from isospace.encoding.tokenizer import Tokenizer, Tokens
from isospace.encoding.windows import cut_windows, pool_windows
from isospace.errors import EncoderError
from isospace.transform.affine import Role
from isospace.transform.probes import Probed, Windows
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.ingest.chunking import TokenCounter

_LOG = logging.getLogger(__name__)
# Texts are tokenized and grouped by length in blocks; a block is tokenized while the one before it is computed. A GPU
# is idle until its first block is tokenized, so that block is small, and each block is twice as large as the one
# before. On a CPU both steps compete for the same cores, and full blocks give fewer and larger calls.
FIRST_BLOCK_TEXTS, BLOCK_TEXTS = 512, 8192
_TRUNCATION_IS_MEANT: ContextVar[bool] = ContextVar("truncation_is_meant", default=False)


class Encoder(Probed, Protocol):
    """What the rest of isospace needs from an encoder."""

    @property
    def record(self) -> EncoderRecord:
        """The encoder's identity."""


@runtime_checkable
class LoadedEncoder(Encoder, Protocol):
    """What indexing needs from an encoder: its own one, on a device or behind an API."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Counts tokens; for an encoder on a device, it also makes them."""

    @property
    def backend(self) -> Described:
        """What computes the vectors."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held while a shard is encoded."""

    @property
    def known(self) -> dict[str, str]:
        """What `isospace.encoding.bits` has found out about this encoder."""

    @property
    def min_cosine(self) -> float:
        """Smallest cosine with a vector of the same text that was computed elsewhere or earlier."""

    def counter(self) -> TokenCounter:
        """Return the token counter that chunking needs."""


@dataclass(frozen=True, slots=True)
class SentenceEncoder:
    """A loaded encoder.

    Attributes
    ----------
    lock
        Held while a shard is encoded: two shards at once would only compete for the same device.
    known
        What `isospace.encoding.bits` has found out about this encoder.
    process
        ID of the process that loaded it; its forks cannot use it.
    """

    record: EncoderRecord
    tokenizer: Tokenizer
    backend: Backend
    lock: threading.Lock = field(default_factory=threading.Lock)
    known: dict[str, str] = field(default_factory=dict, compare=False, repr=False)
    process: int = field(default_factory=os.getpid, compare=False, repr=False)

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token IDs of each text with its role's prompt and special tokens, never truncated."""
        return tokenize(self.tokenizer, self.record, texts, role)

    @property
    def min_cosine(self) -> float:
        """Tolerance of the encoder."""
        return self.record.min_cosine

    def counter(self) -> TokenCounter:
        """Return the token counter that chunking needs."""
        return token_counter(self.tokenizer, self.record)

    def encode(
        self, texts: Sequence[str], role: Role, *, ids: Sequence[npt.NDArray[np.int32] | None] | None = None
    ) -> Float32:
        """Encode texts.

        Parameters
        ----------
        texts
            n strings. A text with more tokens than the encoder takes is encoded in windows if the record defines
            them; otherwise it is truncated, with a warning in the log.
        role
            Selects the prompt.
        ids
            What `tokenize` returns for each text, so that it need not be tokenized again; None for texts of which this
            is not known.

        Returns
        -------
        numpy.ndarray
            (n, d) float32 raw vectors.

        Raises
        ------
        EncoderError
            If the model returns NaN or infinity, or a dimension other than the recorded one, or was loaded before this
            process was forked.
        """
        require_loaded_here(self.process, "the encoder")
        vectors = np.empty((len(texts), self.record.dimension), np.float32)
        for start, windows_by_text in self._tokenized_blocks(texts, role, ids):
            vectors[start : start + len(windows_by_text)] = self._compute(windows_by_text, role)
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise EncoderError(
                f"the encoder returned NaN or infinity for the text {texts[row][:80]!r}. Check the model."
            )
        return vectors

    def inputs(self, texts: Sequence[str], role: Role) -> list[list[npt.NDArray[np.int32]]]:
        """Return what the network would receive.

        Returns
        -------
        list
            For each text a list of its windows, or of the one truncated text. Each is a (1, length) int32 array of
            token IDs, or (2, length) with the words of the tokens if the pooling depends on them.
        """
        return [[self._input(window) for window in windows] for windows in self._windows(texts, role)]

    def _input(self, window: Tokens) -> npt.NDArray[np.int32]:
        if "subword" in self.record.pooling and window.words is not None:
            return np.stack([window.ids, window.words])
        return window.ids[None, :]

    def encode_windows(self, texts: Sequence[Windows], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts that are given by what `inputs` returns for them."""
        return self._compute(
            [[Tokens(window[0], window[1] if len(window) > 1 else None) for window in windows] for windows in texts],
            role,
        )

    def encode_ids(self, ids: Sequence[Sequence[int]], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of token ID sequences that `require_ids` accepts."""
        require_loaded_here(self.process, "the encoder")
        return self._compute([[Tokens(np.array(sequence, np.int32))] for sequence in ids], role)

    def require_ids(self, ids: Sequence[Sequence[int]], role: Role) -> None:
        """Reject token IDs that `tokenize` cannot produce for a text of this role.

        Raises
        ------
        EncoderError
            If an ID is outside the vocabulary, the special tokens or the role's prompt are missing, or the pooling
            needs word boundaries, which IDs do not have.
        """
        if "subword" in self.record.pooling:
            raise EncoderError("this encoder pools by words, and token IDs have no word boundaries. Send the text.")
        head, tail = self.tokenizer.frame(self.record.prompts[role])
        for number, sequence in enumerate(ids):
            if (highest := max(sequence)) >= self.tokenizer.size:
                raise EncoderError(
                    f"input[{number}]: token ID {highest} is outside this encoder's vocabulary of "
                    f"{self.tokenizer.size}; the IDs come from another tokenizer. Send the text (LangChain: "
                    "check_embedding_ctx_length=False)."
                )
            if (
                list(sequence[: len(head)]) != head
                or (tail and list(sequence[-len(tail) :]) != tail)
                or len(sequence) < len(head + tail)
            ):
                raise EncoderError(
                    f"input[{number}]: token IDs {list(sequence[:6])}…{list(sequence[-3:])} lack what this encoder "
                    f"puts around a {role}: {head} … {tail}. Send all token IDs, or send the text (LangChain: "
                    "check_embedding_ctx_length=False)."
                )

    def _tokenized_blocks(
        self, texts: Sequence[str], role: Role, ids: Sequence[npt.NDArray[np.int32] | None] | None
    ) -> Iterator[tuple[int, list[list[Tokens]]]]:
        """Yield each block's first row and windows, while the next block is tokenized in the background."""
        starts = block_starts(len(texts), BLOCK_TEXTS if self.backend.device == "cpu" else FIRST_BLOCK_TEXTS)
        blocks = [
            (texts[start:end], role, None if ids is None else ids[start:end])
            for start, end in pairwise([*starts, len(texts)])
        ]
        if len(blocks) <= 1:
            yield from ((0, self._windows(*block)) for block in blocks)
            return
        with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as background:
            pending = background.submit(self._windows, *blocks[0])
            for number, start in enumerate(starts):
                windows = pending.result()
                if number + 1 < len(blocks):
                    pending = background.submit(self._windows, *blocks[number + 1])
                yield start, windows

    def _tokens(
        self, texts: Sequence[str], role: Role, ids: Sequence[npt.NDArray[np.int32] | None] | None
    ) -> list[Tokens]:
        """Return the tokens of texts, of those with known IDs without tokenizing them."""
        record = self.record
        # Windows need the ends of the texts that they are cut from, pooling by words every word.
        needs_words = "subword" in record.pooling
        known = [
            None if one is None or needs_words or (record.windows is not None and len(one) > record.max_tokens) else one
            for one in (ids if ids is not None else [None] * len(texts))
        ]
        rest = [row for row, one in enumerate(known) if one is None]
        detailed = record.windows is not None or needs_words
        prompt = record.prompts[role]
        made = self.tokenizer.tokens([texts[row] for row in rest], prompt=prompt, detailed=detailed) if rest else []
        found = dict(zip(rest, made, strict=True))
        return [found[row] if one is None else Tokens(one) for row, one in enumerate(known)]

    def _windows(
        self, texts: Sequence[str], role: Role, ids: Sequence[npt.NDArray[np.int32] | None] | None = None
    ) -> list[list[Tokens]]:
        """Return the windows of each text, a single one if the text is within the limit."""
        record, prompt = self.record, self.record.prompts[role]
        detailed = record.windows is not None or "subword" in record.pooling
        tokens = self._tokens(texts, role, ids)
        if empty := [row for row, text in enumerate(tokens) if not len(text.ids)]:
            raise EncoderError(
                f"the text {texts[empty[0]][:40]!r} has no tokens, and this tokenizer adds no special tokens. Leave "
                "the text out."
            )
        long = [row for row, text in enumerate(tokens) if len(text.ids) > record.max_tokens]
        if not long:
            return [[text] for text in tokens]
        if record.windows is not None:
            too_long = set(long)
            return [cut_windows(text, record.windows) if row in too_long else [text] for row, text in enumerate(tokens)]
        _LOG.log(
            logging.DEBUG if _TRUNCATION_IS_MEANT.get() else logging.WARNING,
            "%d of %d texts exceed %d tokens and were truncated; longest: %d",
            len(long),
            len(texts),
            record.max_tokens,
            max(len(tokens[row].ids) for row in long),
        )
        if record.is_static:
            # Without special tokens, the first tokens are what is left; tokenizing takes most of the time.
            truncated = [tokens[row].first(record.max_tokens) for row in long]
        else:
            truncated = self.tokenizer.tokens(
                [texts[row] for row in long], prompt=prompt, limit=record.max_tokens, detailed=detailed
            )
        for row, text in zip(long, truncated, strict=True):
            tokens[row] = text
        return [[text] for text in tokens]

    def batches(self, texts: Sequence[str], role: Role) -> list[Batch]:
        """Return the batches that the backend receives for texts, for calibration and benchmarks."""
        flat = [window for windows in self._windows(texts, role) for window in windows]
        return [self.batch(group, flat, role) for group in self.backend.batches([len(window.ids) for window in flat])]

    def _compute(self, windows_by_text: list[list[Tokens]], role: Role) -> Float32:
        flat = [window for windows in windows_by_text for window in windows]
        vectors = np.empty((len(flat), self.record.dimension), np.float32)
        rows = self.backend.batches([len(window.ids) for window in flat])
        self.backend.run((self.batch(group, flat, role) for group in rows), vectors)
        if len(flat) == len(windows_by_text) or self.record.windows is None:
            return vectors
        counts = [len(windows) for windows in windows_by_text]
        pooling, normalize = self.record.windows.pooling, self.record.normalizes
        return pool_windows(vectors, counts, pooling=pooling, normalize=normalize)

    def batch(self, rows: list[int], windows: list[Tokens], role: Role) -> Batch:
        """Return the backend's input for some of the windows."""
        lengths = np.array([len(windows[row].ids) for row in rows], np.int64)
        shape = (len(rows), int(lengths.max()))
        mask = np.arange(shape[1])[None, :] < lengths[:, None]
        ids = np.zeros(shape, np.int64)
        ids[mask] = np.concatenate([windows[row].ids for row in rows])
        words = np.full(shape, -1, np.int64)
        # Of tokens that were known before, words are not; no other pooling needs them.
        known = [numbers for row in rows if (numbers := windows[row].words) is not None]
        if known and "subword" in self.record.pooling:
            words[mask] = np.concatenate(known)
        skip = self.record.prompt_tokens[role]
        weights = [pooling_weights(kind, mask, prompt_tokens=skip, words=words) for kind in self.record.pooling]
        return Batch(np.asarray(rows, np.int64), ids, np.stack(weights, axis=1), lengths)


@contextlib.contextmanager
def truncation_is_meant() -> Iterator[None]:
    """Truncate texts without a warning within this context, since probes are longer than the limit on purpose."""
    token = _TRUNCATION_IS_MEANT.set(True)
    try:
        yield
    finally:
        _TRUNCATION_IS_MEANT.reset(token)


def block_starts(texts: int, first: int) -> list[int]:
    """Return the first row of each block.

    The first block has at most `first` texts, and each one after it up to twice as many as the one before.
    """
    starts, start, size = [], 0, first
    while start < texts:
        starts.append(start)
        start, size = start + size, min(2 * size, BLOCK_TEXTS)
    return starts


def tokenize(tokenizer: Tokenizer, record: EncoderRecord, texts: Sequence[str], role: Role) -> list[list[int]]:
    """Return the token IDs of each text with its role's prompt and special tokens, never truncated."""
    prompt = record.prompts[role]
    return tokenizer.ids([prompt + text for text in texts])


def token_counter(tokenizer: Tokenizer, record: EncoderRecord) -> TokenCounter:
    """Return the token counter that chunking needs, from an encoder's tokenizer."""
    from isospace.encoding.chunk_tokenizer import ChunkTokenizer
    from isospace.ingest.chunking import TokenCounter

    # Pooling by words needs the words of the tokens, too. A provider makes its own tokens.
    is_kept = record.served is None and "subword" not in record.pooling
    return TokenCounter(
        offsets=tokenizer.offsets,
        counts=lambda texts: [len(ids) for ids in tokenize(tokenizer, record, texts, "document")],
        limit=record.max_tokens,
        windowed=record.windows is not None,
        unknown=tokenizer.unknown_counts if tokenizer.unknown_id is not None else None,
        source=ChunkTokenizer(tokenizer, record.prompts["document"], is_kept=is_kept),
    )
