"""The HTML report on a run that committed a snapshot: what it did, its checks, and its vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from isospace.collection.disk_usage import Usage, size_text
from isospace.collection.live_rows import live_rows
from isospace.collection.quarantine import QuarantinedInput
from isospace.encoding.registry.record import EncoderRecord
from isospace.evaluation.baseline_sample import read_reference
from isospace.evaluation.neighbours import nearest_cosines
from isospace.evaluation.reports import plots
from isospace.evaluation.reports.page import CHUNK_LENGTHS, Page, Section, Table, Tone, duration, figure
from isospace.evaluation.reports.quotes import names_of
from isospace.evaluation.reports.vector_sections import corpus_map_section, dimension_sections, vector_sections
from isospace.evaluation.stored_vectors import measure_stored
from isospace.pipeline.checks import CheckResult
from isospace.pipeline.config import Recipe
from isospace.pipeline.quarantine_report import quarantine_section
from isospace.pipeline.recipe_words import recipe_rows
from isospace.pipeline.run_report import RunReport, checks_rows
from isospace.search.view import View
from isospace.storage.store import Store

_SHORTEST = 0.05


@dataclass(frozen=True, slots=True)
class RunResult:
    """What the page of a run is made of.

    Attributes
    ----------
    quarantined
        The inputs that could not be used.
    disk
        Bytes by kind of file, as `disk_usage` returns them.
    gate_report
        Path of the report of the gate, relative to this report; None without one.
    query_encoder
        The encoder of queries; None if it is that of documents.
    """

    report: RunReport
    recipe: Recipe
    encoder: EncoderRecord
    checked: CheckResult | None
    quarantined: Sequence[QuarantinedInput]
    disk: Mapping[Usage, int]
    gate_report: str | None = None
    query_encoder: EncoderRecord | None = None


def run_page(store: Store, result: RunResult, view: View) -> Page:
    """Return the report page; `view` is the snapshot that the run committed."""
    report, record = result.report, view.space.space.record
    reference = read_reference(store, view.manifest, record.input_dimension)
    stored = measure_stored(store, view, reference, seed=0)
    sections = [
        *_warnings(report),
        _documents(report),
        *_quarantine(store, result),
        *_notes(report),
        _work(report),
        *_times(report),
        *_lengths(store, view, result.encoder),
        _recipe(result, view),
        *([_checks(result.checked)] if result.checked else []),
        *vector_sections(stored, nearest_cosines(view, seed=0), fitted=record.fitted.kind != "none"),
        # The first snapshot of a space is what it was fitted on.
        *(dimension_sections(stored) if reference.snapshot != view.manifest.sequence else []),
        *corpus_map_section(view),
        *_disk(result.disk),
        _lineage(report, view),
    ]
    data = {"run": asdict(report), "provenance": view.manifest.provenance}
    links = (("Report of the gate", result.gate_report),) if result.gate_report else ()
    return Page(
        f"{report.collection}: snapshot {report.snapshot}", report.outcome, report.tone, tuple(sections), data, links
    )


def _warnings(report: RunReport) -> list[Section]:
    rows = tuple((warning,) for warning in report.warnings)
    tones: tuple[Tone, ...] = tuple("bad" for _ in rows)
    return [Section("Warnings", "What a person should look at.", table=Table(("",), rows, tones))] if rows else []


def _documents(report: RunReport) -> Section:
    text = "What happened to the documents of the source and of the collection."
    return Section("Documents", text, table=Table(("documents", "", "meaning"), tuple(report.document_rows())))


def _quarantine(store: Store, result: RunResult) -> list[Section]:
    command = f"isospace quarantine {store.url} {result.report.collection}"
    return [quarantine_section(result.quarantined, command)] if result.quarantined else []


def _notes(report: RunReport) -> list[Section]:
    rows = tuple((note.kind, f"{note.documents:,}", _examples(note.examples)) for note in report.notes)
    tones: tuple[Tone, ...] = tuple("bad" if note.warns else "plain" for note in report.notes)
    quotes = names_of(doc_id for note in report.notes for doc_id, _ in note.examples)
    text = "What is worth knowing of how files and rows became documents, with those that have most of it."
    table = Table(("", "number", "such as"), rows, tones)
    return [Section("How documents were read", text, table=table, quotes=quotes)] if rows else []


def _examples(examples: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{doc_id} {detail}" for doc_id, detail in examples)


def _work(report: RunReport) -> Section:
    text = "What the run encoded; texts that an earlier run encoded are not encoded again."
    return Section("Work", text, table=Table(("work", "", "meaning"), tuple(report.work_rows())))


def _times(report: RunReport) -> list[Section]:
    if not report.stages:
        return []
    total = sum(seconds for _, seconds in report.stages)
    rows = tuple(
        (name, duration(seconds), f"{seconds / max(total, 1e-9):.0%}")
        for name, seconds in report.stages
        if seconds >= _SHORTEST
    )
    text = "Wall time of each stage, with its retries, up to this report. Stages under 0.05 s are left out."
    return [Section("Time", text, table=Table(("stage", "time", "share"), (*rows, ("total", duration(total), ""))))]


def _lengths(store: Store, view: View, encoder: EncoderRecord) -> list[Section]:
    tokens = [table["n_tokens"].to_numpy() for table in live_rows(store, view.manifest, "chunks", ["n_tokens"])]
    counts = np.concatenate(tokens) if tokens else np.zeros(0)
    if not len(counts):
        return []
    low, median, high = (int(value) for value in np.percentile(counts, (5, 50, 95)))
    text = (
        "Tokens per chunk, with its title, prompt, and special tokens; the model takes at most "
        f"{encoder.max_tokens:,}. Half of all chunks have {median:,} or fewer, and nine in ten between {low:,} and "
        f"{high:,}. Many very short chunks are often headings or menus, which find little."
    )
    return [Section(CHUNK_LENGTHS, text, plots.histogram(counts, "tokens per chunk", "chunks"))]


def _recipe(result: RunResult, view: View) -> Section:
    rows = tuple(recipe_rows(result.recipe, result.encoder, view.space.space.record, result.query_encoder))
    same = "the same" if result.query_encoder is None else "the same, with a model of their own"
    text = f"What turns a document into stored vectors, in the order of the steps; queries go through {same}."
    return Section("Model and recipe", text, table=Table(("step", ""), rows))


def _checks(checked: CheckResult) -> Section:
    tones: tuple[Tone, ...] = tuple("good" for _ in checks_rows(checked))
    text = "Everything that was written is read back before it becomes visible. A failed check ends the run."
    table = Table(("check", "value", "bound", "meaning"), tuple(checks_rows(checked)), tones)
    return Section("Checks before the commit", text, table=table)


def _disk(disk: Mapping[Usage, int]) -> list[Section]:
    rows = tuple((kind, size_text(size), _DISK.get(kind, "")) for kind, size in disk.items() if size)
    if not rows:
        return []
    text = "What the collection takes in the store, with what it shares with other collections."
    total = ("total", size_text(sum(disk.values())), "")
    return [Section("Size on disk", text, table=Table(("files", "size", "meaning"), (*rows, total)))]


_DISK: dict[Usage, str] = {
    "raw vectors": "what the encoder computed, of all snapshots; a refit needs no more; shared",
    "segments": "transformed vectors and codes, of all snapshots",
    "search files": "databases and BM25 indexes; rebuilt if they are lost",
    "documents and chunks": "texts of all snapshots",
    "encoders": "models and their exports; shared",
    "spaces": "sealed transforms; shared",
    "reports": "of all collections",
    "logged answers": "queries that services logged",
    "other": "manifests, aliases, evaluation sets, audits",
}


def _lineage(report: RunReport, view: View) -> Section:
    manifest, provenance = view.manifest, view.manifest.provenance
    rows = (
        ("collection", report.collection),
        ("snapshot", f"{report.snapshot}, {report.snapshot_id}"),
        ("parent", figure(provenance.get("parent"))),
        ("space", manifest.space_id),
        ("encoder", manifest.encoder_id),
        *([("encoder of queries", manifest.query_encoder_id)] if manifest.query_encoder_id else []),
        ("source", str(provenance.get("source"))),
        ("run", report.run_id),
        ("committed at", str(provenance.get("committed_at"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in (provenance.get("versions") or {}).items())),
    )
    return Section("Lineage", "The identities that this snapshot consists of.", table=Table(("", ""), rows))
