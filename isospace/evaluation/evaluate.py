"""Measure one snapshot on an evaluation set, and compare two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isospace.errors import ConfigError
from isospace.evaluation.metrics import measure, per_query
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.runs import SetRun, answer_set
from isospace.evaluation.slices import slices_of
from isospace.search.options import SearchOptions
from isospace.search.view import View


@dataclass(frozen=True, slots=True)
class Group:
    """Queries that have something in common, such as a language, and their mean metrics."""

    queries: int
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one snapshot on an evaluation set."""

    run: SetRun
    kind: str
    groups: dict[str, Group]
    """`all`, then each slice as `column = value`."""
    queries: dict[str, dict[str, float]]
    """By metric and query ID."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "snapshot": self.run.snapshot,
            "space_id": self.run.space_id,
            "set_id": self.run.set_id,
            "kind": self.kind,
            "absent": self.run.absent,
            "figures": {name: group.metrics for name, group in self.groups.items()},
            "queries": self.queries,
        }


def require_judgements(query_set: EvaluationSet) -> None:
    """Raise ConfigError for a set without judgements, which can only show how much two snapshots agree."""
    if not query_set.judged:
        raise ConfigError(
            f"evaluation set {query_set.name!r}: has no judgements, so no metric can be computed for one snapshot. "
            "Compare two with `isospace compare`, or add judgements with `isospace sets add --judgements FILE`."
        )


def evaluate_snapshot(
    view: View, query_set: EvaluationSet, metrics: Sequence[str], options: SearchOptions
) -> Evaluation:
    """Search a snapshot for an evaluation set's queries, and average each metric over all queries and each slice.

    Raises
    ------
    ConfigError
        If the set has no judgements.
    """
    require_judgements(query_set)
    run = answer_set(view, query_set, options)
    values = per_query(run.documents, query_set.judged, metrics)
    groups = {"all": Group(len(query_set.judged), measure(run.documents, query_set.judged, metrics))}
    for column, slices in slices_of(query_set, view).items():
        for value, members in slices.items():
            groups[f"{column} = {value}"] = _average(values, [query for query in members if query in query_set.judged])
    return Evaluation(run, query_set.kind, groups, values)


def _average(values: Mapping[str, Mapping[str, float]], queries: Sequence[str]) -> Group:
    count = max(len(queries), 1)
    return Group(len(queries), {name: sum(by_query[q] for q in queries) / count for name, by_query in values.items()})
