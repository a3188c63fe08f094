"""Compare two snapshots on an evaluation set, and write the report."""

from __future__ import annotations

from dataclasses import dataclass

from isospace.errors import ConfigError, StoreError
from isospace.evaluation.comparison import Comparison, compare_runs
from isospace.evaluation.comparison_page import Sides, comparison_page
from isospace.evaluation.gate.judge import quoted_groups
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.reports.page import write_page
from isospace.evaluation.runs import SetRun, answer_set
from isospace.evaluation.slices import slices_of
from isospace.search.options import SearchOptions
from isospace.search.view import View
from isospace.storage.run_id import new_run_id
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class ComparedSnapshots:
    """Two snapshots that were compared.

    Attributes
    ----------
    before, after
        Their answers.
    report
        Path of the report in the store; None if it could not be written.
    problem
        Why it could not be written.
    """

    before: SetRun
    after: SetRun
    comparison: Comparison
    report: str | None
    problem: str = ""

    @property
    def sides(self) -> Sides:
        """How the two are called."""
        return Sides(f"snapshot {self.before.snapshot}", f"snapshot {self.after.snapshot}")


def report_comparison(
    store: Store, before: View, after: View, query_set: EvaluationSet, options: SearchOptions
) -> ComparedSnapshots:
    """Search two snapshots for the queries of a set, compare the answers, and write the report.

    A comparison only reads, so that a store without write access, or a missing package for plots, costs the report
    alone.
    """
    first, second = (answer_set(view, query_set, options) for view in (before, after))
    groups = slices_of(query_set, before, after)
    comparison = compare_runs(query_set, first, second, groups=groups)
    collection, quotes = after.manifest.collection, quoted_groups(query_set, groups)
    try:
        page = comparison_page(comparison, query_set, (first, second), collection=collection, groups=quotes)
        path = write_page(store, f"{new_run_id()}-compare", page, collection=collection)
    except (ConfigError, StoreError) as error:
        return ComparedSnapshots(first, second, comparison, None, str(error))
    return ComparedSnapshots(first, second, comparison, path)
