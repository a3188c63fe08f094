"""Aliases: movable names for snapshots, kept as an append-only history."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal

from pydantic import BaseModel, ConfigDict

from isospace.collection.snapshot import Manifest, find_manifest, read_manifest
from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.storage.hashing import seal
from isospace.storage.numbered_log import append, read_all
from isospace.storage.paths import CollectionPaths, is_name, numbered
from isospace.storage.store import Store


class AliasEntry(BaseModel):
    """One move of an alias; `forced` is what the gate had against it, where it was moved all the same."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    alias: str
    number: int
    action: Literal["promote", "rollback"]
    snapshot: int
    snapshot_id: str
    reason: str
    at: str
    forced: str = ""


def alias_history(store: Store, collection: str, alias: str) -> list[AliasEntry]:
    """Return the moves of an alias, oldest first; empty if there is no such alias."""
    return read_all(store, CollectionPaths(collection).alias(alias), AliasEntry)


def aliases(store: Store, collection: str) -> dict[str, AliasEntry]:
    """Return the current entry of every alias of a collection."""
    histories = {name: alias_history(store, collection, name) for name in list_aliases(store, collection)}
    # A folder without an entry is what a run leaves that dies before its first move.
    return {name: history[-1] for name, history in histories.items() if history}


def list_aliases(store: Store, collection: str) -> list[str]:
    """Return the names of the aliases of a collection, sorted; one that never moved yet names nothing."""
    return [name for name in store.folders(CollectionPaths(collection).folder("aliases")) if is_name(name)]


def resolve(store: Store, collection: str, reference: str) -> Manifest:
    """Return the snapshot that an alias, a number or a snapshot_id stands for.

    Raises
    ------
    NotFoundError
        If it stands for none.
    """
    history = alias_history(store, collection, reference)
    if not history:
        try:
            return find_manifest(store, collection, reference)
        except NotFoundError as error:
            known = ", ".join(list_aliases(store, collection)) or "none"
            raise NotFoundError(f"{error} Aliases: {known}.") from error
    entry = history[-1]
    manifest = read_manifest(store, collection, entry.snapshot)
    if manifest.snapshot_id != entry.snapshot_id:
        raise IntegrityError(
            f"alias {reference!r}: names snapshot {entry.snapshot} as {entry.snapshot_id[:16]}…, which is "
            f"{manifest.snapshot_id[:16]}… now. The snapshot was replaced: promote the one you mean."
        )
    return manifest


def promote(
    store: Store,
    collection: str,
    alias: str,
    manifest: Manifest,
    *,
    reason: str,
    forward_only: bool = False,
    forced: str = "",
) -> AliasEntry | None:
    """Move an alias to a snapshot.

    Parameters
    ----------
    store, collection, alias
        Which alias.
    manifest
        The snapshot.
    reason
        Kept in the history.
    forward_only
        Leave the alias where it is if it has ever named this snapshot or a later one: a slow run does not undo a fast
        one, and no run undoes a rollback.
    forced
        What the gate has against it, if it is moved all the same; kept in the history.

    Returns
    -------
    AliasEntry or None
        None if the alias was not moved.
    """
    if alias.isdecimal():
        raise ConfigError(f"alias {alias!r}: expected a name that is no number, since a number names a snapshot.")
    return _append(
        store, collection, alias, manifest, action="promote", reason=reason, forward_only=forward_only, forced=forced
    )


def rollback(store: Store, collection: str, alias: str, *, reason: str) -> AliasEntry:
    """Move an alias back to the snapshot it named before the current one.

    Raises
    ------
    NotFoundError
        If the alias never named another snapshot.
    """
    history = alias_history(store, collection, alias)
    earlier = previous_entry(follow_replacements(store, collection, history))
    if earlier is None:
        now = f"is at snapshot {history[-1].snapshot}, the first it named" if history else "has never named a snapshot"
        known = ", ".join(aliases(store, collection)) or "none"
        raise NotFoundError(
            f"alias {alias!r} of collection {collection!r} {now}: no earlier snapshot to go back to. Name one with "
            f"promote. Aliases: {known}."
        )
    manifest = read_manifest(store, collection, earlier.snapshot)
    entry = _append(store, collection, alias, manifest, action="rollback", reason=reason)
    return entry or earlier


def previous_entry(history: list[AliasEntry]) -> AliasEntry | None:
    """Return what an alias would be rolled back to; the history is walked as a stack, so that two rollbacks go back two.

    A promotion to the same content in other files, as a compaction makes it, takes the place of what was there.
    """
    stack: list[AliasEntry] = []
    for entry in history:
        if entry.action == "rollback" and len(stack) > 1:
            stack.pop()
        elif entry.action == "promote" and stack and stack[-1].snapshot_id == entry.snapshot_id:
            stack[-1] = entry
        elif entry.action == "promote":
            stack.append(entry)
    return stack[-2] if len(stack) > 1 else None


class Replacement(BaseModel):
    """A snapshot that was written anew without documents that had to be forgotten, and what took its place."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    old: int
    old_id: str
    new: int
    new_id: str


def replace_snapshot(store: Store, old: Manifest, new: Manifest) -> None:
    """Note that a snapshot takes another's place in the histories of all aliases."""
    note = Replacement(old=old.sequence, old_id=old.snapshot_id, new=new.sequence, new_id=new.snapshot_id)
    store.write(numbered(old.paths.replacements, old.sequence), seal(note.model_dump(mode="json")))


def follow_replacements(store: Store, collection: str, history: list[AliasEntry]) -> list[AliasEntry]:
    """Return a history as if the snapshots that were replaced had been their replacements all along."""
    notes = read_all(store, CollectionPaths(collection).replacements, Replacement)
    known = {note.old: note for note in notes}
    result = []
    for entry in history:
        found = entry
        while (note := known.get(found.snapshot)) is not None and note.old_id == found.snapshot_id:
            found = found.model_copy(update={"snapshot": note.new, "snapshot_id": note.new_id})
        result.append(found)
    return result


def parse_time(at: str) -> float:
    """Return the time of an entry in seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()


def _was_passed(history: list[AliasEntry], manifest: Manifest) -> bool:
    """Tell whether an alias has named this snapshot or a later one, or was rolled back from this very content."""
    rolled_back = {left.snapshot_id for left, entry in pairwise(history) if entry.action == "rollback"}
    is_current = bool(history) and history[-1].snapshot_id == manifest.snapshot_id
    reached = any(entry.snapshot >= manifest.sequence for entry in history)
    return reached or (manifest.snapshot_id in rolled_back and not is_current)


def _append(
    store: Store,
    collection: str,
    alias: str,
    manifest: Manifest,
    *,
    action: Literal["promote", "rollback"],
    reason: str,
    forward_only: bool = False,
    forced: str = "",
) -> AliasEntry | None:
    def make(number: int) -> AliasEntry | None:
        history = alias_history(store, collection, alias)
        current = (history[-1].snapshot, history[-1].snapshot_id) if history else None
        if action == "promote" and current == (manifest.sequence, manifest.snapshot_id):
            return None
        if forward_only and _was_passed(follow_replacements(store, collection, history), manifest):
            return None
        return AliasEntry(
            alias=alias,
            number=number,
            action=action,
            snapshot=manifest.sequence,
            snapshot_id=manifest.snapshot_id,
            reason=reason,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            forced=forced,
        )

    return append(store, CollectionPaths(collection).alias(alias), make)
