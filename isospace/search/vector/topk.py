"""Top-k rows, block by block: a threshold that only rises, and the candidates above it.

Sorting whole blocks would take longer than computing their scores; comparing them with the k-th best score so far does
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
# Blocks made of whole groups are searched fastest.
_FIRST_ROWS, GROUP = 16_384, 64


class TooManyRowsError(Exception):
    """More rows are within the slack than the caller wants."""


def top_rows(
    blocks: Iterable[tuple[int, npt.NDArray[Any]]],
    queries: int,
    count: int,
    slack: npt.NDArray[Any] | None = None,
    *,
    most: int | None = None,
) -> list[Rows]:
    """Find the rows with the highest scores.

    Parameters
    ----------
    blocks
        First row and (m, b) scores of each block, rows ascending.
    queries
        m, the number of queries.
    count
        Number of rows per query.
    slack
        (m,): rows that score at most this much below the `count`-th are returned too; None for no slack.
    most
        Largest number of rows of all queries together; None for any number.

    Returns
    -------
    list of numpy.ndarray
        int64 rows of each query by descending score, then by row.

    Raises
    ------
    TooManyRowsError
        As soon as more than `most` rows are found.
    """
    below = np.zeros(queries) if slack is None else np.asarray(slack, np.float64)
    candidates = _Candidates(queries, count, below, most)
    for first, scores in blocks:
        candidates.take(first, scores)
    candidates.prune()
    ends = np.searchsorted(candidates.query, np.arange(queries + 1))
    return [candidates.row[start:end] for start, end in pairwise(ends)]


class _Candidates:
    """Candidates of all queries in flat arrays, pruned when there are many."""

    def __init__(self, queries: int, count: int, below: npt.NDArray[np.float64], most: int | None) -> None:
        self.count, self.below, self.most = count, below, most
        self.limit = max(8 * queries * count, min(1 << 16, 2 * most) if most is not None else 1 << 16)
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
        # NumPy sorts 16-bit integers by radix.
        self.coming.append((query.astype(np.uint16), row + first, scores[query, row]))
        self.pending += len(query)
        if self.pending > self.limit:
            self.prune()
            # With many ties, pruning again soon would remove nothing.
            self.limit = max(self.limit, 2 * len(self.row))

    def _begin(self, scores: npt.NDArray[Any], largest: npt.NDArray[Any]) -> None:
        """Set a first threshold: the k-th best of the group maxima if there are many, else of the first rows."""
        unknown = np.flatnonzero(np.isneginf(self.threshold))
        if len(unknown):
            are_many = largest.shape[1] >= 4 * self.count
            some = largest[unknown] if are_many else scores[unknown, : max(_FIRST_ROWS, self.count)]
            self.threshold[unknown] = np.partition(some, -self.count, axis=1)[:, -self.count]

    def _lowest(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Return the (m,) lowest scores that count, in the block's dtype to avoid converting the block."""
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
        # Among equal scores the rows of a query already ascend, and both sorts are stable: no sort by row is needed.
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
        if self.most is not None and len(self.row) > self.most:
            raise TooManyRowsError


def _above(
    scores: npt.NDArray[Any], groups: npt.NDArray[Any], largest: npt.NDArray[Any], lowest: npt.NDArray[Any]
) -> tuple[Rows, Rows]:
    """Return query and row of every score not below its query's lowest, rows of a query ascending.

    The maximum of each group is compared first: nearly all groups hold no such score, and maxima are computed at the
    speed of memory.
    """
    query, group = np.nonzero(largest >= lowest[:, None])
    hit, place = np.nonzero(groups[query, group] >= lowest[query, None])
    whole = groups.shape[1] * GROUP
    last_query, last = np.nonzero(scores[:, whole:] >= lowest[:, None])
    return np.concatenate([query[hit], last_query]), np.concatenate([group[hit] * GROUP + place, last + whole])


def _maxima(groups: npt.NDArray[Any]) -> npt.NDArray[Any]:
    # Integer scores come from torch's product, floats from NumPy's. Use the same library here: the waiting threads of
    # one slow down those of the other.
    if groups.dtype.kind == "i" and sys.modules.get("torch") is not None and groups.flags.c_contiguous:
        import torch

        largest: npt.NDArray[Any] = torch.from_numpy(groups).amax(-1).numpy()
        return largest
    return np.asarray(groups.max(axis=2))
