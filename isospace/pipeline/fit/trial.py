"""A retrieval trial in memory, to compare fits: raw vectors, queries, and judgements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.transform.fit import Fit
from isospace.transform.vectors import Float32, Float64, unit

Judgements = Mapping[str, Mapping[str, int]]
_BLOCK_QUERIES = 64


@dataclass(frozen=True, slots=True)
class Trial:
    """Documents, queries, and judgements of a trial.

    Attributes
    ----------
    documents
        (n, d) float32 raw vectors of chunks.
    owners
        The document of each chunk; a document ranks by its best chunk.
    queries
        (m, d) float32 raw vectors.
    names
        m query IDs.
    judgements
        Relevance by query ID and document.
    """

    documents: Float32
    owners: tuple[str, ...]
    queries: Float32
    names: tuple[str, ...]
    judgements: Judgements


def transformed(fitted: Fit, trial: Trial, *, normalize: bool = True) -> tuple[Float32, Float32]:
    """Return the (n, k) documents and (m, k) queries of a trial under a fit, in float32, for comparison only."""
    document, query = fitted.offsets
    sides = [
        (raw @ fitted.matrix.T.astype(np.float32) + offset.astype(np.float32)).astype(np.float32)
        for raw, offset in ((trial.documents, document), (trial.queries, query))
    ]
    documents, queries = (unit(side) for side in sides) if normalize else sides
    return documents, queries


def rank(trial: Trial, documents: Float32, queries: Float32, *, depth: int = 1000) -> dict[str, dict[str, float]]:
    """Return the best documents of each query with their scores, given (n, k) and (m, k) vectors."""
    owners, place = np.unique(np.array(trial.owners), return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(owners)))
    vectors = documents[order]
    run: dict[str, dict[str, float]] = {}
    for start in range(0, len(queries), _BLOCK_QUERIES):
        best = np.maximum.reduceat(queries[start : start + _BLOCK_QUERIES] @ vectors.T, starts, axis=1)
        for name, scores in zip(trial.names[start : start + _BLOCK_QUERIES], best, strict=True):
            run[name] = _top(scores, owners, depth)
    return run


def ndcg(trial: Trial, documents: Float32, queries: Float32, *, depth: int = 10) -> Float64:
    """Return nDCG@`depth` of the (m,) queries of a trial; 0 for a query without a relevant document."""
    import ir_measures

    run = rank(trial, documents, queries, depth=depth + 1)
    judgements = {name: dict(trial.judgements[name]) for name in trial.names}
    values = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.nDCG @ depth], judgements, run)}
    return np.array([values.get(name, 0.0) for name in trial.names])


def _top(scores: Float32, owners: npt.NDArray[np.str_], depth: int) -> dict[str, float]:
    """Return the best documents, and all that tie with the last: the metric has its own rule for ties."""
    if len(scores) > depth:
        last = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        rows = np.flatnonzero(scores >= last)
    else:
        rows = np.arange(len(scores))
    return {str(owners[row]): float(scores[row]) for row in rows}
