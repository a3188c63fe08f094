"""Audits as Prefect tasks."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import figure
from isospace.operations.audit.audit import AuditRecord
from isospace.operations.audit.run_audit import run_audit
from isospace.operations.audit.thresholds import Thresholds
from isospace.storage.store import open_store
from tasks.reporter import PrefectReporter

ALARM = "isospace.audit.alarm"


@task(cache_policy=NO_CACHE)
def measure(
    store: str, collection: str, alias: str, evaluation_set: str | None, log_hours: float, seed: int, limits: Thresholds
) -> AuditRecord:
    """Measure the snapshot that an alias names, and record the outcome with a report."""
    record = run_audit(
        open_store(store),
        collection,
        alias,
        limits,
        set_name=evaluation_set,
        log_hours=log_hours,
        seed=seed,
        on_progress=get_run_logger().info,
    )
    get_run_logger().info("snapshot %d: %d alarms", record.snapshot, len(record.alarms))
    return record


@task(cache_policy=NO_CACHE)
def show(store: str, record: AuditRecord) -> None:
    """Show the outcome in Prefect's UI, and emit an event for each alarm, for automations."""
    reporter = PrefectReporter()
    plots = ("Lengths of all vectors", "Cosines of random pairs")
    reporter.show_page(open_store(store), str(record.report), key="audit", markdown=audit_markdown(record), plots=plots)
    for alarm in record.alarms:
        get_run_logger().error(alarm.describe())
        reporter.emit(
            ALARM, record.collection, record.snapshot, {**alarm.model_dump(mode="json"), "report": record.report}
        )


def audit_markdown(record: AuditRecord) -> str:
    """Return the outcome of an audit as Markdown."""
    lines = [f"### {record.collection}, {record.alias}: snapshot {record.snapshot}", ""]
    if record.alarms:
        lines += ["| alarm | value | limit | message | what to do |", "| --- | ---: | ---: | --- | --- |"]
        lines += [
            f"| **{alarm.name}** | {figure(alarm.figure)} | {figure(alarm.limit)} | {as_cell(alarm.message)} | "
            f"{as_cell(alarm.remedy)} |"
            for alarm in record.alarms
        ]
    else:
        lines.append("No alarms.")
    return "\n".join([*lines, "", f"Report: `{record.report}`", *(f"\nNote: {note}." for note in record.notes)])
