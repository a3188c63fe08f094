"""Read the stored vectors of a snapshot: the norms of all of them, and samples for everything that needs pairs."""

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
    """Norms of all vectors of a snapshot.

    Attributes
    ----------
    count
        Number of vectors.
    smallest, largest
        Extreme norms; NaN counts as infinite.
    largest_error
        Largest distance of a norm from 1.
    counts, edges
        Histogram: counts in equal bins between the two edges.
    """

    count: int
    smallest: float
    largest: float
    largest_error: float
    counts: tuple[int, ...]
    edges: tuple[float, float]


def stored_blocks(view: View) -> Iterator[tuple[npt.NDArray[np.int64], Float32]]:
    """Yield blocks of all vectors, decoded from the finest representation: (b,) rows, and (b, k) float32 array."""
    codes, rows = view.finest, view.copy.rows
    for first in range(0, len(rows), _BLOCK_ROWS):
        block = rows[first : first + _BLOCK_ROWS]
        yield block, codes.quantizer.decode(np.ascontiguousarray(codes.array[block]))


def norm_tolerance(representation: str, wanted: float) -> float:
    """Return how far a norm may be from 1: half precision rounds by up to 2^-11."""
    return max(wanted, _HALF_ROUNDING) if representation == "float16" else wanted


def sample_rows(view: View, size: int, seed: int) -> npt.NDArray[np.int64]:
    """Draw up to `size` rows without repetition, in the order of the snapshot's parts."""
    generator = np.random.default_rng(seed)
    return view.copy.rows[np.sort(generator.permutation(len(view.copy))[:size])]


def vectors_at(view: View, rows: npt.NDArray[np.int64]) -> Float32:
    """Return (m, k) float32 vectors of rows, decoded from the finest representation."""
    codes = view.finest
    return codes.quantizer.decode(np.ascontiguousarray(codes.array[rows]))


def measure_norms(view: View) -> Norms:
    """Measure the norms of all vectors, block by block."""
    blocks = [np.sqrt((block.astype(np.float64) ** 2).sum(axis=1)) for _, block in stored_blocks(view)]
    norms = np.concatenate(blocks) if blocks else np.ones(0)
    norms = np.where(np.isfinite(norms), norms, np.inf)
    finite = norms[np.isfinite(norms)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (1.0, 1.0)
    # A histogram needs a width even if all norms are 1.
    low, high = min(low, 1.0 - 1e-6), max(high, 1.0 + 1e-6)
    counts, _ = np.histogram(finite, bins=_BINS, range=(low, high))
    error = float(np.abs(norms - 1.0).max(initial=0.0))
    smallest, largest = float(norms.min(initial=np.inf)), float(norms.max(initial=0.0))
    return Norms(len(norms), smallest, largest, error, tuple(int(c) for c in counts), (low, high))
