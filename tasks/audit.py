"""Audits as Prefect tasks."""

from __future__ import annotations

from prefect.logging import get_run_logger

from isospace.evaluation.reports.artifacts import artifact_key
from isospace.evaluation.reports.page import SIMILARITIES
from isospace.operations.audit.audit import AuditRecord
from isospace.operations.audit.record_markdown import audit_markdown
from isospace.operations.audit.run_audit import run_audit
from isospace.operations.audit.thresholds import Thresholds
from isospace.storage.openable import report_address
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
def show(store: str, record: AuditRecord, report_url: str | None = None) -> None:
    """Show the outcome in Prefect's UI, and emit an event for each alarm, for automations."""
    reporter, opened = PrefectReporter(), open_store(store)
    reporter.info(f"shows {len(record.alarms)} alarms and the report of snapshot {record.snapshot}")
    reporter.show_page(
        opened,
        str(record.report),
        key=artifact_key(record.collection, "audit"),
        markdown=audit_markdown(record),
        plots=(SIMILARITIES, "Frozen queries", "Logged answers"),
        report_url=report_url,
    )
    address = report_address(opened, str(record.report), report_url)
    for alarm in record.alarms:
        get_run_logger().error(alarm.describe())
        reporter.emit(ALARM, record.collection, record.snapshot, {**alarm.model_dump(mode="json"), "report": address})
