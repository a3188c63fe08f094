"""Two-stage vector search: find candidates by compact codes, rescore them from finer ones."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError
from isospace.search.vector.kernels import Codes, Kernels, candidates
from isospace.search.vector.scoring import Metric, all_by_l1, score_rows
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.binary import BinaryQuantizer
from isospace.transform.vectors import Float32

Scored: TypeAlias = tuple[Rows, npt.NDArray[np.float64]]


def nearest(
    first: Codes,
    last: Codes,
    queries: Float32,
    count: int,
    *,
    metric: Metric,
    rescore: int,
    rows: Rows | None,
    kernels: Kernels,
) -> list[Scored]:
    """Find the rows nearest to each query.

    Parameters
    ----------
    first
        The codes that are searched.
    last
        The codes that the candidates are scored from; the same object as `first` for a search without rescoring.
    queries
        (m, k) float32 vectors of the space.
    count
        Number of rows wanted.
    rescore
        r: r x count rows are scored from `last`; twice as many if `first` is binary.
    rows
        Ascending int64 rows to search, all of them live; all live ones if None.
    kernels
        See `isospace.search.vector.kernels.candidates`.

    Returns
    -------
    list of tuple
        int64 rows and their float64 scores, unordered: at least `count`, including all that tie with the last.

    Raises
    ------
    QueryError
        If `first` cannot be searched by the metric.
    """
    if metric == "l1":
        if not first.is_float:
            raise QueryError(f"metric l1 needs float32 or float16, not {first.name}. Use mode exact.")
        return [_scored(first, query, all_by_l1(first, query, count, rows), metric) for query in queries]
    is_rescored = last is not first
    wanted = max(1, rescore) * count if is_rescored else count
    near_rows = candidates(first, queries, wanted, metric=metric, rows=rows, kernels=kernels, rescored=is_rescored)
    # Every kernel finds the same rows by Hamming distance, and rescoring them takes as long from either representation.
    if is_rescored and not isinstance(first.quantizer, BinaryQuantizer):
        near_rows = [_best(first, query, near, wanted, metric) for query, near in zip(queries, near_rows, strict=True)]
    return [_scored(last, query, near, metric) for query, near in zip(queries, near_rows, strict=True)]


def _best(codes: Codes, query: Float32, near: Rows, count: int, metric: Metric) -> Rows:
    """Keep the best candidates by the exact scores of their codes, and those that tie with the last."""
    if len(near) <= count:
        return near
    scores = score_rows(codes, query, near, metric)
    kept: Rows = near[scores >= np.partition(scores, len(scores) - count)[len(scores) - count]]
    return kept


def _scored(codes: Codes, query: Float32, near: Rows, metric: Metric) -> Scored:
    return near, score_rows(codes, query, near, metric)
