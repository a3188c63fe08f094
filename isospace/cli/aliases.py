"""The commands that move aliases: promote, rollback."""

from __future__ import annotations

from typing import Annotated

import typer

from isospace.cli.common import (
    AliasOption,
    CollectionArgument,
    JsonOption,
    ReasonOption,
    SnapshotOption,
    StoreArgument,
)
from isospace.cli.terminal import print_json, say


def promote(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption,
    alias: AliasOption = "production",
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Promote a snapshot that its gate rejected. Needs --reason.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Move an alias to a snapshot that passed its gate."""
    from isospace.collection.alias import resolve
    from isospace.evaluation.gate.verdicts import promote_judged
    from isospace.storage.paths import checked_name
    from isospace.storage.store import open_store

    checked_name(alias, "alias")
    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    moved = promote_judged(opened, collection, alias, manifest, reason=reason, force=force)
    _print_move(alias, manifest.sequence, manifest.snapshot_id, moved=bool(moved), as_json=as_json)


def rollback(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: AliasOption = "production",
    reason: ReasonOption = "",
    as_json: JsonOption = False,
) -> None:
    """Move an alias back to the snapshot it named before."""
    from isospace.collection.alias import rollback as roll_back
    from isospace.storage.store import open_store

    entry = roll_back(open_store(store), collection, alias, reason=reason)
    _print_move(alias, entry.snapshot, entry.snapshot_id, moved=True, as_json=as_json)


def _print_move(alias: str, number: int, snapshot_id: str, *, moved: bool, as_json: bool) -> None:
    if as_json:
        print_json({"alias": alias, "snapshot": number, "snapshot_id": snapshot_id, "moved": moved})
    else:
        say(f"{alias} {'is now' if moved else 'was already'} snapshot {number} ({snapshot_id[:16]}…)")
