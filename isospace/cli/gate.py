"""The commands of the gate: gate, verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from isospace.cli.common import (
    AgainstOption,
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    engine_of,
    fail,
    print_table,
)
from isospace.cli.terminal import print_json, say

if TYPE_CHECKING:
    from isospace.evaluation.gate.verdicts import Verdict
    from isospace.storage.store import Store

_SIGNS = {True: "ok", False: "NO", None: "–"}


def gate(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption = "candidate",
    against: AgainstOption = "production",
    rules: Annotated[
        list[str] | None,
        typer.Option("--rule", metavar="RULE", help="Rule to use instead of those in the recipe. Repeatable."),
    ] = None,
    name: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="Evaluation set to use instead of the recipe's.")
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Judge again even if nothing has changed since the last verdict.")
    ] = False,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Judge a snapshot by the rules of its gate, and record the verdict; a rejection exits with status 1."""
    engine = engine_of(backend, device)
    from isospace.collection.alias import resolve
    from isospace.evaluation.gate.run_gate import gate_snapshot, require_baseline
    from isospace.evaluation.gate.spec import gate_spec
    from isospace.storage.run_id import new_run_id
    from isospace.storage.store import open_store

    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    require_baseline(opened, collection, against)
    spec = gate_spec(manifest.recipe, rules=rules or (), set_name=name)
    verdict = gate_snapshot(opened, manifest, spec, against=against, run_id=new_run_id(), engine=engine, again=again)
    if as_json:
        print_json(verdict.model_dump(mode="json"))
    else:
        _print_verdict(opened, verdict)
    if not verdict.passed:
        failed, total = len(verdict.failed()), len(verdict.findings)
        fail(f"snapshot {verdict.snapshot} was rejected by {failed} of {total} rules.", status=1)


def verdicts(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption = "candidate",
    as_json: JsonOption = False,
) -> None:
    """Show the gate's verdicts on a snapshot."""
    from isospace.collection.alias import resolve
    from isospace.evaluation.gate.verdicts import read_verdicts
    from isospace.storage.store import open_store

    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    recorded = read_verdicts(opened, collection, manifest.snapshot_id)
    if as_json:
        print_json([verdict.model_dump(mode="json") for verdict in recorded])
        return
    if not recorded:
        say(f"snapshot {manifest.sequence} has not been judged yet")
    for verdict in recorded:
        _print_verdict(opened, verdict)


def _print_verdict(store: Store, verdict: Verdict) -> None:
    from isospace.storage.openable import report_address

    against = (
        f"against snapshot {verdict.against.snapshot}"
        if verdict.against
        else "without a production snapshot to compare with"
    )
    outcome = "passed" if verdict.passed else "was rejected"
    print_table(
        ("", "rule", "expected", "result"),
        [(_SIGNS[f.passed], f.rule, f.expected, f.detail) for f in verdict.findings],
        title=f"snapshot {verdict.snapshot} {outcome}, {against} ({verdict.at})",
    )
    for note in verdict.notes:
        say(f"Note: {note}.")
    if verdict.report:
        say(f"report: {report_address(store, verdict.report)}")
