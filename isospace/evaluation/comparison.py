"""Compare two versions on the same queries: differences, significance, agreement, the queries that changed most."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isospace.evaluation.metrics import MEASURES, per_query
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.rank_agreement import QueryAgreement, agree
from isospace.evaluation.runs import SetRun
from isospace.evaluation.significance import bootstrap_interval, randomization_p

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference of two versions in one metric.

    Attributes
    ----------
    before, after
        Means over the queries.
    difference
        After minus before.
    interval
        95 percent percentile bootstrap interval of the difference.
    p
        P-value of a two-sided paired randomization test.
    queries
        Number of queries.
    """

    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    p: float
    queries: int


@dataclass(frozen=True, slots=True)
class QueryChange:
    """One query before and after, by the first metric.

    `left` and `came` are documents of the top ten; `answers` are those that the set names as relevant, and that a
    pseudo-query is taken from.
    """

    query_id: str
    text: str
    before: float | None
    after: float | None
    overlap: float
    rbo: float
    left: tuple[str, ...]
    came: tuple[str, ...]
    answers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two versions.

    Attributes
    ----------
    measures
        Differences by metric; empty without judgements.
    slices
        Differences of the first metric, by column and value.
    overlap, rbo
        Means over all queries: overlap of the top ten documents, and rank-biased overlap.
    changes
        The queries that changed most, largest losses first.
    values
        By metric: the value of each query before, and after.
    """

    measures: dict[str, Difference]
    slices: dict[str, dict[str, Difference]]
    overlap: float
    rbo: float
    changes: tuple[QueryChange, ...]
    values: dict[str, tuple[dict[str, float], dict[str, float]]]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, without those of single queries."""
        return {name: value for name, value in asdict(self).items() if name != "values"}


def compare_runs(
    query_set: EvaluationSet,
    before: SetRun,
    after: SetRun,
    *,
    measures: Sequence[str] = MEASURES,
    groups: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Comparison:
    """Compare the answers of two versions to an evaluation set.

    Parameters
    ----------
    query_set
        The evaluation set that both answered.
    before, after
        Their answers.
    measures
        Metrics as ir-measures names them; the first one orders the queries that changed.
    groups
        Query IDs by column and value.
    """
    judged = query_set.judged
    old, new = (per_query(run.documents, judged, measures) if judged else {} for run in (before, after))
    agreement = agree(*({name: run.ranking(name) for name in query_set.queries} for run in (before, after)))
    first = measures[0]
    return Comparison(
        measures={name: difference(old[name], new[name]) for name in measures} if judged else {},
        slices={
            column: {
                value: difference(_only(old[first], names), _only(new[first], names)) for value, names in parts.items()
            }
            for column, parts in (groups or {}).items()
        }
        if judged
        else {},
        overlap=float(np.mean([pair.overlap for pair in agreement.values()])) if agreement else 1.0,
        rbo=float(np.mean([pair.rbo for pair in agreement.values()])) if agreement else 1.0,
        changes=_changes(query_set, agreement, old.get(first, {}), new.get(first, {})),
        values={name: (old[name], new[name]) for name in measures} if judged else {},
    )


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> Difference:
    """Return the difference over the queries that both sides have."""
    names = sorted(before.keys() & after.keys())
    old, new = (np.array([side[name] for name in names], np.float64) for side in (before, after))
    differences = new - old
    return Difference(
        before=float(old.mean()) if names else 0.0,
        after=float(new.mean()) if names else 0.0,
        difference=float(differences.mean()) if names else 0.0,
        interval=bootstrap_interval(differences),
        p=randomization_p(differences, two_sided=True),
        queries=len(names),
    )


def _only(values: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: values[name] for name in names if name in values}


def _changes(
    query_set: EvaluationSet,
    agreement: Mapping[str, QueryAgreement],
    old: Mapping[str, float],
    new: Mapping[str, float],
) -> tuple[QueryChange, ...]:
    changes = [
        QueryChange(
            query_id=name,
            text=query_set.queries[name],
            before=old.get(name),
            after=new.get(name),
            overlap=pair.overlap,
            rbo=pair.rbo,
            left=pair.left,
            came=pair.came,
            answers=query_set.answers(name),
        )
        for name, pair in agreement.items()
        if pair.overlap < 1.0 or old.get(name) != new.get(name)
    ]
    changes.sort(key=lambda change: ((change.after or 0.0) - (change.before or 0.0), change.rbo, change.query_id))
    if len(changes) <= _SHOWN:
        return tuple(changes)
    # The largest losses and the largest gains.
    return tuple([*changes[: _SHOWN // 2], *changes[-_SHOWN // 2 :]])
