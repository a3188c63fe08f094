"""The commands that monitor what is served: audit, query-log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from isospace.cli.common import (
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    engine_of,
    fail,
    print_json,
    print_table,
    shortened,
    warn,
)

if TYPE_CHECKING:
    from isospace.operations.audit.audit import AuditRecord
    from isospace.operations.audit.query_log import LoggedAnswer
    from isospace.storage.store import Store

HoursOption = Annotated[float, typer.Option(metavar="HOURS", min=0, help="How far back to read the query log.")]
_MOST_QUERIES = 10


def audit(
    store: StoreArgument,
    collection: CollectionArgument,
    name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="Evaluation set whose queries are asked.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Limit above or below which a metric is an alarm. Repeatable."),
    ] = None,
    hours: HoursOption = 24.0,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check what an alias serves for drift and damage, and write a report; alarms exit with 1."""
    from isospace.operations.audit.run_audit import run_audit
    from isospace.operations.audit.thresholds import parse_thresholds
    from isospace.storage.store import open_store

    limits, engine = parse_thresholds(threshold or []), engine_of(backend, device)
    opened = open_store(store)
    record = run_audit(
        opened, collection, snapshot, limits, set_name=name, log_hours=hours, engine=engine, on_progress=warn
    )
    if as_json:
        print_json(record.model_dump(mode="json", exclude={"baseline"}))
    else:
        _print_audit(opened, record)
    if record.alarms:
        fail(f"{len(record.alarms)} alarms: {', '.join(one.name for one in record.alarms)}.", status=1)


def query_log(
    store: StoreArgument,
    collection: CollectionArgument,
    hours: HoursOption = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Show what services logged: which snapshots answered, and how much a candidate agreed with them."""
    from isospace.operations.audit.query_log import read_answers
    from isospace.operations.audit.query_log_summary import summarize_query_log
    from isospace.storage.store import open_store

    logged = read_answers(open_store(store), collection, since=datetime.now(UTC) - timedelta(hours=hours))
    found = summarize_query_log(logged)
    if as_json:
        print_json(found.as_dict())
        return
    parts = ", ".join(f"{count:,} by snapshot {number}" for number, count in found.by_snapshot.items()) or "none"
    typer.echo(f"{collection}: {found.queries:,} queries in {hours:g} hours, answered: {parts}")
    if not found.compared:
        typer.echo("No query was compared with a candidate: serve with --shadow candidate --log SHARE.")
        return
    agreement = f"top-10 overlap {found.overlap:.4f}, rank-biased overlap {found.rbo:.4f}"
    typer.echo(f"A candidate answered {len(found.compared):,} of them too: {agreement}")
    for one in found.compared[:_MOST_QUERIES]:
        typer.echo(_compared(one))


def _compared(one: LoggedAnswer) -> str:
    text = shortened(one.text, 70) if one.text is not None else one.query_sha256[:16]
    agreement = f"rbo {one.rbo:.3f}  overlap {one.overlap:.1f}"
    return f"  {agreement}  snapshots {one.snapshot} and {one.candidate}  {text}"


def _print_audit(store: Store, record: AuditRecord) -> None:
    from isospace.evaluation.reports.page import figure
    from isospace.storage.openable import openable

    if record.alarms:
        print_table(
            ("alarm", "found", "limit", "what"),
            [(one.name, figure(one.figure), figure(one.limit), f"{one.message} {one.remedy}") for one in record.alarms],
            title=f"{record.collection}, {record.alias}: snapshot {record.snapshot}",
        )
    else:
        typer.echo(f"{record.describe()}.")
    for note in record.notes:
        typer.echo(f"Note: {note}.")
    if record.report:
        typer.echo(f"report: {openable(store, record.report)}")
