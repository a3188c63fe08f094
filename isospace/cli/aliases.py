"""The commands of aliases: aliases, promote, rollback, hold, release."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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
from isospace.errors import ConfigError, NotFoundError

if TYPE_CHECKING:
    from isospace.collection.snapshot import Manifest
    from isospace.storage.store import Store

AuthorOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who does this, recorded in the history of the alias. Default: the login name."),
]
AliasArgument = Annotated[str, typer.Argument(metavar="ALIAS", help="The alias.")]


def aliases(
    store: StoreArgument,
    collection: CollectionArgument,
    remove: Annotated[
        str | None, typer.Option(metavar="NAME", help="Remove this alias instead; no snapshot is removed.")
    ] = None,
    reason: ReasonOption = "",
    author: AuthorOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove production too, which searches use if they name no alias.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the aliases of a collection: which snapshot each names, since when and why, and whether it is held."""
    from isospace.collection.alias import alias_states
    from isospace.collection.find_snapshot import require_snapshots
    from isospace.storage.store import open_store

    opened = open_store(store)
    require_snapshots(opened, collection)
    if remove is not None:
        _remove(opened, collection, remove, reason=reason, author=author, yes=yes, as_json=as_json)
        return
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


def _remove(
    store: Store, collection: str, alias: str, *, reason: str, author: str | None, yes: bool, as_json: bool
) -> None:
    from isospace.collection.remove_alias import remove_alias
    from isospace.operations.maintenance.retention import why_retained
    from isospace.storage.paths import checked_name

    checked_name(alias, "alias")
    if alias == "production" and not yes:
        raise ConfigError(
            "alias 'production': searches, services, and audits that name no alias use it, and fail without it until a "
            "run or `isospace promote` makes it again. Give --yes to remove it all the same."
        )
    removal = remove_alias(store, collection, alias, reason=reason, author=author)
    number, why = removal.snapshot, why_retained(store, collection, removal.snapshot)
    if as_json:
        print_json({**removal.model_dump(mode="json"), "snapshot_retained": why})
        return
    say(f"{alias} is removed; it named snapshot {number}")
    if why == "latest":
        say(
            f"Snapshot {number} is the latest, which a vacuum keeps. Run the configuration that you keep: that commits "
            "another one."
        )
    elif why:
        say(f"A vacuum keeps snapshot {number}: {why}.")
    else:
        say(f"`isospace vacuum` removes snapshot {number}, after its retention.")
    say(f"A run with `runtime.promote_to: {alias}` makes the alias again.")


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
    hold: Annotated[
        bool,
        typer.Option("--hold", help="Hold the alias at this snapshot, even if it is held at another. Needs --reason."),
    ] = False,
    author: AuthorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Move an alias to a snapshot that passed its gate."""
    from isospace.collection.alias import held_message, resolve
    from isospace.evaluation.gate.verdicts import promote_judged
    from isospace.storage.paths import checked_name
    from isospace.storage.store import open_store

    checked_name(alias, "alias")
    if hold and release:
        raise ConfigError("--hold and --release: expected one of them. --hold moves an alias that is held, too.")
    opened = open_store(store)
    manifest = resolve(opened, collection, snapshot)
    moved = promote_judged(
        opened, collection, alias, manifest, reason=reason, force=force, release=release, hold=hold, author=author
    )
    held = held_message(opened, collection, alias)
    _print_move(alias, manifest.sequence, manifest.snapshot_id, moved=bool(moved), as_json=as_json, held=held)


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
    from isospace.collection.alias import alias_state, held_message
    from isospace.collection.alias import rollback as roll_back
    from isospace.storage.store import open_store

    opened = open_store(store)
    state = alias_state(opened, collection, alias)
    left = state.current.snapshot if state is not None else None
    entry = roll_back(opened, collection, alias, reason=reason, hold=not no_hold, author=author)
    held = held_message(opened, collection, alias)
    _print_move(alias, entry.snapshot, entry.snapshot_id, moved=True, as_json=as_json, held=held)
    if left is not None and (message := _same_space(opened, collection, alias, left, entry.snapshot)):
        warn(message)


def _same_space(store: Store, collection: str, alias: str, left: int, number: int) -> str:
    """Return that a rollback led to another snapshot of the same space, and to which one it did not lead."""
    from isospace.collection.alias_entry import promote_command
    from isospace.collection.snapshot import read_manifest, sequences

    there = sequences(store, collection)
    space_id = read_manifest(store, collection, number).space_id
    if left not in there or read_manifest(store, collection, left).space_id != space_id:
        return ""
    earlier = (read_manifest(store, collection, n) for n in reversed(there) if n < number)
    other = next((manifest for manifest in earlier if manifest.space_id != space_id), None)
    if other is None:
        return ""
    command = promote_command(store, collection, alias, other.sequence, hold=True)
    return (
        f"snapshot {number} has the same model and transform as snapshot {left}. The last one before with others is "
        f"{other.sequence}; if you want that: {command}"
    )


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
    from isospace.collection.alias_refusals import stays_message
    from isospace.collection.find_snapshot import require_snapshots
    from isospace.collection.snapshot import read_manifest
    from isospace.storage.store import open_store

    opened = open_store(store)
    numbers = require_snapshots(opened, collection)
    entry = release_alias(opened, collection, alias, reason=reason, author=author)
    state = alias_state(opened, collection, alias)
    if state is None:
        raise NotFoundError(
            f"alias {alias!r} of collection {collection!r}: names no snapshot in {opened.url}, and cannot be held. "
            "`isospace status` lists the collections and aliases of a store."
        )
    # After the release, which a damaged snapshot must not prevent.
    number, latest = state.current.snapshot, read_manifest(opened, collection, numbers[-1])
    stays = stays_message(opened, collection, alias, latest)
    if as_json:
        print_json({"alias": alias, "released": entry is not None, "snapshot": number, "stays": stays})
        return
    say(f"{alias} {'is released' if entry is not None else 'was not held'}, and names snapshot {number}")
    if latest.sequence > number:
        say(f"The latest snapshot is {latest.sequence}. {_next_run(alias, latest, stays)}")
        if latest.space_id != read_manifest(opened, collection, number).space_id:
            warn(
                f"snapshot {latest.sequence} has another space than snapshot {number}. If its model or transform was "
                "the reason for the hold, correct the configuration and run it before any other run moves the alias."
            )


def _next_run(alias: str, latest: Manifest, stays: str) -> str:
    """Return what the next run does with an alias that is not held, if it finds nothing new."""
    if stays:
        return f"If the next run finds nothing new, {stays}"
    judged = ", if it passes its gate" if latest.recipe.get("gate", {}).get("rules") else ""
    return f"A run moves {alias} to it{judged}."


def _print_move(alias: str, number: int, snapshot_id: str, *, moved: bool, as_json: bool, held: str = "") -> None:
    if as_json:
        print_json({"alias": alias, "snapshot": number, "snapshot_id": snapshot_id, "moved": moved, "held": held})
    else:
        say(f"{alias} {'is now' if moved else 'was already'} snapshot {number} ({snapshot_id[:16]}…)")
        if held:
            say(held)
