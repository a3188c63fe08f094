"""The commands of aliases: aliases, promote, rollback, hold, release."""

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
    print_table,
    warn,
)
from isospace.cli.terminal import print_json, say
from isospace.errors import NotFoundError

AuthorOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who does this, recorded in the history of the alias. Default: the login name."),
]
AliasArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.")]


def aliases(store: StoreArgument, collection: CollectionArgument, as_json: JsonOption = False) -> None:
    """List the aliases of a collection: which snapshot each names, since when and why, and whether it is held."""
    from isospace.collection.alias import alias_states
    from isospace.storage.store import open_store

    opened = open_store(store)
    states = alias_states(opened, collection)
    if as_json:
        print_json(
            {
                name: {
                    "snapshot": state.current.snapshot,
                    "snapshot_id": state.current.snapshot_id,
                    "moved": state.moved.model_dump(mode="json"),
                    "held": state.holding.model_dump(mode="json") if state.holding is not None else None,
                }
                for name, state in states.items()
            }
        )
        return
    rows = [
        (name, str(state.current.snapshot), state.moved.at, state.moved.action, state.moved.author, state.moved.reason)
        for name, state in states.items()
    ]
    header = ("alias", "snapshot", "since", "move", "author", "reason")
    print_table(header, rows, title=collection, whole=header[:4])
    for state in states.values():
        if message := state.held_message(opened, collection):
            say(message)


def promote(
    store: StoreArgument,
    collection: CollectionArgument,
    snapshot: SnapshotOption,
    alias: AliasOption = "production",
    reason: ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Promote a snapshot that its gate rejected. Needs --reason.")
    ] = False,
    release: Annotated[bool, typer.Option("--release", help="Move an alias that is held, and end the hold.")] = False,
    author: AuthorOption = None,
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
    moved = promote_judged(
        opened, collection, alias, manifest, reason=reason, force=force, release=release, author=author
    )
    _print_move(alias, manifest.sequence, manifest.snapshot_id, moved=bool(moved), as_json=as_json)


def rollback(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: AliasOption = "production",
    reason: ReasonOption = "",
    author: AuthorOption = None,
    no_hold: Annotated[
        bool, typer.Option("--no-hold", help="Let the next run that has something new move the alias again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Move an alias back to the snapshot it named before, and hold it there until `isospace release`."""
    from isospace.collection.alias import held_message
    from isospace.collection.alias import rollback as roll_back
    from isospace.storage.store import open_store

    opened = open_store(store)
    entry = roll_back(opened, collection, alias, reason=reason, hold=not no_hold, author=author)
    held = held_message(opened, collection, alias)
    _print_move(alias, entry.snapshot, entry.snapshot_id, moved=True, as_json=as_json, held=held)


def hold(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: AliasArgument = "production",
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; every run that leaves the alias shows it.")] = "",
    author: AuthorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold an alias where it is: runs still commit and judge snapshots, but do not move it until `isospace release`."""
    from isospace.collection.alias import held_message
    from isospace.collection.alias import hold as hold_alias
    from isospace.storage.store import open_store

    opened = open_store(store)
    entry = hold_alias(opened, collection, alias, reason=reason, author=author)
    if as_json:
        print_json(entry.model_dump(mode="json"))
    else:
        say(held_message(opened, collection, alias))


def release(
    store: StoreArgument,
    collection: CollectionArgument,
    alias: AliasArgument = "production",
    reason: ReasonOption = "",
    author: AuthorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Release an alias that is held, so that runs move it again."""
    from isospace.collection.alias import alias_state
    from isospace.collection.alias import release as release_alias
    from isospace.collection.snapshot import read_manifest, sequences
    from isospace.storage.store import open_store

    opened = open_store(store)
    entry = release_alias(opened, collection, alias, reason=reason, author=author)
    state = alias_state(opened, collection, alias)
    if state is None:
        raise NotFoundError(
            f"alias {alias!r} of collection {collection!r}: names no snapshot in {opened.url}, and cannot be held. "
            "`isospace status` lists the collections and aliases of a store."
        )
    if as_json:
        print_json({"alias": alias, "released": entry is not None, "snapshot": state.current.snapshot})
        return
    number, latest = state.current.snapshot, max(sequences(opened, collection), default=0)
    say(f"{alias} {'is released' if entry is not None else 'was not held'}, and names snapshot {number}")
    if latest > number:
        say(f"The latest snapshot is {latest}. A run moves {alias} to it unless it was rolled back from there.")
        if read_manifest(opened, collection, latest).space_id != read_manifest(opened, collection, number).space_id:
            warn(
                f"snapshot {latest} has another space than snapshot {number}. If its model or transform was the reason "
                "for the hold, correct the configuration and run it before any other run moves the alias."
            )


def _print_move(alias: str, number: int, snapshot_id: str, *, moved: bool, as_json: bool, held: str = "") -> None:
    if as_json:
        print_json({"alias": alias, "snapshot": number, "snapshot_id": snapshot_id, "moved": moved, "held": held})
    else:
        say(f"{alias} {'is now' if moved else 'was already'} snapshot {number} ({snapshot_id[:16]}…)")
        if held:
            say(held)
