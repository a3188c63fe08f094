"""Two versions on the same queries: differences with their chance, agreement, and the queries that changed most."""

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
    """One measure of two versions.

    Attributes
    ----------
    before, after
        Means over the queries.
    difference
        After minus before.
    interval
        95 % percentile bootstrap interval of the difference.
    p
        Of a two-sided paired randomization test.
    queries
        How many.
    """

    before: float
    after: float
    difference: float
    interval: tuple[float, float]
    p: float
    queries: int


@dataclass(frozen=True, slots=True)
class QueryChange:
    """One query, before and after, by the first measure."""

    query_id: str
    text: str
    before: float | None
    after: float | None
    overlap: float
    rbo: float
    left: tuple[str, ...]
    came: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two versions.

    Attributes
    ----------
    measures
        Differences by measure; empty without judgements.
    slices
        Differences of the first measure, by column and value.
    overlap, rbo
        Means over all queries: shared documents of the first ten, and rank-biased overlap.
    changes
        The queries that changed most, worst first.
    values
        Every query's value by measure, of the version before and of the one after.
    """

    measures: dict[str, Difference]
    slices: dict[str, dict[str, Difference]]
    overlap: float
    rbo: float
    changes: tuple[QueryChange, ...]
    values: dict[str, tuple[dict[str, float], dict[str, float]]]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, without those of every query."""
        return {name: value for name, value in asdict(self).items() if name != "values"}


def compare_runs(
    given: EvaluationSet,
    before: SetRun,
    after: SetRun,
    *,
    measures: Sequence[str] = MEASURES,
    groups: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Comparison:
    """Compare two versions' answers to one set.

    Parameters
    ----------
    given
        The set that both answered.
    before, after
        Their answers.
    measures
        As ir-measures names them; the first one orders the queries that changed.
    groups
        Query ids by column and value.
    """
    judged = given.judged
    old, new = (per_query(run.documents, judged, measures) if judged else {} for run in (before, after))
    agreement = agree(*({name: run.ranking(name) for name in given.queries} for run in (before, after)))
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
        overlap=float(np.mean([one.overlap for one in agreement.values()])) if agreement else 1.0,
        rbo=float(np.mean([one.rbo for one in agreement.values()])) if agreement else 1.0,
        changes=_changes(given, agreement, old.get(first, {}), new.get(first, {})),
        values={name: (old[name], new[name]) for name in measures} if judged else {},
    )


def difference(before: Mapping[str, float], after: Mapping[str, float]) -> Difference:
    """Compare the values of the queries that both have."""
    names = sorted(before.keys() & after.keys())
    one, other = (np.array([side[name] for name in names], np.float64) for side in (before, after))
    moved = other - one
    return Difference(
        before=float(one.mean()) if names else 0.0,
        after=float(other.mean()) if names else 0.0,
        difference=float(moved.mean()) if names else 0.0,
        interval=bootstrap_interval(moved),
        p=randomization_p(moved, two_sided=True),
        queries=len(names),
    )


def _only(values: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    return {name: values[name] for name in names if name in values}


def _changes(
    given: EvaluationSet, agreement: Mapping[str, QueryAgreement], old: Mapping[str, float], new: Mapping[str, float]
) -> tuple[QueryChange, ...]:
    changes = [
        QueryChange(name, given.queries[name], old.get(name), new.get(name), one.overlap, one.rbo, one.left, one.came)
        for name, one in agreement.items()
        if one.overlap < 1.0 or old.get(name) != new.get(name)
    ]
    changes.sort(key=lambda one: ((one.after or 0.0) - (one.before or 0.0), one.rbo, one.query_id))
    if len(changes) <= _SHOWN:
        return tuple(changes)
    # Those that lost, and those that gained, beside them.
    return tuple([*changes[: _SHOWN // 2], *changes[-_SHOWN // 2 :]])
