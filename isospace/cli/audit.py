"""The commands that watch what is served: audit, answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.table import Table

from isospace.cli.common import (
    OUT,
    AliasOption,
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    StoreArgument,
    engine_of,
    fail,
    print_json,
    shortened,
)
from isospace.storage.store import open_store


def audit(
    store: StoreArgument,
    collection: CollectionArgument,
    name: Annotated[str | None, typer.Option("--set", metavar="NAME", help="Frozen queries that are asked.")] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="From where on a figure is an alarm; may be repeated."),
    ] = None,
    hours: Annotated[float, typer.Option(min=0, help="How far back logged answers are read.")] = 24.0,
    alias: AliasOption = "production",
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure what an alias names, and keep outcome and report; exit status 1 for alarms. The flow of that name is scheduled."""
    from isospace.evaluation.reports.page import figure
    from isospace.operations.audit.run_audit import run_audit
    from isospace.operations.audit.thresholds import parse_thresholds

    opened, limits = open_store(store), parse_thresholds(threshold or [])
    engine = engine_of(backend, device)
    record = run_audit(opened, collection, alias, limits, set_name=name, log_hours=hours, engine=engine)
    if as_json:
        print_json(record.model_dump(mode="json", exclude={"baseline"}))
    else:
        table = Table("alarm", "found", "limit", "what", title=f"{collection}, {alias}: snapshot {record.snapshot}")
        for one in record.alarms:
            table.add_row(one.name, figure(one.figure), figure(one.limit), f"{one.message} {one.remedy}")
        OUT.print(table if record.alarms else f"{record.describe()}.")
        for note in record.notes:
            OUT.print(f"Note: {note}.")
        OUT.print(f"report: {record.report}")
    if record.alarms:
        fail(f"{len(record.alarms)} alarms: {', '.join(one.name for one in record.alarms)}.", status=1)


def answers(
    store: StoreArgument,
    collection: CollectionArgument,
    hours: Annotated[float, typer.Option(min=0, help="How far back.")] = 24.0,
    as_json: JsonOption = False,
) -> None:
    """Show what services have logged: by which snapshots, and how alike a candidate answered."""
    from isospace.operations.audit.query_log import read_answers

    found = read_answers(open_store(store), collection, since=datetime.now(UTC) - timedelta(hours=hours))
    compared = [one for one in found if one.overlap is not None and one.rbo is not None]
    body = {
        "answers": len(found),
        "by snapshot": {
            str(number): sum(one.snapshot == number for one in found) for number in {one.snapshot for one in found}
        },
        "compared": len(compared),
        "overlap": sum(one.overlap or 0.0 for one in compared) / len(compared) if compared else None,
        "rbo": sum(one.rbo or 0.0 for one in compared) / len(compared) if compared else None,
    }
    if as_json:
        print_json(body)
        return
    OUT.print(f"{collection}: {len(found):,} answers in {hours:g} hours, by snapshot: {body['by snapshot']}")
    if not compared:
        OUT.print("none was compared with a candidate: serve with --shadow candidate --log SHARE")
        return
    figures = f"top-10 overlap {body['overlap']:.4f}, rank-biased overlap {body['rbo']:.4f}"
    OUT.print(f"{len(compared):,} were asked of a candidate too: {figures}")
    for one in sorted(compared, key=lambda one: (one.rbo or 0.0, one.query_sha256))[:10]:
        name = shortened(one.text, 70) if one.text is not None else one.query_sha256[:16]
        OUT.print(
            f"  rbo {one.rbo:.3f}  overlap {one.overlap:.1f}  snapshot {one.snapshot} and {one.candidate}  {name}"
        )
