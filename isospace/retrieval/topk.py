"""The best rows of many, block by block: a threshold that only rises, and what lies above it.

Sorting whole blocks costs more than computing their scores; comparing them with the score of the k-th best so far does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.int64]


def top_rows(
    blocks: Iterable[tuple[int, npt.NDArray[Any]]], queries: int, count: int, slack: npt.NDArray[Any] | None = None
) -> list[Rows]:
    """Find the rows with the highest scores.

    Parameters
    ----------
    blocks
        First row and (m, b) scores of each block, rows ascending.
    queries
        m.
    count
        How many rows a query.
    slack
        (m,): rows whose score is at most so much below that of the last one are taken too; none if not given.

    Returns
    -------
    list of numpy.ndarray
        int64 rows by falling score, then by row; `count` of them, or more within the slack, or all there are.
    """
    below = np.zeros(queries) if slack is None else np.asarray(slack, np.float64)
    kept = _Kept(queries, count, below)
    for first, scores in blocks:
        kept.take(first, scores)
    kept.prune()
    ends = np.searchsorted(kept.query, np.arange(queries + 1))
    return [kept.row[start:end] for start, end in pairwise(ends)]


class _Kept:
    """Candidates of all queries in flat arrays, pruned when they have become many."""

    def __init__(self, queries: int, count: int, below: npt.NDArray[np.float64]) -> None:
        self.count, self.below = count, below
        self.limit = max(8 * queries * count, 1 << 16)
        self.threshold = np.full(queries, -np.inf)
        self.query = np.zeros(0, np.int64)
        self.row = np.zeros(0, np.int64)
        self.score = np.zeros(0, np.float64)
        self.coming: list[tuple[Rows, Rows, npt.NDArray[Any]]] = []
        self.pending = 0

    def take(self, first: int, scores: npt.NDArray[Any]) -> None:
        rows = scores.shape[1]
        if rows > self.count:
            # The block's own k-th best is a threshold too; only worth its price while nothing better is known.
            unknown = np.flatnonzero(np.isneginf(self.threshold))
            if len(unknown):
                last = np.partition(scores[unknown], rows - self.count, axis=1)[:, rows - self.count]
                self.threshold[unknown] = last
        hits = np.flatnonzero(scores >= self._lowest(scores.dtype)[:, None])
        if not len(hits):
            return
        query, row = np.divmod(hits, rows)
        self.coming.append((query, row + first, scores.reshape(-1)[hits]))
        self.pending += len(hits)
        if self.pending > self.limit:
            self.prune()
            # Where ties are many, pruning again at once would find the same.
            self.limit = max(self.limit, 2 * len(self.row))

    def _lowest(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the (m,) scores that count, as the type of the block: comparing two types would convert the whole block."""
        lowest = self.threshold - self.below
        if dtype.kind == "f":
            # The cast may round up.
            below: npt.NDArray[Any] = np.nextafter(lowest.astype(dtype), dtype.type(-np.inf))
            return below
        limits = np.iinfo(dtype)
        whole: npt.NDArray[Any] = np.clip(np.ceil(lowest), limits.min, limits.max).astype(dtype)
        return whole

    def prune(self) -> None:
        query = np.concatenate([self.query, *(q for q, _, _ in self.coming)])
        row = np.concatenate([self.row, *(r for _, r, _ in self.coming)])
        score = np.concatenate([self.score, *(s.astype(np.float64) for _, _, s in self.coming)])
        order = np.lexsort((row, -score, query))
        query, row, score = query[order], row[order], score[order]
        starts = np.searchsorted(query, np.arange(len(self.threshold)))
        places = np.arange(len(query)) - starts[query]
        nth = places == self.count - 1
        self.threshold[query[nth]] = score[nth]
        has_slack = self.below > 0
        keep = (places < self.count) | (has_slack[query] & (score >= (self.threshold - self.below)[query]))
        self.query, self.row, self.score = query[keep], row[keep], score[keep]
        self.coming, self.pending = [], 0
