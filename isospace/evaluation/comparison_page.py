"""The HTML report on a comparison of two snapshots, and its tables, which say which side is better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from isospace.evaluation.comparison import Comparison, Difference, QueryChange
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone
from isospace.evaluation.reports.quotes import Quote, names_of, quote_of
from isospace.evaluation.runs import SetRun

NO_DIFFERENCE = "no clear difference"


@dataclass(frozen=True, slots=True)
class Sides:
    """How the two sides of a comparison are called, such as `snapshot 3` and `snapshot 4`."""

    before: str
    after: str

    def better(self, one: Difference) -> str:
        """Return the side that is better in a metric: the one on whose side the whole interval lies."""
        low, high = one.interval
        return self.after if low > 0 else self.before if high < 0 else NO_DIFFERENCE

    def metric_head(self) -> tuple[str, ...]:
        """Return the head of a table of `metric_row`."""
        return "metric", self.before, self.after, "difference", "95 % interval", "p", "queries", "better"

    def metric_row(self, name: str, one: Difference) -> tuple[str, ...]:
        """Return the differences in one metric, or group of queries."""
        low, high = one.interval
        values = (f"{one.before:.4f}", f"{one.after:.4f}", f"{one.difference:+.4f}", f"{low:+.4f} to {high:+.4f}")
        return name, *values, f"{one.p:.4f}", f"{one.queries:,}", self.better(one)

    def change_head(self) -> tuple[str, ...]:
        """Return the head of a table of `change_row`."""
        return "query", "text", self.before, self.after, "overlap", "better"

    def change_row(self, one: QueryChange) -> tuple[str, ...]:
        """Return a query that changed, with its first metric on both sides."""
        better = "–"
        if one.before is not None and one.after is not None and one.before != one.after:
            better = self.after if one.after > one.before else self.before
        return one.query_id, one.text, _number(one.before), _number(one.after), f"{one.overlap:.0%}", better


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def verdict(comparison: Comparison, sides: Sides) -> str:
    """Return which side is better, in a sentence."""
    if not comparison.measures:
        return (
            f"Without judgements nobody can say which is better; {comparison.overlap:.0%} of the top ten documents are "
            "the same."
        )
    by_side: dict[str, list[str]] = {}
    for name, one in comparison.measures.items():
        by_side.setdefault(sides.better(one), []).append(name)
    parts = [
        f"{side} is better in {', '.join(by_side[side])}" for side in (sides.after, sides.before) if side in by_side
    ]
    if NO_DIFFERENCE in by_side:
        parts.append(f"{NO_DIFFERENCE} in {', '.join(by_side[NO_DIFFERENCE])}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def tone_of(comparison: Comparison, sides: Sides) -> Tone:
    """Return the color of the outcome for the later side."""
    better = {sides.better(one) for one in comparison.measures.values()}
    return "bad" if sides.before in better else "good" if sides.after in better else "plain"


def comparison_page(
    comparison: Comparison,
    query_set: EvaluationSet,
    runs: tuple[SetRun, SetRun],
    *,
    collection: str,
    groups: Sequence[Quote] = (),
) -> Page:
    """Return the report page.

    Parameters
    ----------
    runs
        The answers of both sides, before and after.
    groups
        The documents whose metadata name a group of queries.
    """
    before, after = runs
    sides = Sides(f"snapshot {before.snapshot}", f"snapshot {after.snapshot}")
    title = f"{collection}: {sides.before} against {sides.after}, on {query_set.name}"
    sections = [*_metrics(comparison, sides, groups), _changes(comparison, sides), _lineage(query_set, runs)]
    data = {"before": before.snapshot, "after": after.snapshot, "set_id": query_set.set_id, **comparison.as_dict()}
    return Page(title, verdict(comparison, sides), tone_of(comparison, sides), tuple(sections), data)


def _metrics(comparison: Comparison, sides: Sides, groups: Sequence[Quote]) -> list[Section]:
    agreement = (
        f"Both share {comparison.overlap:.1%} of the top ten documents per query; rank-biased overlap is "
        f"{comparison.rbo:.3f} (1 is the same order)."
    )
    if not comparison.measures:
        return [Section("Agreement", agreement)]
    first = next(iter(comparison.measures))
    rows = tuple(sides.metric_row(name, one) for name, one in comparison.measures.items())
    slices = tuple(
        sides.metric_row(f"{column} = {value}", one)
        for column, parts in comparison.slices.items()
        for value, one in parts.items()
    )
    text = (
        f"Higher is better in every metric. A difference is {sides.after} minus {sides.before}; a side is better if "
        f"the whole 95 % interval lies on its side of 0. {agreement}"
    )
    axis = f"{sides.after} minus {sides.before}, 95 % interval"
    sections = [
        Section("Metrics", text, plots.intervals(comparison.measures, axis), Table(sides.metric_head(), rows)),
        Section(
            "Query by query",
            f"How much each query gains or loses in {first} from {sides.before} to {sides.after}.",
            plots.changes(*comparison.values[first], first),
        ),
    ]
    if slices:
        note = "Small groups have wide intervals, and among many groups some differ by chance."
        head = ("group", *sides.metric_head()[1:])
        sections.append(Section(f"Groups of queries, {first}", note, table=Table(head, slices), quotes=tuple(groups)))
    return sections


def _changes(comparison: Comparison, sides: Sides) -> Section:
    rows = tuple(sides.change_row(one) for one in comparison.changes)
    named = names_of(doc for one in comparison.changes for doc in (*one.left, *one.came))
    quotes = (*named, *(quote for one in comparison.changes for quote in quote_of(one.answers)))
    text = "The largest losses first, then the largest gains; overlap is that of the top ten." if rows else "None."
    table = Table(sides.change_head(), rows) if rows else None
    return Section("Queries that changed most", text, table=table, quotes=quotes)


def _lineage(query_set: EvaluationSet, runs: tuple[SetRun, SetRun]) -> Section:
    rows = (
        *((f"snapshot {run.snapshot}", run.snapshot_id) for run in runs),
        *((f"space of snapshot {run.snapshot}", run.space_id) for run in runs),
        ("evaluation set", f"{query_set.name} ({query_set.kind}), {len(query_set.queries):,} queries"),
        ("set ID", query_set.set_id),
    )
    return Section("Lineage", "What was compared.", table=Table(("", ""), rows))
