"""Frozen queries in an audit: compare what they find now with what they found at the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from isospace.evaluation.metrics import per_query
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.rank_agreement import rank_biased_overlap, top_overlap
from isospace.evaluation.runs import SetRun, answer_set
from isospace.search.options import SearchOptions
from isospace.search.view import View

# More than ten, since deleted and edited documents are excluded from the comparison.
_STORED_RANKS, _FEWEST = 40, 3


class Baseline(BaseModel):
    """The rankings of a set's queries when they were first searched in a space."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    set_id: str
    space_id: str
    snapshot: int
    snapshot_id: str
    rankings: dict[str, list[str]]
    ndcg: float | None


@dataclass(frozen=True, slots=True)
class ChangedQuery:
    """A query whose top ten changed, and the overlap that is left.

    `answers` are the documents that the set names as relevant, and that a pseudo-query is taken from.
    """

    query_id: str
    text: str
    overlap: float
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrozenResults:
    """The results of the frozen queries now, compared with their baseline.

    Attributes
    ----------
    name, kind, queries
        Name, kind, and number of queries of the set.
    baseline
        These results, as a baseline for later audits.
    compared_with
        Snapshot number of the baseline; None if there is none in this space.
    overlap, rbo
        Agreement with the baseline, among documents that both snapshots have; 1 if nothing can be compared.
    changed
        The queries whose top ten changed most.
    ndcg, ndcg_before
        nDCG@10 now and at the baseline; None without judgements.
    values
        nDCG@10 by query.
    top
        (m,) best scores.
    vectors
        (m, k) float32 vectors of the queries.
    """

    name: str
    kind: str
    queries: int
    baseline: Baseline
    compared_with: int | None
    overlap: float
    rbo: float
    changed: tuple[ChangedQuery, ...]
    ndcg: float | None
    ndcg_before: float | None
    values: dict[str, float]
    top: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32]


def measure_frozen(
    view: View, query_set: EvaluationSet, before: Baseline | None, unchanged: frozenset[str] | None
) -> FrozenResults:
    """Search the queries of a set, and compare the results with a baseline.

    Parameters
    ----------
    before
        The baseline of the same set and space.
    unchanged
        Documents that are the same in the baseline's snapshot; None if its files are gone, and nothing can be
        compared.
    """
    run = answer_set(view, query_set, SearchOptions(), depth=200)
    rankings = {name: run.ranking(name, _STORED_RANKS) for name in query_set.queries}
    values = per_query(run.documents, query_set.judged, ["nDCG@10"])["nDCG@10"] if query_set.judged else {}
    ndcg = float(np.mean(list(values.values()))) if values else None
    agreement = (
        _agreement(view, query_set, before.rankings, unchanged) if before is not None and unchanged is not None else {}
    )
    changed = sorted((overlap, name) for name, (overlap, _) in agreement.items() if overlap < 1.0)[:10]
    return FrozenResults(
        name=query_set.name,
        kind=query_set.kind,
        queries=len(query_set.queries),
        baseline=_baseline(run, rankings, ndcg),
        compared_with=before.snapshot if before is not None and unchanged is not None else None,
        overlap=float(np.mean([overlap for overlap, _ in agreement.values()])) if agreement else 1.0,
        rbo=float(np.mean([rbo for _, rbo in agreement.values()])) if agreement else 1.0,
        changed=tuple(
            ChangedQuery(name, query_set.queries[name], overlap, query_set.answers(name)) for overlap, name in changed
        ),
        ndcg=ndcg,
        ndcg_before=before.ndcg if before else None,
        values=values,
        top=np.array([max(scores.values()) for scores in run.documents.values() if scores], np.float64),
        vectors=view.space.embed(list(query_set.queries.values()), "query"),
    )


def _agreement(
    view: View, query_set: EvaluationSet, then: Mapping[str, Sequence[str]], unchanged: frozenset[str]
) -> dict[str, tuple[float, float]]:
    """Compare the rankings of unchanged documents only; return overlap and RBO by query.

    Documents that were added, removed, or edited change rankings for good reasons.
    """
    owners = view.copy.owners
    same = np.array([doc in unchanged for doc in view.copy.documents["doc_id"].to_pylist()], np.bool_)
    rows = np.flatnonzero(same[owners]).astype(np.int64)
    run = answer_set(view, query_set, SearchOptions(), depth=200, within=rows)
    agreement = {}
    for name in run.documents.keys() & then.keys():
        old, new = [doc for doc in then[name] if doc in unchanged], run.ranking(name, _STORED_RANKS)
        depth = min(10, len(old), len(new))
        if depth >= _FEWEST:
            agreement[name] = (top_overlap(old, new, depth), rank_biased_overlap(old[:30], new[: len(old[:30])]))
    return agreement


def _baseline(run: SetRun, rankings: dict[str, list[str]], ndcg: float | None) -> Baseline:
    return Baseline(
        set_id=run.set_id,
        space_id=run.space_id,
        snapshot=run.snapshot,
        snapshot_id=run.snapshot_id,
        rankings=rankings,
        ndcg=ndcg,
    )
