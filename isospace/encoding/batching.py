"""Group texts into batches, and halve batches that do not fit into memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from isospace.errors import EncoderError


class OutOfMemory(Exception):
    """The device ran out of memory during a call; the batch is halved and retried."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The input of one model call.

    Attributes
    ----------
    rows
        (n,) int64: row of the output that each vector is written to.
    ids
        (n, length) int64 token IDs, padded with zeros at the end.
    weights
        (n, modes, length) float32 pooling weights.
    lengths
        (n,) int64: tokens of each row, without padding.
    """

    rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]

    @property
    def is_padded(self) -> bool:
        """Whether any row is padded."""
        return bool((self.lengths < self.ids.shape[1]).any())

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return the (n, length) mask that is True where a token is not padding."""
        return np.arange(self.ids.shape[1])[None, :] < self.lengths[:, None]

    def tokens(self) -> int:
        """Count the tokens, without padding."""
        return int(self.lengths.sum())

    def padded_tokens(self) -> int:
        """Count the tokens, with padding."""
        return self.ids.size

    def part(self, rows: slice) -> Batch:
        """Return some of the rows, cut to the longest of them."""
        lengths = self.lengths[rows]
        width = int(lengths.max())
        return Batch(self.rows[rows], self.ids[rows, :width], self.weights[rows, :, :width], lengths)

    def fill_rows(self, minimum: int) -> Batch:
        """Repeat the last row until the batch has `minimum` rows."""
        missing = minimum - len(self.rows)
        if missing <= 0:
            return self
        chosen = np.concatenate([np.arange(len(self.rows)), np.full(missing, len(self.rows) - 1)])
        return Batch(self.rows[chosen], self.ids[chosen], self.weights[chosen], self.lengths[chosen])


def equal_length_batches(
    lengths: Sequence[int], batch_tokens: int, *, short: tuple[int, int] = (0, 1)
) -> list[list[int]]:
    """Group row numbers by exact length, with at most `batch_tokens` tokens per group.

    Parameters
    ----------
    lengths
        Tokens of each row.
    batch_tokens
        Maximum number of tokens per group; a single row may exceed it.
    short
        (length, rows): texts shorter than `length` tokens are grouped by this number of rows instead.

    Returns
    -------
    list of list of int
        Every row number once. The longest rows come first, so that a lack of memory shows at once.
    """
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    batches = []
    for length, rows in sorted(by_length.items(), reverse=True):
        remaining = iter(rows)
        most = short[1] if length < short[0] else max(batch_tokens // max(length, 1), 1)
        while batch := list(islice(remaining, most)):
            batches.append(batch)
    return batches


def near_length_batches(lengths: Sequence[int], batch_tokens: int, *, slack: float) -> list[list[int]]:
    """Group row numbers by similar length, longest first, with at most a share of `slack` as padding."""
    batches: list[list[int]] = []
    current: list[int] = []
    tokens = longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        padded = longest * (len(current) + 1)
        full = padded > batch_tokens or padded - tokens - lengths[row] > slack * padded
        if not current or full:
            current, tokens, longest = [], 0, lengths[row]
            batches.append(current)
        current.append(row)
        tokens += lengths[row]
    return batches


def flat_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Group row numbers by total number of tokens alone, longest first.

    A group has at most `batch_tokens` tokens, unless it is a single row. Padded to its longest row, as it is in host
    memory, it has at most twice as many.
    """
    batches: list[list[int]] = []
    tokens = longest = 0
    for row in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        if not batches or tokens + lengths[row] > batch_tokens or longest * (len(batches[-1]) + 1) > 2 * batch_tokens:
            batches.append([])
            tokens, longest = 0, lengths[row]
        batches[-1].append(row)
        tokens += lengths[row]
    return batches


def run_halving(
    batches: Iterable[Batch],
    call: Callable[[Batch], None],
    *,
    size: Callable[[Batch], int],
    budget: Callable[[], int],
    halve: Callable[[int], None],
) -> None:
    """Run every batch; halve a batch that does not fit into memory, and the token budget with it.

    Parameters
    ----------
    batches
        In any order; every row of every batch goes through `call` once.
    call
        Computes a batch and stores its vectors; raises OutOfMemory before it stores any.
    size
        Returns the number of tokens of a batch, as the device counts them.
    budget
        Returns the current maximum number of tokens per call; larger batches are halved first.
    halve
        Called with the number of tokens of a batch that did not fit.

    Raises
    ------
    EncoderError
        If a single text does not fit.
    """
    for batch in batches:
        waiting = deque([batch])
        while waiting:
            current = waiting.popleft()
            if len(current.rows) > 1 and size(current) > budget():
                waiting.extendleft(reversed(list(_halves(current))))
                continue
            try:
                call(current)
            except OutOfMemory as error:
                if len(current.rows) == 1:
                    raise EncoderError(
                        f"a text of {current.lengths.max()} tokens alone exceeds the memory of the device ({error}). "
                        "Lower recipe.encoder.max_tokens, or use a device with more memory."
                    ) from error
                halve(size(current))
                waiting.extendleft(reversed(list(_halves(current))))


def put_rows(into: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> None:
    """Write (n, d) vectors to their rows; raise EncoderError if the shape does not match."""
    if vectors.shape != (len(rows), into.shape[1]):
        raise EncoderError(
            f"the model returned vectors of shape {vectors.shape} for {len(rows)} texts; expected "
            f"{into.shape[1]} dimensions. Check the model."
        )
    into[rows] = vectors


def _halves(batch: Batch) -> Iterator[Batch]:
    middle = (len(batch.rows) + 1) // 2
    yield batch.part(slice(0, middle))
    yield batch.part(slice(middle, None))
