"""The encoder: a sentence-transformers model, its identity, and text to raw vectors without padding.

Texts are grouped by exactly equal token count, so that no row of a batch holds padding: what a text's
vector is does not depend on how long its neighbours are. Matrix kernels also choose their path by the
number of rows: calls of few rows in all are the ones that were seen to differ in the last bits, so very
short texts always go in calls of a fixed number of rows, filled up with repeats.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from isospace.affine import Role
from isospace.chunking import Offsets, TokenCounter
from isospace.encoder_files import EncoderRecord
from isospace.errors import EncoderError

Float32 = npt.NDArray[np.float32]
_LOG = logging.getLogger(__name__)
# Texts below this many tokens go in calls of exactly so many rows.
SHORT_TOKENS = 16
SHORT_ROWS = 16


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
    """A loaded sentence-transformers model.

    Attributes
    ----------
    record
        Its identity.
    model
        The `SentenceTransformer`.
    batch_tokens
        Most tokens in one call of the model.
    lock
        Held by whoever encodes a shard: two at once would only share the same device.
    tokenizer_lock
        Truncation is a state of the tokenizer: one caller at a time.
    """

    record: EncoderRecord
    model: Any
    batch_tokens: int
    lock: threading.Lock = field(default_factory=threading.Lock)
    tokenizer_lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self) -> str:
        """Where the model is, such as `cpu` or `cuda:0`."""
        return str(self.model.device)

    def tokenize(self, texts: Sequence[str], role: Role) -> list[list[int]]:
        """Return the token ids of each text with its role's prompt and special tokens, never truncated."""
        prompt = self.record.prompts[role]
        if not texts:
            return []
        encoded = self._tokenizer([prompt + text for text in texts], add_special_tokens=True, truncation=False)
        return [list(ids) for ids in encoded["input_ids"]]

    def counter(self) -> TokenCounter:
        """Return what chunking needs of the tokenizer."""
        return TokenCounter(
            offsets=self._offsets,
            counts=lambda texts: [len(ids) for ids in self.tokenize(texts, "document")],
            limit=self.record.max_tokens,
        )

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Encode texts.

        Parameters
        ----------
        texts
            n strings. One with more tokens than the encoder takes is cut there, which is logged.
        role
            Decides the prompt.

        Returns
        -------
        numpy.ndarray
            (n, d) float32 raw vectors.

        Raises
        ------
        EncoderError
            If the model returns NaN, infinity or another dimension than recorded.
        """
        tokens = self.tokenize(texts, role)
        limit = self.record.max_tokens
        if cut := [len(ids) for ids in tokens if len(ids) > limit]:
            _LOG.warning(
                "%d of %d texts exceed %d tokens and are cut; longest: %d", len(cut), len(texts), limit, max(cut)
            )
            tokens = self._cut(texts, tokens, role)
        vectors = np.empty((len(tokens), self.record.dimension), np.float32)
        for rows in equal_length_batches([len(ids) for ids in tokens], self.batch_tokens):
            batch = [tokens[row] for row in rows]
            if len(batch[0]) < SHORT_TOKENS:
                batch += [batch[-1]] * (SHORT_ROWS - len(batch))
            vectors[rows] = self._forward(batch, role)[: len(rows)]
        if not np.isfinite(vectors).all():
            row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise EncoderError(
                f"the encoder returned NaN or infinity for the text {texts[row][:80]!r}. Check the model."
            )
        return vectors

    def _tokenizer(self, texts: list[str], **options: Any) -> Any:
        with self.tokenizer_lock:
            return self.model.tokenizer(texts, padding=False, verbose=False, **options)

    def _offsets(self, texts: Sequence[str]) -> list[Offsets]:
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=False, truncation=False, return_offsets_mapping=True)
        return [[(start, end) for start, end in offsets if end > start] for offsets in encoded["offset_mapping"]]

    def _cut(self, texts: Sequence[str], tokens: list[list[int]], role: Role) -> list[list[int]]:
        limit = self.record.max_tokens
        long = [row for row, ids in enumerate(tokens) if len(ids) > limit]
        # The tokenizer cuts, not a slice: the closing special token has to stay.
        prompt = self.record.prompts[role]
        encoded = self._tokenizer([prompt + texts[row] for row in long], truncation=True, max_length=limit)
        cut = dict(zip(long, encoded["input_ids"], strict=True))
        return [list(cut.get(row, ids)) for row, ids in enumerate(tokens)]

    def _forward(self, tokens: list[list[int]], role: Role) -> Float32:
        import torch

        ids = torch.tensor(tokens, device=self.model.device)
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "token_type_ids" in self.model.tokenizer.model_input_names:
            features["token_type_ids"] = torch.zeros_like(ids)
        if length := self.record.prompt_lengths[role]:
            features["prompt_length"] = length
        with torch.inference_mode():
            vectors = self.model(features)["sentence_embedding"].float().cpu().numpy()
        if vectors.shape[1] != self.record.dimension:
            raise EncoderError(
                f"the model returned {vectors.shape[1]} dimensions; its record says {self.record.dimension}."
            )
        return np.asarray(vectors, dtype=np.float32)


def equal_length_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row numbers by exactly equal length, each group cut at `batch_tokens`, the shortest first.

    Lengths below `SHORT_TOKENS` are cut at `SHORT_ROWS` rows.
    """
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    batches = []
    for length, rows in sorted(by_length.items()):
        remaining = iter(rows)
        most = SHORT_ROWS if length < SHORT_TOKENS else max(batch_tokens // length, 1)
        while batch := list(islice(remaining, most)):
            batches.append(batch)
    return batches


def load_model(folder: Path, *, device: str, trust_remote_code: bool = False) -> Any:
    """Load a sentence-transformers model from a local folder.

    Raises
    ------
    EncoderError
        If it is none, or has no fast tokenizer.
    """
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    chosen = None if device == "auto" else device
    try:
        model = SentenceTransformer(
            str(folder), device=chosen, trust_remote_code=trust_remote_code, local_files_only=True
        )
    except Exception as error:  # the library raises whatever its parts raise
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"model {folder.name}: sentence-transformers cannot load it ({reason}).") from error
    if not getattr(model.tokenizer, "is_fast", False):
        raise EncoderError(
            f"model {folder.name}: has no fast tokenizer, which offsets need. Convert it to tokenizer.json."
        )
    model.eval()
    return model
