"""Audits as Prefect tasks."""

from __future__ import annotations

from prefect.logging import get_run_logger

from isospace.evaluation.reports.markdown import as_cell
from isospace.evaluation.reports.page import figure
from isospace.operations.audit.audit import AuditRecord
from isospace.operations.audit.run_audit import run_audit
from isospace.operations.audit.thresholds import Thresholds
from isospace.storage.store import open_store
from tasks.errors import one_line_task
from tasks.reporter import PrefectReporter

ALARM = "isospace.audit.alarm"


@one_line_task(name="measure snapshot", task_run_name="measure {alias}")
def measure(
    store: str, collection: str, alias: str, evaluation_set: str | None, log_hours: float, seed: int, limits: Thresholds
) -> AuditRecord:
    """Measure the snapshot that an alias names, and record the outcome with a report."""
    logger = get_run_logger()
    logger.info("measures the snapshot that %s names in collection %s", alias, collection)
    record = run_audit(
        open_store(store),
        collection,
        alias,
        limits,
        set_name=evaluation_set,
        log_hours=log_hours,
        seed=seed,
        on_progress=logger.info,
    )
    logger.info("measured snapshot %d: %d alarms; report %s", record.snapshot, len(record.alarms), record.report)
    return record


@one_line_task(name="show alarms", task_run_name="show alarms")
def show(store: str, record: AuditRecord) -> None:
    """Show the outcome in Prefect's UI, and emit an event for each alarm, for automations."""
    reporter = PrefectReporter()
    reporter.info(f"shows {len(record.alarms)} alarms and the report of snapshot {record.snapshot}")
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
