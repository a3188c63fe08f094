"""The best rows of many, block by block: a threshold that only rises, and what lies above it.

Sorting whole blocks costs more than computing their scores; comparing them with the score of the k-th best so far does
not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Rows: TypeAlias = npt.NDArray[np.int64]
# Blocks of whole groups are searched fastest.
_FIRST_ROWS, GROUP = 16_384, 64


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
        self.query = np.zeros(0, np.uint16)
        self.row = np.zeros(0, np.int64)
        self.score = np.zeros(0, np.float64)
        self.coming: list[tuple[npt.NDArray[np.uint16], Rows, npt.NDArray[Any]]] = []
        self.pending = 0

    def take(self, first: int, scores: npt.NDArray[Any]) -> None:
        groups = scores[:, : scores.shape[1] - scores.shape[1] % GROUP].reshape(len(scores), -1, GROUP)
        largest = _maxima(groups)
        if scores.shape[1] > self.count:
            self._begin(scores, largest)
        query, row = _above(scores, groups, largest, self._lowest(scores.dtype))
        if not len(query):
            return
        # Small integers are sorted by radix.
        self.coming.append((query.astype(np.uint16), row + first, scores[query, row]))
        self.pending += len(query)
        if self.pending > self.limit:
            self.prune()
            # Where ties are many, pruning again at once would find the same.
            self.limit = max(self.limit, 2 * len(self.row))

    def _begin(self, scores: npt.NDArray[Any], largest: npt.NDArray[Any]) -> None:
        """Take the k-th best of the first rows, or of the largest of many groups, for a threshold; later ones are better."""
        unknown = np.flatnonzero(np.isneginf(self.threshold))
        if len(unknown):
            are_many = largest.shape[1] >= 4 * self.count
            some = largest[unknown] if are_many else scores[unknown, : max(_FIRST_ROWS, self.count)]
            self.threshold[unknown] = np.partition(some, -self.count, axis=1)[:, -self.count]

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
        # Rows of a query already ascend among equal scores, and both sorts are stable: the row needs none of its own.
        by_score = np.argsort(-score, kind="stable")
        order = by_score[np.argsort(query[by_score], kind="stable")]
        query, row, score = query[order], row[order], score[order]
        starts = np.searchsorted(query, np.arange(len(self.threshold)))
        places = np.arange(len(query)) - starts[query]
        nth = places == self.count - 1
        self.threshold[query[nth]] = score[nth]
        has_slack = self.below > 0
        keep = (places < self.count) | (has_slack[query] & (score >= (self.threshold - self.below)[query]))
        self.query, self.row, self.score = query[keep], row[keep], score[keep]
        self.coming, self.pending = [], 0


def _above(
    scores: npt.NDArray[Any], groups: npt.NDArray[Any], largest: npt.NDArray[Any], lowest: npt.NDArray[Any]
) -> tuple[Rows, Rows]:
    """Return query and row of every score that is not below its query's lowest, rows of a query ascending.

    The largest of each group of rows is compared first: nearly all groups hold none, and finding maxima is as fast as
    memory.
    """
    query, group = np.nonzero(largest >= lowest[:, None])
    hit, place = np.nonzero(groups[query, group] >= lowest[query, None])
    whole = groups.shape[1] * GROUP
    last_query, last = np.nonzero(scores[:, whole:] >= lowest[:, None])
    return np.concatenate([query[hit], last_query]), np.concatenate([group[hit] * GROUP + place, last + whole])


def _maxima(groups: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Integers come from torch's product and floats from NumPy's: the waiting threads of the one would slow down the
    # other's.
    if groups.dtype.kind == "i" and sys.modules.get("torch") is not None and groups.flags.c_contiguous:
        import torch

        largest: npt.NDArray[Any] = torch.from_numpy(groups).amax(-1).numpy()
        return largest
    return np.asarray(groups.max(axis=2))
