"""What a query log says in a few numbers: who answered, and how much a candidate agreed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isospace.operations.audit.query_log import Answered


@dataclass(frozen=True, slots=True)
class QueryLogSummary:
    """A query log in numbers."""

    queries: int
    by_snapshot: dict[int, int]
    compared: tuple[Answered, ...]
    """Queries that a candidate answered too, those with the least agreement first."""

    @property
    def overlap(self) -> float | None:
        """Mean top-10 overlap of the compared queries; None if there are none."""
        return _mean([one.overlap or 0.0 for one in self.compared])

    @property
    def rbo(self) -> float | None:
        """Mean rank-biased overlap of the compared queries; None if there are none."""
        return _mean([one.rbo or 0.0 for one in self.compared])

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "queries": self.queries,
            "by_snapshot": {str(number): count for number, count in self.by_snapshot.items()},
            "compared": len(self.compared),
            "overlap": self.overlap,
            "rbo": self.rbo,
        }


def summarize_query_log(logged: Sequence[Answered]) -> QueryLogSummary:
    """Summarize logged queries."""
    compared = [one for one in logged if one.overlap is not None and one.rbo is not None]
    compared.sort(key=lambda one: (one.rbo or 0.0, one.query_sha256))
    by_snapshot = Counter(one.snapshot for one in logged)
    return QueryLogSummary(len(logged), dict(sorted(by_snapshot.items())), tuple(compared))


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
