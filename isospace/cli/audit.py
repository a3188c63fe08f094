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
    print_table,
    shortened,
    warn,
)
from isospace.cli.terminal import print_json, say

if TYPE_CHECKING:
    from isospace.operations.audit.audit import AuditRecord
    from isospace.operations.audit.query_log import LoggedAnswer
    from isospace.storage.store import Store

HoursOption = Annotated[float, typer.Option(metavar="HOURS", min=0, help="Read the query log of the last HOURS hours.")]
_MOST_QUERIES = 10


def audit(
    store: StoreArgument,
    collection: CollectionArgument,
    name: Annotated[
        str | None,
        typer.Option("--set", metavar="NAME", help="Evaluation set to search with. Default: default, or the first."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Limit beyond which a metric raises an alarm, such as mean_cosine=0.5. Repeatable.",
        ),
    ] = None,
    hours: HoursOption = 24.0,
    snapshot: SnapshotOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Check a snapshot for drift and damage, and write a report; the exit status is 1 if there are alarms."""
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
        fail(f"{len(record.alarms)} alarms: {', '.join(alarm.name for alarm in record.alarms)}.", status=1)


def query_log(
    store: StoreArgument,
    collection: CollectionArgument,
    hours: HoursOption = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Summarize the logged queries: how many each snapshot answered, and how well a shadow snapshot agreed."""
    from isospace.collection.absent import require_collection
    from isospace.operations.audit.query_log import read_answers
    from isospace.operations.audit.query_log_summary import summarize_query_log
    from isospace.storage.store import open_store

    opened = open_store(store)
    require_collection(opened, collection)
    logged = read_answers(opened, collection, since=datetime.now(UTC) - timedelta(hours=hours))
    summary = summarize_query_log(logged)
    if as_json:
        print_json(summary.as_dict())
        return
    parts = ", ".join(f"{count:,} by snapshot {number}" for number, count in summary.by_snapshot.items()) or "none"
    say(f"{collection}: {summary.queries:,} queries in the last {hours:g} hours; answered: {parts}")
    say("The last minute may be missing: a running service writes its log every minute, or at once on SIGHUP.")
    if not summary.compared:
        say("No query was compared with a candidate. To do so, run isospace serve --shadow candidate --log SHARE.")
        return
    agreement = f"top-10 overlap {summary.overlap:.4f}, rank-biased overlap {summary.rbo:.4f}"
    say(f"A candidate also answered {len(summary.compared):,} of them: {agreement}")
    for query in summary.compared[:_MOST_QUERIES]:
        say(_comparison(query))


def _comparison(query: LoggedAnswer) -> str:
    text = shortened(query.text, 70) if query.text is not None else query.query_sha256[:16]
    agreement = f"rbo {query.rbo:.3f}  overlap {query.overlap:.1f}"
    return f"  {agreement}  snapshots {query.snapshot} and {query.candidate}  {text}"


def _print_audit(store: Store, record: AuditRecord) -> None:
    from isospace.operations.audit.checks import HEAD, skipped, summary
    from isospace.storage.openable import report_address

    title = f"{record.collection}, {record.alias}: snapshot {record.snapshot}"
    if record.checks:
        run = [check.row()[:4] for check in record.checks if check.verdict != "not run"]
        print_table(HEAD[:4], run, title=title, whole=HEAD[:4])
        say(summary(record.checks))
        for reason, names in skipped(record.checks).items():
            say(f"Not run: {', '.join(names)}: {reason}.")
    if not record.alarms:
        say(f"{record.describe()}.")
    for alarm in record.alarms:
        say(f"Alarm: {alarm.describe()}")
    if not record.checks:
        for note in record.notes:
            say(f"Note: {note}.")
    if record.report:
        say(f"report: {report_address(store, record.report)}")
