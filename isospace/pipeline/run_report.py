"""The report of a run: JSON in the store, Markdown for people."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from isospace.pipeline.checks import Checked
from isospace.pipeline.commit import Commit
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment
from isospace.storage import paths as layout
from isospace.storage.hashing import canonical_json
from isospace.transform.space import Space


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did; small enough to be the result of a flow.

    Attributes
    ----------
    run_id
        The run.
    collection
        Its collection.
    snapshot, snapshot_id, space_id
        What the collection has now.
    committed
        Whether this run committed it.
    promoted
        The alias that was moved, if one was.
    gate
        What the gate found, in a sentence; None if nothing was gated.
    documents, chunks
        Live ones in the snapshot.
    encoded, tokens, seconds
        Texts sent to the encoder by this run, and what they took.
    reused
        Texts that had a vector already.
    left
        Texts that the budget did not reach; the next run goes on with them.
    money
        What encoding cost at `runtime.price_per_device_hour`; None without it.
    clipped, saturated
        Values that met a bound of the affine map, or of int8, in this run's segments.
    quarantined, quarantine
        Inputs set aside, and the table in the store that gives their reasons.
    warnings
        What a person should look at.
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

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome by name."""
        return asdict(self)


def run_warnings(run: Run, found: Scan, checked: Checked | None) -> tuple[str, ...]:
    """Return what a person should look at."""
    warnings = list(checked.warnings) if checked else []
    if run.damaged:
        warnings.append(
            f"the snapshot was made again: {len(run.damaged)} of its files were lost, such as {run.damaged[0]}"
        )
    if found.stale:
        warnings.append(
            f"{found.stale} documents could not be read this time and stay as they were; see the quarantine"
        )
    return tuple(warnings)


def write_report(
    run: Run, report: RunReport, plan: PlanReport, checked: Checked | None, segments: list[Segment], commit: Commit
) -> str:
    """Write the report as JSON; return its path in the store."""
    body = {
        "run": asdict(report),
        "plan": plan.as_dict(),
        "checks": asdict(checked) if checked else None,
        "segments": [{"part": s.part, "clipped": s.clipped, "saturated": s.saturated} for s in segments],
        "provenance": commit.manifest.provenance,
    }
    path = layout.report(run.run_id)
    run.store.write(path, canonical_json(body))
    return path


def checks_markdown(checked: Checked) -> str:
    """Return the checks as Markdown."""
    before, after = checked.before.as_dict(), checked.after.as_dict()
    rows = [f"| {name.replace('_', ' ')} | {before[name]:.4g} | {after[name]:.4g} |" for name in before]
    lines = [
        "### Checks before the commit",
        "",
        "| check | found |",
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
    """Return what was fitted, and the evidence it was chosen by, as Markdown."""
    found, choice = space.provenance.get("fit", {}), space.provenance.get("choice")
    figures = [
        f"| {name.replace('_', ' ')} | {_figure(value)} |" for name, value in found.items() if name != "spectrum"
    ]
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
        lines += ["", choice["reason"], "", f"nDCG@10 on {choice['source']}; the second half was held back.", ""]
        lines += ["| fit | ranking half | held back | gain | 95 % | p |", "| --- | ---: | ---: | ---: | --- | ---: |"]
        for tried in choice["tried"]:
            cells = [_figure(tried[name]) for name in ("choosing", "held_back", "gain", "interval", "p")]
            lines.append(f"| {tried['fit']} | " + " | ".join(cells) + " |")
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
    """Return the outcome as Markdown."""
    rows = [f"| {name} | {value} |" for name, value in asdict(report).items() if name != "warnings"]
    return "\n".join([f"### {report.collection}: snapshot {report.snapshot}", "", "| | |", "| --- | --- |", *rows])
