"""The HTML report on a verdict: rules, differences, the queries that changed, and the vectors."""

from __future__ import annotations

import numpy as np

from isospace.evaluation.comparison_page import Sides
from isospace.evaluation.gate.judge import GateResult, json_figures
from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.norms import Norms, measure_norms, sample_rows, vectors_at
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.evaluation.reports.quotes import names_of, quote_of
from isospace.search.view import View
from isospace.transform.isotropy import pair_cosines

_SAMPLE, _ROUNDING = 1_000, 1e-5


def verdict_page(result: GateResult, candidate: View, production: View | None) -> Page:
    """Return the report page of a verdict."""
    verdict = result.verdict
    sections = [_rules(verdict), *_retrieval(result), *_vectors(candidate, production), _lineage(verdict)]
    title = f"{verdict.collection}: gate of snapshot {verdict.snapshot}"
    tone: Tone = "good" if verdict.passed else "bad"
    data = {
        "verdict": verdict.model_dump(mode="json"),
        "comparison": json_figures(result.comparison.as_dict()) if result.comparison else None,
    }
    return Page(title, f"{verdict.describe().replace('snapshot', 'Snapshot', 1)}.", tone, tuple(sections), data)


def rule_table(verdict: Verdict) -> Table:
    """Return a table of the rules and their results."""
    tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: "plain"}
    rows = tuple(
        (finding.rule, figure(finding.figure), finding.expected, finding.detail) for finding in verdict.findings
    )
    return Table(("rule", "value", "expected", "detail"), rows, tuple(tones[f.passed] for f in verdict.findings))


def _rules(verdict: Verdict) -> Section:
    notes = " ".join(f"Note: {note}." for note in verdict.notes)
    text = f"The recipe's rules, each with what was measured and what it expects. {notes}".strip()
    return Section("Rules", text, table=rule_table(verdict))


def _retrieval(result: GateResult) -> list[Section]:
    verdict, comparison = result.verdict, result.comparison
    if comparison is None:
        alone = tuple((name, figure(values["after"])) for name, values in verdict.measures.items())
        return [Section("Retrieval", table=Table(("metric", "candidate"), alone))] if alone else []
    text = (
        f"Both share {comparison.overlap:.1%} of the top ten documents per query; rank-biased overlap is "
        f"{comparison.rbo:.3f}."
    )
    if not comparison.measures:
        return [Section("Agreement", text), _changes(result)]
    first, sides = next(iter(comparison.measures)), Sides("production", "candidate")
    rows = tuple(sides.metric_row(name, one) for name, one in comparison.measures.items())
    slices = tuple(
        sides.metric_row(f"{column} = {value}", one)
        for column, parts in comparison.slices.items()
        for value, one in parts.items()
    )
    better = " Higher is better; a side is better if the whole 95 % interval lies on its side of 0."
    return [
        Section("Retrieval", text + better, plots.intervals(comparison.measures), Table(sides.metric_head(), rows)),
        Section(
            "Query by query",
            f"How much each query gains or loses in {first} from production to the candidate.",
            plots.changes(*comparison.values[first], first),
        ),
        Section(
            f"Groups of queries, {first}",
            "Small groups have wide intervals, and among many groups some differ by chance.",
            table=Table(("group", *sides.metric_head()[1:]), slices),
            quotes=result.groups,
        ),
        _changes(result),
    ]


def _changes(result: GateResult) -> Section:
    changes = result.comparison.changes if result.comparison else ()
    rows = tuple(
        (
            one.query_id,
            one.text,
            figure(one.before),
            figure(one.after),
            figure(one.overlap),
            _few(one.left),
            _few(one.came),
        )
        for one in changes
    )
    head = ("query", "text", "before", "after", "overlap", "left the top ten", "entered the top ten")
    named = names_of(doc for one in changes for doc in (*one.left, *one.came))
    quotes = (*named, *(quote for one in changes for quote in quote_of(one.answers)))
    table = Table(head, rows) if rows else None
    text = "The largest losses first, then the largest gains; overlap is that of the top ten." if rows else "None."
    return Section("Queries that changed most", text, table=table, quotes=quotes)


def _few(documents: tuple[str, ...]) -> str:
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    return ", ".join(documents[:3]) + more


def _vectors(candidate: View, production: View | None) -> list[Section]:
    views = {"candidate": candidate, **({"production": production} if production else {})}
    pairs = {name: pair_cosines(vectors_at(view, sample_rows(view, _SAMPLE, seed=0))) for name, view in views.items()}
    # Vectors that hold NaN fail the rules; the plot shows the others.
    finite = {name: values[np.isfinite(values)] for name, values in pairs.items()}
    cosines = {name: values for name, values in finite.items() if len(values)}
    sections = [_norms(measure_norms(candidate))]
    if cosines:
        text = "Cosines of random pairs of chunks: a pair is similar only if its cosine is well above these."
        rows = tuple(
            (name, *(figure(float(np.percentile(values, p))) for p in (1, 50, 95, 99)), figure(float(values.mean())))
            for name, values in cosines.items()
        )
        table = Table(("", "1 %", "median", "95 %", "99 %", "mean"), rows)
        sections.append(Section("Cosines of random pairs", text, plots.distributions(cosines, "cosine"), table))
    return sections


def _norms(measured: Norms) -> Section:
    text = (
        f"A space that normalizes stores vectors of length 1: the lengths of all {measured.count:,} vectors of the "
        f"candidate differ from 1 by at most {measured.largest_error:.2g}."
    )
    # The distances of rounding have no shape worth a plot.
    plot = plots.norms(measured) if measured.largest_error > _ROUNDING else None
    return Section("Lengths of all vectors of the candidate", text, plot)


def _lineage(verdict: Verdict) -> Section:
    against = verdict.against
    query_set = f"{verdict.evaluation_set} ({verdict.set_kind}), {verdict.set_id}" if verdict.set_id else "none"
    rows = (
        ("collection", verdict.collection),
        ("candidate", f"snapshot {verdict.snapshot}, {verdict.snapshot_id}"),
        ("space", verdict.space_id),
        ("production", f"snapshot {against.snapshot}, {against.snapshot_id}" if against else "none"),
        ("production's space", against.space_id if against else "–"),
        ("evaluation set", query_set),
        ("run", verdict.run_id),
        ("at", verdict.at),
    )
    return Section("Lineage", table=Table(("", ""), rows))
