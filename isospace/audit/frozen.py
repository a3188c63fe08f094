"""Frozen queries in an audit: what they find now against what they found at the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from isospace.evaluation.agreement import rank_biased_overlap, top_overlap
from isospace.evaluation.answers import SetRun, answer_set
from isospace.evaluation.measures import per_query
from isospace.evaluation.sets import EvaluationSet
from isospace.retrieval.options import SearchOptions
from isospace.retrieval.view import View

# More than ten: documents that only one of the snapshots has are left out of both rankings.
_KEPT = 40


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

    def as_dict(self) -> dict[str, Any]:
        """Return the figures."""
        return {
            "set": self.name, "kind": self.kind, "queries": self.queries, "compared_with": self.compared_with,
            "overlap": self.overlap, "rbo": self.rbo, "ndcg@10": self.ndcg, "ndcg@10_before": self.ndcg_before,
            "changed": [list(one) for one in self.changed],
        }  # fmt: skip


def measure_frozen(
    view: View, given: EvaluationSet, before: Baseline | None, present: Mapping[str, frozenset[str]]
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
    present
        Documents of the snapshot (`now`) and of the baseline's (`then`); a snapshot whose files are gone has none here.
    """
    run = answer_set(view, given, SearchOptions(), depth=200)
    rankings = {name: run.ranking(name, _KEPT) for name in given.queries}
    values = per_query(run.documents, given.judged, ["nDCG@10"])["nDCG@10"] if given.judged else {}
    ndcg = float(np.mean(list(values.values()))) if values else None
    agreement = _agreement(rankings, before.rankings, present) if before else {}
    changed = sorted((one[0], given.queries[name]) for name, one in agreement.items() if one[0] < 1.0)
    return Frozen(
        name=given.name,
        kind=given.kind,
        queries=len(given.queries),
        baseline=_baseline(run, rankings, ndcg),
        compared_with=before.snapshot if before else None,
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
    now: Mapping[str, Sequence[str]], then: Mapping[str, Sequence[str]], present: Mapping[str, frozenset[str]]
) -> dict[str, tuple[float, float]]:
    both = present["now"] & present["then"]
    found = {}
    for name in now.keys() & then.keys():
        one, other = ([doc for doc in side[name] if not both or doc in both] for side in (then, now))
        found[name] = (top_overlap(one, other, 10), rank_biased_overlap(one[:30], other[:30]))
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
