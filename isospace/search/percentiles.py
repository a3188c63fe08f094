"""What a cosine means in a snapshot: its percentile among those of chunks of different documents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isospace.search.vector.topk import Rows
from isospace.transform.vectors import Float32, Float64

SAMPLED = 256
# Copies of a text are no nearer than themselves, whatever the rounding of their products.
_ROUNDING = 1e-9
_DECIMALS = 3


def sampled(rows: Rows) -> Rows:
    """Return up to 256 of ascending int64 rows, evenly spaced."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(np.int64))]


def chance_cosines(vectors: Float32, owners: npt.NDArray[np.integer]) -> Float64:
    """Return the cosines of unrelated chunks, ascending.

    Parameters
    ----------
    vectors
        (n, k) float32 vectors of a sample of chunks.
    owners
        (n,) document of each; pairs of the same document are left out.

    Returns
    -------
    numpy.ndarray
        (p,) float64, for up to 256 x 255 / 2 = 32,640 pairs; none if all chunks are of one document. They depend on the
        codes alone, not on the library or the processor.
    """
    exact = vectors.astype(np.float64)
    lengths = np.sqrt((exact**2).sum(axis=1, keepdims=True))
    units = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    # Not a matrix product: the order in which BLAS adds depends on the library.
    cosines = [(units[n + 1 :] * units[n]).sum(axis=1)[owners[n + 1 :] != owners[n]] for n in range(len(units))]
    return np.sort(np.concatenate([*cosines, np.zeros(0)]))


def percentile(cosine: float, chance: Float64) -> float | None:
    """Return the percentage of ascending cosines that are lower, to three decimals; None if there are none."""
    if not len(chance):
        return None
    return round(100.0 * float(np.searchsorted(chance, cosine - _ROUNDING)) / len(chance), _DECIMALS)
