"""How the stored vectors of a snapshot lie: lengths of all of them, and a sample for everything that needs pairs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.search.view import View
from isospace.transform.vectors import Float32

_BLOCK_ROWS = 16_384
_BINS = 60
_HALF_ROUNDING = 2.0**-11


@dataclass(frozen=True, slots=True)
class Norms:
    """Lengths of all vectors of a snapshot.

    Attributes
    ----------
    count
        How many vectors.
    smallest, largest
        Of the lengths; NaN counts as infinite.
    largest_error
        Largest distance of a length from 1.
    counts, edges
        Histogram: counts of equal bins between the edges.
    """

    count: int
    smallest: float
    largest: float
    largest_error: float
    counts: tuple[int, ...]
    edges: tuple[float, float]


def stored_blocks(view: View) -> Iterator[tuple[int, Float32]]:
    """Yield first row and (b, k) float32 vectors of all chunks, decoded from the finest representation."""
    codes = view.finest
    for first in range(0, len(codes), _BLOCK_ROWS):
        yield first, codes.quantizer.decode(np.ascontiguousarray(codes.array[first : first + _BLOCK_ROWS]))


def norm_tolerance(representation: str, wanted: float) -> float:
    """Return how far a length may be from 1: half precision alone rounds by up to 2^-11."""
    return max(wanted, _HALF_ROUNDING) if representation == "float16" else wanted


def sample_rows(view: View, size: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw rows without repetition, ascending; all if there are no more."""
    chance = np.random.default_rng(seed)
    return np.sort(chance.permutation(len(view.copy))[:size]).astype(np.int64)


def vectors_at(view: View, rows: npt.NDArray[np.int64]) -> Float32:
    """Return (m, k) float32 vectors of rows, decoded from the finest representation."""
    codes = view.finest
    return codes.quantizer.decode(np.ascontiguousarray(codes.array[rows]))


def measure_norms(view: View) -> Norms:
    """Measure the lengths of all vectors, block by block."""
    lengths = [np.sqrt((block.astype(np.float64) ** 2).sum(axis=1)) for _, block in stored_blocks(view)]
    found = np.concatenate(lengths) if lengths else np.ones(0)
    found = np.where(np.isfinite(found), found, np.inf)
    finite = found[np.isfinite(found)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1.0, 1.0)
    # A histogram of lengths that are all 1 still has a width.
    low, high = min(low, 1.0 - 1e-6), max(high, 1.0 + 1e-6)
    counts, _ = np.histogram(finite, bins=_BINS, range=(low, high))
    error = float(np.abs(found - 1.0).max(initial=0.0))
    smallest, largest = float(found.min(initial=np.inf)), float(found.max(initial=0.0))
    return Norms(len(found), smallest, largest, error, tuple(int(c) for c in counts), (low, high))
