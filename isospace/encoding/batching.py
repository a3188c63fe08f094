"""Which texts share a call of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from isospace.errors import EncoderError


class OutOfMemory(Exception):
    """A device had too little memory for a call; the call is tried again in halves."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One call of the model.

    Attributes
    ----------
    rows
        Where its n vectors belong.
    ids
        (n, length) int64 token ids, padded with zeros at the end.
    weights
        (n, modes, length) float32 pooling weights.
    lengths
        (n,) int64: tokens of each row that are no padding.
    """

    rows: npt.NDArray[np.int64]
    ids: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]

    @property
    def is_padded(self) -> bool:
        """Whether any row is shorter than the batch."""
        return bool((self.lengths < self.ids.shape[1]).any())

    def mask(self) -> npt.NDArray[np.bool_]:
        """Return (n, length): what is no padding."""
        return np.arange(self.ids.shape[1])[None, :] < self.lengths[:, None]

    def tokens(self) -> int:
        """Count its tokens that are no padding."""
        return int(self.lengths.sum())

    def padded_tokens(self) -> int:
        """Count its tokens, with padding."""
        return self.ids.size

    def part(self, rows: slice) -> Batch:
        """Return some of its rows, no wider than the longest of them."""
        lengths = self.lengths[rows]
        width = int(lengths.max())
        return Batch(self.rows[rows], self.ids[rows, :width], self.weights[rows, :, :width], lengths)

    def filled(self, least: int) -> Batch:
        """Return it with its last row repeated until there are `least`."""
        missing = least - len(self.rows)
        if missing <= 0:
            return self
        chosen = np.concatenate([np.arange(len(self.rows)), np.full(missing, len(self.rows) - 1)])
        return Batch(self.rows[chosen], self.ids[chosen], self.weights[chosen], self.lengths[chosen])


def equal_length_batches(
    lengths: Sequence[int], batch_tokens: int, *, short: tuple[int, int] = (0, 1)
) -> list[list[int]]:
    """Group row numbers by exactly equal length, each group cut at `batch_tokens`, the longest first.

    Parameters
    ----------
    lengths
        Tokens of each row.
    batch_tokens
        Most tokens of a group; a single row may exceed it.
    short
        Lengths below the first number are cut at the second number of rows.

    Returns
    -------
    list of list of int
        Every row number once. The longest come first: what a device lacks memory for shows at once.
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
    """Group row numbers by nearly equal length: at most `slack` of a group's tokens are padding, the longest first."""
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
    """Group row numbers of any lengths into groups of at most `batch_tokens`, the longest first; a single row may exceed it.

    A group padded to its longest row, as it is on the host, has at most twice as many.
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
    """Call the model batch by batch; one that does not fit is halved, and the budget with it.

    Parameters
    ----------
    batches
        In any order; every row of every batch goes through `call` once.
    call
        Computes a batch and puts its vectors where its rows belong; raises OutOfMemory before anything is put.
    size
        Tokens of a batch, as the device counts them.
    budget
        Most tokens of a call, now: batches that were cut before it fell are cut again.
    halve
        Told the tokens of a call that did not fit.

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
    """Put (n, d) vectors where their rows belong; EncoderError if the model returned another shape."""
    if vectors.shape != (len(rows), into.shape[1]):
        raise EncoderError(
            f"the model returned vectors of the shape {vectors.shape} for {len(rows)} texts; expected "
            f"{into.shape[1]} dimensions."
        )
    into[rows] = vectors


def _halves(batch: Batch) -> Iterator[Batch]:
    middle = (len(batch.rows) + 1) // 2
    yield batch.part(slice(0, middle))
    yield batch.part(slice(middle, None))
