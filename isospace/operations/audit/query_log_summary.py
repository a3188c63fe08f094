"""Summarize a query log: which snapshots answered, and how far a candidate agreed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isospace.operations.audit.query_log import LoggedAnswer


@dataclass(frozen=True, slots=True)
class QueryLogSummary:
    """The figures of a query log."""

    queries: int
    by_snapshot: dict[int, int]
    compared: tuple[LoggedAnswer, ...]
    """Queries that a candidate answered too, in order of rising agreement."""

    @property
    def overlap(self) -> float | None:
        """Mean top-10 overlap of the compared queries; None if there are none."""
        return _mean([answer.overlap or 0.0 for answer in self.compared])

    @property
    def rbo(self) -> float | None:
        """Mean rank-biased overlap of the compared queries; None if there are none."""
        return _mean([answer.rbo or 0.0 for answer in self.compared])

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "queries": self.queries,
            "by_snapshot": {str(number): count for number, count in self.by_snapshot.items()},
            "compared": len(self.compared),
            "overlap": self.overlap,
            "rbo": self.rbo,
        }


def summarize_query_log(logged: Sequence[LoggedAnswer]) -> QueryLogSummary:
    """Summarize logged answers."""
    compared = [answer for answer in logged if answer.overlap is not None and answer.rbo is not None]
    compared.sort(key=lambda answer: (answer.rbo or 0.0, answer.query_sha256))
    by_snapshot = Counter(answer.snapshot for answer in logged)
    return QueryLogSummary(len(logged), dict(sorted(by_snapshot.items())), tuple(compared))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
