"""Run an audit: measure, write the report, store the outcome."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

from isospace.evaluation.reports.page import write_page
from isospace.operations.audit.audit import AuditRecord, audit_alias, write_audit
from isospace.operations.audit.page import audit_page
from isospace.operations.audit.thresholds import Thresholds
from isospace.storage.run_id import new_run_id
from isospace.storage.store import Store

if TYPE_CHECKING:
    from isospace.encoding.engine import Engine


def run_audit(
    store: Store,
    collection: str,
    alias: str,
    limits: Thresholds,
    *,
    set_name: str | None = None,
    log_hours: float = 24.0,
    seed: int = 0,
    engine: Engine | None = None,
    now: datetime | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> AuditRecord:
    """Audit the snapshot that an alias names, and store the report and the record.

    For the parameters see `audit_alias`.

    Returns
    -------
    AuditRecord
        With its number and the path of its report.

    Raises
    ------
    NotFoundError
        If there is no such collection or alias.
    ConfigError
        If the report cannot be drawn because a package is missing.
    """
    run_id = f"{new_run_id()}-audit"
    audit = audit_alias(
        store,
        collection,
        alias,
        limits,
        run_id=run_id,
        set_name=set_name,
        log_hours=log_hours,
        seed=seed,
        engine=engine,
        now=now,
        on_progress=on_progress,
    )
    on_progress("drawing the report")
    report = write_page(store, run_id, audit_page(audit), collection=collection)
    return write_audit(store, audit.record.model_copy(update={"report": report}))
