"""The HTML report on a run that committed a snapshot: what it did, its checks, and its vectors."""

from __future__ import annotations

from dataclasses import asdict

from isospace.evaluation.baseline_sample import read_reference
from isospace.evaluation.reports.page import Page, Section, Table, Tone, figure
from isospace.evaluation.reports.vector_sections import corpus_map_section, dimension_sections, vector_sections
from isospace.evaluation.stored_vectors import measure_stored
from isospace.pipeline.checks import CheckResult
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run_report import RunReport
from isospace.search.view import View
from isospace.storage.store import Store


def run_page(store: Store, report: RunReport, plan: PlanReport, checked: CheckResult | None, view: View) -> Page:
    """Return the report page; `view` is the snapshot that the run committed."""
    record = view.space.space.record
    reference = read_reference(store, view.manifest, record.input_dimension)
    stored = measure_stored(store, view, reference, seed=0)
    work = (
        ("encoded texts", report.encoded),
        ("tokens", report.tokens),
        ("seconds of encoding", report.seconds),
        ("quarantined inputs", report.quarantined),
    )
    promoted = f", now {report.promoted}" if report.promoted else ""
    gate = f" Gate: {report.gate}." if report.gate else ""
    size = f"{report.documents:,} documents in {report.chunks:,} chunks"
    outcome = f"Committed snapshot {report.snapshot}{promoted}: {size}.{gate}"
    warned: tuple[Tone, ...] = tuple("bad" for _ in report.warnings)
    sections = [
        Section("Warnings", table=Table(("to look at",), tuple((w,) for w in report.warnings), warned))
        if report.warnings
        else Section("Warnings", "None."),
        Section("What was done", table=Table(("", ""), tuple((name, figure(value)) for name, value in work))),
        *([_notes(report)] if report.notes else []),
        Section("Plan", table=Table(("", ""), tuple((name, value) for name, value in plan.rows()))),
        *([_checks(checked)] if checked else []),
        *vector_sections(stored),
        *dimension_sections(stored),
        *corpus_map_section(view),
        _lineage(report, view),
    ]
    tone: Tone = "bad" if report.warnings else "good"
    data = {"run": asdict(report), "plan": plan.as_dict(), "provenance": view.manifest.provenance}
    return Page(f"{report.collection}: snapshot {report.snapshot}", outcome, tone, tuple(sections), data)


def _checks(checked: CheckResult) -> Section:
    rows = (
        ("rows read back", f"{checked.rows:,}"),
        ("largest distance of a norm from 1", f"{checked.largest_norm_error:.3g}"),
        ("smallest cosine of a probe with its record", f"{checked.probe_cosine:.9f}"),
    )
    return Section("Checks before the commit", table=Table(("", ""), rows))


def _notes(report: RunReport) -> Section:
    rows = tuple((note.describe(),) for note in report.notes)
    tones: tuple[Tone, ...] = tuple("bad" if note.warns else "plain" for note in report.notes)
    return Section("How documents were read", table=Table(("",), rows, tones))


def _lineage(report: RunReport, view: View) -> Section:
    manifest, provenance = view.manifest, view.manifest.provenance
    rows = (
        ("collection", report.collection),
        ("snapshot", f"{report.snapshot}, {report.snapshot_id}"),
        ("parent", figure(provenance.get("parent"))),
        ("space", manifest.space_id),
        ("encoder", manifest.encoder_id),
        ("fit", view.space.space.record.fitted.describe()),
        ("source", str(provenance.get("source"))),
        ("run", report.run_id),
        ("committed at", str(provenance.get("committed_at"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in (provenance.get("versions") or {}).items())),
    )
    return Section("Lineage", table=Table(("", ""), rows))
