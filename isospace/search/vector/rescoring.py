"""Two-stage vector search: find candidates by compact codes, rescore them from finer ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError
from isospace.search.vector.kernels import Codes, Kernels, candidates, hamming_depth
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
    wanted = _depth(count, rescore, is_rescored=is_rescored)
    near_rows = candidates(first, queries, wanted, metric=metric, rows=rows, kernels=kernels, rescored=is_rescored)
    # Every kernel finds the same rows by Hamming distance, and rescoring them takes as long from either representation.
    if is_rescored and not isinstance(first.quantizer, BinaryQuantizer):
        near_rows = [_best(first, query, near, wanted, metric) for query, near in zip(queries, near_rows, strict=True)]
    return [_scored(last, query, near, metric) for query, near in zip(queries, near_rows, strict=True)]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """The candidates of a query, as one of several parts of a collection finds them.

    Attributes
    ----------
    rows
        (n,) int64.
    keys
        (n,) float64: by what the candidates are chosen, higher is better. The score of the codes that are searched,
        with the lengths from before encoding if others are scored; or the negated Hamming distance of bits.
    scores
        (n,) float64, from the codes that are scored.
    """

    rows: Rows
    keys: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def best(self, count: int) -> Candidates:
        """Return the `count` best by their keys, and all that tie with the last."""
        if len(self.keys) <= count:
            return self
        kept = self.keys >= np.partition(self.keys, len(self.keys) - count)[len(self.keys) - count]
        return Candidates(self.rows[kept], self.keys[kept], self.scores[kept])


def keyed_nearest(
    first: Codes,
    last: Codes,
    queries: Float32,
    count: int,
    *,
    metric: Metric,
    rescore: int,
    rows: Rows | None,
    kernels: Kernels,
) -> list[Candidates]:
    """Return what `nearest` does, with what the candidates were chosen by.

    If the rows of a collection are divided among several calls, the `wanted_rows` best candidates of all calls by their
    keys, with those that tie with the last, are the candidates of one call for all rows.
    """
    scored = nearest(first, last, queries, count, metric=metric, rescore=rescore, rows=rows, kernels=kernels)
    total = first.live_count if rows is None else len(rows)
    wanted = wanted_rows(first, count, total, rescore=rescore, is_rescored=last is not first)
    return [
        Candidates(near, _keys(first, last, query, near, scores, metric), scores).best(wanted)
        for query, (near, scores) in zip(queries, scored, strict=True)
    ]


def wanted_rows(first: Codes, count: int, total: int, *, rescore: int, is_rescored: bool) -> int:
    """Return how many of `total` rows a search scores for `count` hits."""
    wanted = _depth(count, rescore, is_rescored=is_rescored)
    if is_binary(first):
        return hamming_depth(wanted, total, rescored=is_rescored)
    return wanted


def _depth(count: int, rescore: int, *, is_rescored: bool) -> int:
    return max(1, rescore) * count if is_rescored else count


def is_binary(codes: Codes) -> bool:
    """Return whether candidates are found by Hamming distance."""
    return isinstance(codes.quantizer, BinaryQuantizer)


def _keys(
    first: Codes, last: Codes, query: Float32, near: Rows, scores: npt.NDArray[np.float64], metric: Metric
) -> npt.NDArray[np.float64]:
    if isinstance(first.quantizer, BinaryQuantizer):
        bits = first.quantizer.encode(query[None])[0]
        distances = np.bitwise_count(first.array[near] ^ bits).sum(axis=1, dtype=np.int64)
        return np.asarray(-distances, np.float64)
    return scores if last is first else _promise(first, query, near, metric)


def _best(codes: Codes, query: Float32, near: Rows, count: int, metric: Metric) -> Rows:
    """Keep the most promising candidates, and those that tie with the last."""
    if len(near) <= count:
        return near
    scores = _promise(codes, query, near, metric)
    kept: Rows = near[scores >= np.partition(scores, len(scores) - count)[len(scores) - count]]
    return kept


def _promise(codes: Codes, query: Float32, near: Rows, metric: Metric) -> npt.NDArray[np.float64]:
    """Return what rows are chosen by before they are rescored, in float64: with the lengths from before encoding."""
    products = score_rows(codes, query, near, "dot")
    if codes.squares is None or metric == "dot":
        return products
    squares = np.asarray(codes.squares[near], np.float64)
    if metric == "l2":
        return products - squares / 2.0
    return products / np.sqrt(np.maximum(squares, np.finfo(np.float32).tiny))


def _scored(codes: Codes, query: Float32, near: Rows, metric: Metric) -> Scored:
    return near, score_rows(codes, query, near, metric)
