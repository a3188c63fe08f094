"""Frozen queries in an audit: what they find now against what they found at the baseline."""

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

# More than ten: documents that are gone, or were edited, are left out of the comparison.
_KEPT, _FEWEST = 40, 3


class Baseline(BaseModel):
    """What a set's queries found when they were first asked in a space."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    set_id: str
    space_id: str
    snapshot: int
    snapshot_id: str
    rankings: dict[str, list[str]]
    ndcg: float | None


@dataclass(frozen=True, slots=True)
class Frozen:
    """Frozen queries now.

    Attributes
    ----------
    name, kind, queries
        Of the set.
    baseline
        What they found now, for later audits.
    compared_with
        Number of the snapshot of the baseline before; None if there is none in this space.
    overlap, rbo
        With it, among documents that both snapshots have; 1 for none.
    changed
        The queries whose first ten changed most: text, overlap.
    ndcg, ndcg_before
        nDCG@10 now and at the baseline; None without judgements.
    values
        nDCG@10 by query.
    top
        (m,) best scores.
    vectors
        (m, k) float32 of the queries.
    """

    name: str
    kind: str
    queries: int
    baseline: Baseline
    compared_with: int | None
    overlap: float
    rbo: float
    changed: tuple[tuple[str, float], ...]
    ndcg: float | None
    ndcg_before: float | None
    values: dict[str, float]
    top: npt.NDArray[np.float64]
    vectors: npt.NDArray[np.float32]


def measure_frozen(
    view: View, given: EvaluationSet, before: Baseline | None, unchanged: frozenset[str] | None
) -> Frozen:
    """Ask the queries of a set, and compare with a baseline.

    Parameters
    ----------
    view
        The snapshot.
    given
        The set.
    before
        The baseline, of the same set and space.
    unchanged
        Documents that are the same in the baseline's snapshot; None if that can no longer be told, and nothing is
        compared then.
    """
    run = answer_set(view, given, SearchOptions(), depth=200)
    rankings = {name: run.ranking(name, _KEPT) for name in given.queries}
    values = per_query(run.documents, given.judged, ["nDCG@10"])["nDCG@10"] if given.judged else {}
    ndcg = float(np.mean(list(values.values()))) if values else None
    agreement = (
        _agreement(view, given, before.rankings, unchanged) if before is not None and unchanged is not None else {}
    )
    changed = sorted((one[0], given.queries[name]) for name, one in agreement.items() if one[0] < 1.0)
    return Frozen(
        name=given.name,
        kind=given.kind,
        queries=len(given.queries),
        baseline=_baseline(run, rankings, ndcg),
        compared_with=before.snapshot if before is not None and unchanged is not None else None,
        overlap=float(np.mean([one[0] for one in agreement.values()])) if agreement else 1.0,
        rbo=float(np.mean([one[1] for one in agreement.values()])) if agreement else 1.0,
        changed=tuple((text, overlap) for overlap, text in changed[:10]),
        ndcg=ndcg,
        ndcg_before=before.ndcg if before else None,
        values=values,
        top=np.array([max(found.values()) for found in run.documents.values() if found], np.float64),
        vectors=view.space.embed(list(given.queries.values()), "query"),
    )


def _agreement(
    view: View, given: EvaluationSet, then: Mapping[str, Sequence[str]], unchanged: frozenset[str]
) -> dict[str, tuple[float, float]]:
    """Compare the rankings of unchanged documents: what came, went or was edited moves the others for good reasons."""
    owners = view.copy.chunks["document"].to_numpy()
    same = np.array([doc in unchanged for doc in view.copy.documents["doc_id"].to_pylist()], np.bool_)
    rows = np.flatnonzero(same[owners]).astype(np.int64)
    run = answer_set(view, given, SearchOptions(), depth=200, within=rows)
    found = {}
    for name in run.documents.keys() & then.keys():
        one, other = [doc for doc in then[name] if doc in unchanged], run.ranking(name, _KEPT)
        depth = min(10, len(one), len(other))
        if depth >= _FEWEST:
            found[name] = (top_overlap(one, other, depth), rank_biased_overlap(one[:30], other[: len(one[:30])]))
    return found


def _baseline(run: SetRun, rankings: dict[str, list[str]], ndcg: float | None) -> Baseline:
    return Baseline(
        set_id=run.set_id,
        space_id=run.space_id,
        snapshot=run.snapshot,
        snapshot_id=run.snapshot_id,
        rankings=rankings,
        ndcg=ndcg,
    )
