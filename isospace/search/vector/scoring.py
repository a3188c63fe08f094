"""Exact scores of a few rows: float64, pair by pair, whatever kernel found them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np

from isospace.search.vector.kernels import Codes
from isospace.search.vector.topk import Rows
from isospace.transform.vectors import Float32, Float64

Metric: TypeAlias = Literal["cosine", "dot", "l2", "l1"]
_BLOCK_ROWS = 8_192


def score_rows(codes: Codes, query: Float32, rows: Rows, metric: Metric) -> Float64:
    """Score rows for one query.

    Parameters
    ----------
    codes
        The representation that is scored, decoded through its stored scales.
    query
        (k,) float32 vector of the space.
    rows
        int64 rows.
    metric
        `cosine` (in a space of unit vectors the inner product), `dot`, or the negated distance `l2` or `l1`.

    Returns
    -------
    numpy.ndarray
        (len(rows),) float64; higher is nearer. Each depends on its own row and the query alone.
    """
    parts = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
    return np.concatenate([_score_block(codes, query, part, metric) for part in parts] or [np.zeros(0)])


def _score_block(codes: Codes, query: Float32, rows: Rows, metric: Metric) -> Float64:
    vectors = codes.quantizer.decode(np.ascontiguousarray(codes.array[rows])).astype(np.float64)
    asked = query.astype(np.float64)
    # Not a matrix product: BLAS adds in another order for another number of rows.
    scores: Float64
    match metric:
        case "dot":
            scores = (vectors * asked).sum(axis=1)
        case "cosine":
            scores = (vectors * asked).sum(axis=1)
            if codes.squares is not None:
                lengths = np.sqrt((vectors**2).sum(axis=1)) * np.sqrt((asked**2).sum())
                scores /= np.maximum(lengths, np.finfo(np.float64).tiny)
        case "l2":
            scores = -np.sqrt(((vectors - asked) ** 2).sum(axis=1))
        case "l1":
            scores = -np.abs(vectors - asked).sum(axis=1)
    return scores


def all_by_l1(codes: Codes, query: Float32, count: int, rows: Rows | None) -> Rows:
    """Return the rows nearest by the sum of absolute differences, and all that tie with the last of them."""
    searched = np.arange(len(codes), dtype=np.int64) if rows is None else rows
    scores = score_rows(codes, query, searched, "l1")
    if len(scores) <= count:
        return searched
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    nearest: Rows = searched[scores >= last]
    return nearest
