"""The report of a run, as JSON for the store and as Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isospace.evaluation.reports.quotes import names_of, remove_if_forgotten, write_quotes
from isospace.pipeline.checks import CheckResult
from isospace.pipeline.commit import Commit
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.scan.notes import NoteCount
from isospace.pipeline.segment import Segment
from isospace.storage import paths as layout
from isospace.storage.hashing import canonical_json
from isospace.transform.space import Space


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did; small enough to be the result of a Prefect flow.

    Attributes
    ----------
    snapshot, snapshot_id, space_id
        The latest snapshot of the collection, and its space.
    committed
        Whether this run committed the snapshot.
    promoted
        The alias that was moved, if any.
    gate
        The verdict of the gate, in a sentence; None without a gate.
    documents, chunks
        Live documents and chunks in the snapshot.
    encoded, tokens, seconds
        Number of texts that this run encoded, their tokens, and the time it took.
    reused
        Number of texts that already had a raw vector.
    left
        Number of texts that the budget did not reach; the next run continues with them.
    money
        Cost of encoding at `runtime.price_per_device_hour`; None without a price.
    clipped, saturated
        Number of values in this run's segments that reached a bound of the affine map, or of int8.
    quarantined, quarantine
        Number of inputs that could not be used, and the table in the store that lists them with reasons.
    notes
        How the documents of the source were read: counts and examples by kind.
    held
        That the alias is held, in a sentence with the command that releases it; empty if it is not.
    """

    run_id: str
    collection: str
    snapshot: int
    snapshot_id: str
    space_id: str
    committed: bool
    promoted: str | None
    gate: str | None
    documents: int
    chunks: int
    encoded: int
    tokens: int
    seconds: float
    reused: int
    left: int
    money: float | None
    clipped: int
    saturated: int
    quarantined: int
    quarantine: str | None
    warnings: tuple[str, ...]
    notes: tuple[NoteCount, ...] = ()
    held: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary."""
        return asdict(self)


def run_warnings(run: Run, scan: Scan, checked: CheckResult | None, commit: Commit) -> tuple[str, ...]:
    """Return the warnings of a run: what a person should look at."""
    warnings = [*(checked.warnings if checked else ()), *([commit.warning] if commit.warning else [])]
    warnings += commit.metadata
    if run.damaged:
        warnings.append(
            f"the snapshot was rebuilt, since {len(run.damaged)} of its files were lost, such as {run.damaged[0]}"
        )
    if scan.unreadable > scan.quarantined:
        warnings.append(
            f"the {scan.quarantined:,} quarantined inputs stand for about {scan.unreadable:,} documents; see `isospace "
            "quarantine`"
        )
    if scan.stale:
        warnings.append(
            f"{scan.stale} documents could not be read this time and stay as they were; see `isospace quarantine`"
        )
    warnings += [note.describe() for note in scan.notes if note.warns]
    return tuple(warnings)


def write_report(
    run: Run, report: RunReport, plan: PlanReport, checked: CheckResult | None, segments: list[Segment], commit: Commit
) -> str:
    """Write the report as JSON, which quotes no document and names few; return its path in the store."""
    body = {
        "run": asdict(report),
        "plan": plan.as_dict(),
        "checks": asdict(checked) if checked else None,
        "segments": [{"part": s.part, "clipped": s.clipped, "saturated": s.saturated} for s in segments],
        "provenance": commit.manifest.provenance,
    }
    examples = [doc_id for note in report.notes for doc_id, _ in note.examples]
    named = names_of([*examples, *(plan.judged.missing if plan.judged else ())])
    write_quotes(run.store, run.run_id, run.collection, named)
    path = layout.report(run.run_id)
    run.store.write(path, canonical_json(body))
    remove_if_forgotten(run.store, run.run_id, run.collection)
    return path


def checks_markdown(checked: CheckResult) -> str:
    """Return the checks as Markdown."""
    before, after = checked.before.as_dict(), checked.after.as_dict()
    rows = [f"| {name.replace('_', ' ')} | {before[name]:.4g} | {after[name]:.4g} |" for name in before]
    lines = [
        "### Checks before the commit",
        "",
        "| check | result |",
        "| --- | ---: |",
        f"| rows read back | {checked.rows:,} |",
        f"| largest distance of a norm from 1 | {checked.largest_norm_error:.3g} |",
        f"| smallest cosine of a probe with its record | {checked.probe_cosine:.9f} |",
        "",
        "| isotropy of a sample | raw | transformed |",
        "| --- | ---: | ---: |",
        *rows,
    ]
    return "\n".join([*lines, *(f"\n**Warning:** {warning}" for warning in checked.warnings)])


def space_markdown(space: Space) -> str:
    """Return a space as Markdown: what was fitted, and the evidence for the choice."""
    fit, choice = space.provenance.get("fit", {}), space.provenance.get("choice")
    figures = [f"| {name.replace('_', ' ')} | {_figure(value)} |" for name, value in fit.items() if name != "spectrum"]
    lines = [
        f"### Space {space.space_id[:16]}…: {space.record.fitted.describe()}",
        "",
        "| | |",
        "| --- | ---: |",
        *figures,
    ]
    stored = space.provenance.get("representations", {})
    if stored:
        names = list(next(iter(stored.values())))
        lines += ["", "| representation | " + " | ".join(name.replace("_", " ") for name in names) + " |"]
        lines += ["| --- |" + " ---: |" * len(names)]
        lines += [f"| {name} | " + " | ".join(_figure(row[n]) for n in names) + " |" for name, row in stored.items()]
    if choice:
        lines += ["", choice["reason"], "", f"nDCG@10 on {choice['source']}; the second half was held out.", ""]
        lines += [
            "| fit | first half | held-out half | gain | 95 % interval | p |",
            "| --- | ---: | ---: | ---: | --- | ---: |",
        ]
        for candidate in choice["tried"]:
            cells = [_figure(candidate[name]) for name in ("choosing", "held_back", "gain", "interval", "p")]
            lines.append(f"| {candidate['fit']} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, *(f"\n**Warning:** {warning}" for warning in space.provenance.get("warnings", []))])


def _figure(value: Any) -> str:
    match value:
        case float():
            return f"{value:.4g}"
        case dict():
            return ", ".join(f"{name} {_figure(part)}" for name, part in value.items())
        case list() | tuple():
            return " to ".join(_figure(part) for part in value)
        case None:
            return "–"
        case _:
            return str(value)


def run_markdown(report: RunReport) -> str:
    """Return the report as Markdown."""
    apart = ("warnings", "notes", "held")
    rows = [f"| {name} | {value} |" for name, value in asdict(report).items() if name not in apart]
    # A cell would cut off the command that releases the alias.
    held = [f"**Held:** {report.held}", ""] if report.held else []
    head = [f"### {report.collection}: snapshot {report.snapshot}", "", *held]
    return "\n".join([*head, "| | |", "| --- | --- |", *rows, *_notes(report)])


def _notes(report: RunReport) -> list[str]:
    lines = [f"- {note.describe()}" for note in report.notes]
    return ["", "How documents were read:", "", *lines] if lines else []
