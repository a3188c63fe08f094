"""The report on a verdict: rules, differences, the queries that changed, and how the vectors lie."""

from __future__ import annotations

import numpy as np

from isospace.evaluation.gate.judge import Judged
from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.norms import measure_norms, sample_rows, vectors_at
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.search.view import View
from isospace.transform.isotropy import pair_cosines

_SAMPLE = 1_000


def verdict_page(judged: Judged, candidate: View, production: View | None) -> Page:
    """Return the page."""
    verdict = judged.verdict
    sections = [_rules(verdict), *_retrieval(judged), *_vectors(candidate, production), _lineage(verdict)]
    title = f"{verdict.collection}: gate of snapshot {verdict.snapshot}"
    tone: Tone = "good" if verdict.passed else "bad"
    data = {
        "verdict": verdict.model_dump(mode="json"),
        "comparison": judged.comparison.as_dict() if judged.comparison else None,
    }
    return Page(title, f"{verdict.describe().replace('snapshot', 'Snapshot', 1)}.", tone, tuple(sections), data)


def rule_table(verdict: Verdict) -> Table:
    """Return the rules with what was found."""
    tones: dict[bool | None, Tone] = {True: "good", False: "bad", None: "plain"}
    rows = tuple((one.rule, figure(one.figure), one.expected, one.detail) for one in verdict.findings)
    return Table(("rule", "found", "expected", "detail"), rows, tuple(tones[one.passed] for one in verdict.findings))


def _rules(verdict: Verdict) -> Section:
    notes = " ".join(f"Note: {note}." for note in verdict.notes)
    return Section("Rules", notes, table=rule_table(verdict))


def _retrieval(judged: Judged) -> list[Section]:
    verdict, found = judged.verdict, judged.comparison
    if found is None:
        alone = tuple((name, figure(values["after"])) for name, values in verdict.measures.items())
        return [Section("Retrieval", table=Table(("measure", "candidate"), alone))] if alone else []
    text = f"{found.overlap:.1%} of the first ten documents of a query are the same in both; rank-biased overlap {found.rbo:.3f}."
    if not found.measures:
        return [Section("Agreement", text), _changes(judged)]
    first = next(iter(found.measures))
    rows = tuple(
        (
            name,
            figure(one.before),
            figure(one.after),
            f"{one.difference:+.4f}",
            figure(one.interval),
            figure(one.p),
            str(one.queries),
        )
        for name, one in found.measures.items()
    )
    head = ("measure", "production", "candidate", "difference", "95 % interval", "p (two-sided)", "queries")
    slices = tuple(
        (
            f"{column} = {value}",
            figure(one.before),
            figure(one.after),
            f"{one.difference:+.4f}",
            figure(one.interval),
            str(one.queries),
        )
        for column, parts in found.slices.items()
        for value, one in parts.items()
    )
    return [
        Section("Retrieval", text, plots.intervals(found.measures), Table(head, rows)),
        Section("Query by query", "", plots.changes(*found.values[first], first)),
        Section(
            f"Groups of queries, {first}",
            "Intervals of small groups are wide; of many groups some differ by chance.",
            table=Table(("group", "production", "candidate", "difference", "95 % interval", "queries"), slices),
        ),
        _changes(judged),
    ]


def _changes(judged: Judged) -> Section:
    changes = judged.comparison.changes if judged.comparison else ()
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
    head = ("query", "text", "before", "after", "overlap", "left the first ten", "came")
    return Section("Queries that changed most", "" if rows else "None did.", table=Table(head, rows) if rows else None)


def _few(documents: tuple[str, ...]) -> str:
    more = f" and {len(documents) - 3} more" if len(documents) > 3 else ""
    return ", ".join(documents[:3]) + more


def _vectors(candidate: View, production: View | None) -> list[Section]:
    views = {"candidate": candidate, **({"production": production} if production else {})}
    cosines = {
        name: pair_cosines(vectors_at(view, sample_rows(view, _SAMPLE, seed=0))).astype(np.float64)
        for name, view in views.items()
        if len(view.copy) > 1
    }
    sections = [Section("Lengths of all vectors of the candidate", "", plots.norms(measure_norms(candidate)))]
    if cosines:
        text = "What `similar` means here: cosines of chunks that were drawn at random."
        rows = tuple(
            (name, *(figure(float(np.percentile(values, p))) for p in (1, 50, 95, 99)), figure(float(values.mean())))
            for name, values in cosines.items()
        )
        table = Table(("", "1 %", "median", "95 %", "99 %", "mean"), rows)
        sections.append(Section("Cosines of random pairs", text, plots.distributions(cosines, "cosine"), table))
    return sections


def _lineage(verdict: Verdict) -> Section:
    rows = [
        ("collection", verdict.collection), ("candidate", f"snapshot {verdict.snapshot}, {verdict.snapshot_id}"),
        ("space", verdict.space_id),
        ("production", f"snapshot {verdict.against.snapshot}, {verdict.against.snapshot_id}" if verdict.against else "none"),
        ("production's space", verdict.against.space_id if verdict.against else "–"),
        ("evaluation set", f"{verdict.evaluation_set} ({verdict.set_kind}), {verdict.set_id}" if verdict.set_id else "none"),
        ("run", verdict.run_id), ("at", verdict.at),
    ]  # fmt: skip
    return Section("Lineage", table=Table(("", ""), tuple(rows)))
