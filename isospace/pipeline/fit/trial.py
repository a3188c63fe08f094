"""A retrieval trial in memory: raw vectors, queries and judgements, on which fits are compared."""

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
    """What a fit is tried on.

    Attributes
    ----------
    documents
        (n, d) float32 raw vectors of chunks.
    owners
        The document of each chunk; a document ranks by its best chunk.
    queries
        (m, d) float32 raw vectors.
    names
        m query ids.
    judgements
        Relevance by query id and document.
    """

    documents: Float32
    owners: tuple[str, ...]
    queries: Float32
    names: tuple[str, ...]
    judgements: Judgements


def transformed(fitted: Fit, trial: Trial, *, normalize: bool = True) -> tuple[Float32, Float32]:
    """Return documents and queries of a trial under a fit, (n, k) and (m, k); in float32, for comparison only."""
    document, query = fitted.offsets
    sides = [
        (raw @ fitted.matrix.T.astype(np.float32) + offset.astype(np.float32)).astype(np.float32)
        for raw, offset in ((trial.documents, document), (trial.queries, query))
    ]
    documents, queries = (unit(side) for side in sides) if normalize else sides
    return documents, queries


def rank(trial: Trial, documents: Float32, queries: Float32, *, depth: int = 1000) -> dict[str, dict[str, float]]:
    """Return the best documents of each query with their scores, by (n, k) and (m, k) vectors of the trial."""
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
    """Return nDCG@`depth` of each query of a trial, (m,), for the vectors given; 0 for one without a relevant document."""
    import ir_measures

    run = rank(trial, documents, queries, depth=depth + 1)
    judgements = {name: dict(trial.judgements[name]) for name in trial.names}
    found = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.nDCG @ depth], judgements, run)}
    return np.array([found.get(name, 0.0) for name in trial.names])


def _top(scores: Float32, owners: npt.NDArray[np.str_], depth: int) -> dict[str, float]:
    """Return the best, and all that tie with the last of them: the measure breaks ties by its own rule."""
    if len(scores) > depth:
        last = np.partition(scores, len(scores) - depth)[len(scores) - depth]
        rows = np.flatnonzero(scores >= last)
    else:
        rows = np.arange(len(scores))
    return {str(owners[row]): float(scores[row]) for row in rows}
