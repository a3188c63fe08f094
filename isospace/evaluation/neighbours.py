"""How similar a chunk is to its nearest neighbor, beside which the cosines of random pairs mean something."""

from __future__ import annotations

import numpy as np

from isospace.evaluation.norms import sample_rows, stored_blocks
from isospace.evaluation.stored_vectors import finite_at
from isospace.search.view import View
from isospace.transform.vectors import Float64, unit

SAMPLE = 200


def nearest_cosines(view: View, *, seed: int, count: int = SAMPLE) -> Float64:
    """Compare a sample of chunks with all chunks of a snapshot.

    Returns
    -------
    array
        (m,) cosines, m up to `count`, of each chunk with the most similar chunk of another document: chunks of one
        document overlap, and are similar for that reason alone. Empty for a single document.
    """
    rows, vectors = finite_at(view, sample_rows(view, count, seed))
    owners = view.copy.owners
    wanted, best = unit(vectors).T, np.full(len(rows), -np.inf)
    for places, block in stored_blocks(view):
        cosines = np.nan_to_num(unit(block) @ wanted, nan=-np.inf)
        cosines[owners[places, None] == owners[None, rows]] = -np.inf
        np.maximum(best, cosines.max(axis=0, initial=-np.inf), out=best)
    found: Float64 = best[np.isfinite(best)].astype(np.float64)
    return found
