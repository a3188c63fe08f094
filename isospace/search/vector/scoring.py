"""Exact float64 scores of a few rows, the same whichever kernel found them."""

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
        The representation to score, decoded with its stored scales.
    query
        (k,) float32 vector of the space.
    rows
        int64 rows.
    metric
        `cosine` (for unit vectors, the inner product), `dot`, or the negated distances `l2` or `l1`.

    Returns
    -------
    numpy.ndarray
        (len(rows),) float64; higher is nearer. Each score depends only on its row and the query.
    """
    parts = [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]
    return np.concatenate([_score_block(codes, query, part, metric) for part in parts] or [np.zeros(0)])


def _score_block(codes: Codes, query: Float32, rows: Rows, metric: Metric) -> Float64:
    vectors = codes.quantizer.decode(np.ascontiguousarray(codes.array[rows])).astype(np.float64)
    target = query.astype(np.float64)
    # Not a matrix product: the order in which BLAS adds depends on the number of rows.
    scores: Float64
    match metric:
        case "dot":
            scores = (vectors * target).sum(axis=1)
        case "cosine":
            scores = (vectors * target).sum(axis=1)
            if codes.squares is not None:
                lengths = np.sqrt((vectors**2).sum(axis=1)) * np.sqrt((target**2).sum())
                scores /= np.maximum(lengths, np.finfo(np.float64).tiny)
        case "l2":
            scores = -np.sqrt(((vectors - target) ** 2).sum(axis=1))
        case "l1":
            scores = -np.abs(vectors - target).sum(axis=1)
    return scores


def all_by_l1(codes: Codes, query: Float32, count: int, rows: Rows | None) -> Rows:
    """Return the rows nearest by the sum of absolute differences, including all that tie with the last."""
    if rows is not None:
        searched = rows
    else:
        searched = np.arange(len(codes), dtype=np.int64) if codes.live is None else np.flatnonzero(codes.live)
    scores = score_rows(codes, query, searched, "l1")
    if len(scores) <= count:
        return searched
    last = np.partition(scores, len(scores) - count)[len(scores) - count]
    nearest: Rows = searched[scores >= last]
    return nearest
