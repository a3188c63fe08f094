"""What a cosine means in a snapshot: its percentile among those of chunks of different documents."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from isospace.search.vector.kernels import Codes
from isospace.search.vector.topk import Rows
from isospace.transform.vectors import Float64

SAMPLED = 256
# Copies of a text are no nearer than themselves, whatever the rounding of their products.
_ROUNDING = 1e-9
_DECIMALS = 3


def chance_cosines(codes: Codes, rows: Rows, owners: npt.NDArray[np.integer]) -> Float64:
    """Return the cosines of unrelated chunks, ascending.

    Parameters
    ----------
    codes
        n vectors.
    rows
        int64 rows, of which up to 256 are taken, evenly spaced.
    owners
        (n,) document of each chunk; pairs of the same document are left out.

    Returns
    -------
    numpy.ndarray
        (p,) float64, for up to 256 x 255 / 2 = 32,640 pairs; none if all chunks are of one document. They depend on the
        codes alone, not on the library or the processor.
    """
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(SAMPLED, len(rows))).astype(np.int64))]
    vectors = codes.quantizer.decode(np.ascontiguousarray(codes.array[rows])).astype(np.float64)
    lengths = np.sqrt((vectors**2).sum(axis=1, keepdims=True))
    units = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    # Not a matrix product: the order in which BLAS adds depends on the library.
    cosines = [
        (units[n + 1 :] * units[n]).sum(axis=1)[owners[rows[n + 1 :]] != owners[rows[n]]] for n in range(len(rows))
    ]
    return np.sort(np.concatenate([*cosines, np.zeros(0)]))


def percentile(cosine: float, chance: Float64) -> float | None:
    """Return the percentage of ascending cosines that are lower, to three decimals; None if there are none."""
    if not len(chance):
        return None
    return round(100.0 * float(np.searchsorted(chance, cosine - _ROUNDING)) / len(chance), _DECIMALS)
