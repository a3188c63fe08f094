"""Two stages of a search by vectors: candidates from what is small, scores from what is fine."""

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
        What is searched.
    last
        What the best are scored from; `first` itself for a search without rescoring.
    queries
        (m, k) float32 vectors of the space.
    count
        How many rows are wanted.
    metric
        What nearness is.
    rescore
        r: r x count rows are scored from `last`; of those that bits found, twice as many.
    rows
        Ascending int64 rows that are searched; all if not given.
    kernels
        See `isospace.search.vector.kernels.candidates`.

    Returns
    -------
    list of tuple
        int64 rows and their float64 scores, in no order; `count` of them or more, all that tie with the last among
        them.

    Raises
    ------
    QueryError
        If the first stage cannot search by the metric.
    """
    if metric == "l1":
        if not first.is_float:
            raise QueryError(f"metric l1 needs float32 or float16, not {first.name}. Use mode exact.")
        return [_scored(first, query, all_by_l1(first, query, count, rows), metric) for query in queries]
    is_rescored = last is not first
    wanted = max(1, rescore) * count if is_rescored else count
    found = candidates(first, queries, wanted, metric=metric, rows=rows, kernels=kernels, rescored=is_rescored)
    # What bits find is the same with every kernel, and scored from what is finer as fast as from the bits.
    if is_rescored and not isinstance(first.quantizer, BinaryQuantizer):
        found = [_best(first, query, near, wanted, metric) for query, near in zip(queries, found, strict=True)]
    return [_scored(last, query, near, metric) for query, near in zip(queries, found, strict=True)]


def _best(codes: Codes, query: Float32, near: Rows, count: int, metric: Metric) -> Rows:
    """Cut what a kernel found, by exact scores of its codes; ties by row, so that the answer is one."""
    if len(near) <= count:
        return near
    scores = score_rows(codes, query, near, metric)
    return near[np.lexsort((near, -scores))[:count]]


def _scored(codes: Codes, query: Float32, near: Rows, metric: Metric) -> Scored:
    return near, score_rows(codes, query, near, metric)
