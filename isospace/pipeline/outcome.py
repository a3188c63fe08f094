"""The outcome of a run, as a command prints it."""

from __future__ import annotations

import contextlib

from isospace.errors import IsospaceError
from isospace.pipeline.counted import counted, money_text
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run_report import RunReport
from isospace.storage import paths as layout
from isospace.storage.openable import report_address
from isospace.storage.store import Store

# Quarantined inputs to show; `isospace quarantine` lists all.
_SHOWN = 5


def outcome(report: RunReport | PlanReport, store: Store, report_url: str | None = None) -> str:
    """Return the outcome of a run, or a plan, as lines of text; with `report_url`, it links to the report."""
    if isinstance(report, PlanReport):
        return "\n".join(f"{label:<18} {value}" for label, value in report.rows())
    rows = [
        ("space", f"{report.space_id[:16]}…" if report.space_id else ""),
        ("documents", f"{report.documents:,} in {counted(report.chunks, 'chunk')}"),
        ("encoded", f"{counted(report.encoded, 'text')}, {counted(report.tokens, 'token')} in {report.seconds:.1f} s"),
        ("reused", f"{counted(report.reused, 'text')} that earlier runs encoded" if report.reused else ""),
        (
            "cost",
            f"{money_text(report.money)} in your currency, at the configured price" if report.money is not None else "",
        ),
        ("left", f"{counted(report.left, 'text')} for the next run" if report.left else ""),
        ("gate", report.gate or ""),
        ("alias", _alias(report)),
        ("report", _report_address(store, report.run_id, report_url)),
        *(("warning", warning) for warning in report.warnings),
    ]
    return "\n".join(
        [_headline(report), *(f"  {name:<10} {text}" for name, text in rows if text), *_quarantined(report, store)]
    )


def concluding_line(report: RunReport | PlanReport) -> str:
    """Return what a run did, or what a plan would do, in one sentence with figures."""
    if isinstance(report, PlanReport):
        return f"{report.collection}: plan only, nothing was written: {report.describe()}"
    encoded = f"{counted(report.encoded, 'text')} encoded in {report.seconds:.1f} s"
    parts = [
        f"{counted(report.documents, 'document')} in {counted(report.chunks, 'chunk')}",
        encoded if report.encoded else "nothing to encode",
        f"cost {money_text(report.money)}" if report.money is not None else "",
        f"{counted(report.left, 'text')} left for the next run" if report.left else "",
        f"{counted(report.quarantined, 'input')} quarantined" if report.quarantined else "",
        _alias(report, unmoved="no alias moved"),
    ]
    return f"{_headline(report)}: {', '.join(part for part in parts if part)}"


def _alias(report: RunReport, *, unmoved: str = "unchanged") -> str:
    if report.promoted:
        return f"{report.promoted} now names snapshot {report.snapshot}"
    return report.held or report.stays or unmoved


def _headline(report: RunReport) -> str:
    if not report.snapshot:
        return f"{report.collection}: unfinished, no snapshot yet"
    state = "committed" if report.committed else "unfinished, still at" if report.left else "no changes, still at"
    return f"{report.collection}: {state} snapshot {report.snapshot} ({report.snapshot_id[:16]}…)"


def _quarantined(report: RunReport, store: Store) -> list[str]:
    """Return some quarantined inputs with their reasons, and the command that lists all."""
    if report.quarantine is None or not report.quarantined:
        return []
    from isospace.storage.parquet import read_parquet

    rows: list[dict[str, str]] = []
    # The run has succeeded: what cannot be read for its description does not make it a failure.
    with contextlib.suppress(IsospaceError):
        rows = read_parquet(store, report.quarantine, columns=["uri", "reason"]).slice(0, _SHOWN).to_pylist()
    more = report.quarantined - len(rows)
    lines = [f"  {'quarantine':<10} {report.quarantined:,} inputs could not be used:"]
    lines += [f"    {row['uri']}: {row['reason']}" for row in rows]
    if more > 0:
        lines.append(f"    and {more:,} more: isospace quarantine {store.url} {report.collection}")
    return lines


def _report_address(store: Store, run_id: str, report_url: str | None) -> str:
    """Return the address of the report: of its page, or of its JSON if it has no page."""
    page = layout.report_page(run_id)
    try:
        candidates = [path for path in (page, layout.report(run_id)) if store.exists(path)]
    except IsospaceError:
        candidates = [page]
    return report_address(store, candidates[0], report_url) if candidates else ""
