"""Aliases: movable names for snapshots, each stored as an append-only history."""

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
    """One move of an alias; `forced` holds the objections of the gate to a forced promotion."""

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
    """Return the moves of an alias, oldest first; empty if the alias does not exist."""
    return read_all(store, CollectionPaths(collection).alias(alias), AliasEntry)


def aliases(store: Store, collection: str) -> dict[str, AliasEntry]:
    """Return the current entry of every alias of a collection."""
    histories = {name: alias_history(store, collection, name) for name in list_aliases(store, collection)}
    # A run that dies before the first move of an alias leaves a folder without entries.
    return {name: history[-1] for name, history in histories.items() if history}


def list_aliases(store: Store, collection: str) -> list[str]:
    """Return the names of the aliases of a collection, sorted, including any that never moved."""
    return [name for name in store.folders(CollectionPaths(collection).folder("aliases")) if is_name(name)]


def resolve(store: Store, collection: str, reference: str) -> Manifest:
    """Return the snapshot for an alias, a snapshot number, or the start of a snapshot_id.

    Raises
    ------
    ConfigError
        If the reference is not a text.
    NotFoundError
        If there is no such snapshot.
    IntegrityError
        If the snapshot of the alias was replaced by another.
    """
    if not isinstance(reference, str):
        raise ConfigError(
            f"alias {reference!r:.60}: is not a text; expected an alias, a snapshot number as text, or the first "
            f'digits of a snapshot ID. Write "{reference!s:.60}".'
        )
    history = alias_history(store, collection, reference)
    if not history:
        try:
            return find_manifest(store, collection, reference)
        except NotFoundError as error:
            known = ", ".join(list_aliases(store, collection)) or "none"
            raise NotFoundError(f"{error} Aliases: {known}.") from error
    entry = history[-1]
    manifest = read_manifest(store, collection, entry.snapshot)
    # An erasure replaces the snapshot before it moves the alias.
    if manifest.snapshot_id != entry.snapshot_id and not _is_replacement(store, entry, manifest):
        raise IntegrityError(
            f"alias {reference!r}: expected snapshot {entry.snapshot} to be {entry.snapshot_id[:16]}…, but it is "
            f"{manifest.snapshot_id[:16]}…. The snapshot was replaced: promote the snapshot that you want."
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
    expected: AliasEntry | None = None,
) -> AliasEntry | None:
    """Move an alias to a snapshot.

    Parameters
    ----------
    reason
        Recorded in the history.
    forward_only
        Do not move the alias if it has ever named this snapshot or a later one. A slow run then cannot undo a fast one,
        and no run can undo a rollback.
    forced
        Objections of the gate to a forced promotion, recorded in the history.
    expected
        Move the alias only if this is its last move, so that nobody's later move is undone.

    Returns
    -------
    AliasEntry or None
        None if the alias was not moved.

    Raises
    ------
    ConfigError
        If the name of the alias is a number.
    """
    if alias.isdecimal():
        raise ConfigError(f"alias {alias!r}: expected a name that is not a number, since numbers name snapshots.")
    return _append(
        store,
        collection,
        alias,
        manifest,
        action="promote",
        reason=reason,
        forward_only=forward_only,
        forced=forced,
        expected=expected,
    )


def rollback(store: Store, collection: str, alias: str, *, reason: str) -> AliasEntry:
    """Move an alias back to its previous snapshot.

    Raises
    ------
    NotFoundError
        If the alias has no previous snapshot.
    """
    history = alias_history(store, collection, alias)
    earlier = previous_entry(follow_replacements(store, collection, history))
    if earlier is None:
        state = (
            f"is at snapshot {history[-1].snapshot}, the first it named" if history else "has never named a snapshot"
        )
        known = ", ".join(aliases(store, collection)) or "none"
        raise NotFoundError(
            f"alias {alias!r} of collection {collection!r} {state}: no earlier snapshot to go back to. Promote the "
            f"snapshot that you want. Aliases: {known}."
        )
    manifest = read_manifest(store, collection, earlier.snapshot)
    entry = _append(store, collection, alias, manifest, action="rollback", reason=reason)
    return entry or earlier


def previous_entry(history: list[AliasEntry]) -> AliasEntry | None:
    """Return the entry to which a rollback would return; None if there is none.

    The history is evaluated as a stack, so that two rollbacks go back two snapshots. A promotion to the same content in
    other files, as after a compaction, replaces the top of the stack.
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
    """A snapshot that was rewritten without forgotten documents.

    Attributes
    ----------
    old, old_id
        Number and snapshot_id before.
    new, new_id
        Number and snapshot_id after. The number is the same, except in older records.
    earlier
        Snapshot IDs that the number had before `old_id`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    old: int
    old_id: str
    new: int
    new_id: str
    earlier: tuple[str, ...] = ()

    def replaces(self, entry: AliasEntry) -> bool:
        """Return whether an entry names a snapshot as it was before."""
        return entry.snapshot == self.old and entry.snapshot_id in (self.old_id, *self.earlier)


def record_replacement(store: Store, old: Manifest, new: Manifest) -> None:
    """Record, before a snapshot is replaced in place, what it is replaced with."""
    if old.snapshot_id == new.snapshot_id:
        # The forgotten documents were deleted before: the content is the same, in other files.
        return
    known = _replacements(store, old.collection).get(old.sequence)
    earlier = {*known.earlier, known.old_id} if known is not None and known.new == known.old else set()
    replacement = Replacement(
        old=old.sequence,
        old_id=old.snapshot_id,
        new=new.sequence,
        new_id=new.snapshot_id,
        earlier=tuple(sorted(earlier - {old.snapshot_id, new.snapshot_id})),
    )
    store.write(numbered(old.paths.replacements, old.sequence), seal(replacement.model_dump(mode="json")))


def follow_replacements(store: Store, collection: str, history: list[AliasEntry]) -> list[AliasEntry]:
    """Return a history in which every replaced snapshot is exchanged for its replacement.

    If a snapshot was removed, but another one of the same content (as after a compaction) was replaced, the entry
    names that one's replacement.
    """
    by_number = _replacements(store, collection)
    by_content = {old: record for record in by_number.values() for old in (record.old_id, *record.earlier)}
    result = []
    for entry in history:
        current = entry
        while (replacement := _replacement_of(current, by_number, by_content)) is not None:
            current = current.model_copy(update={"snapshot": replacement.new, "snapshot_id": replacement.new_id})
        result.append(current)
    return result


def _replacement_of(
    entry: AliasEntry, by_number: dict[int, Replacement], by_content: dict[str, Replacement]
) -> Replacement | None:
    own = by_number.get(entry.snapshot)
    return own if own is not None and own.replaces(entry) else by_content.get(entry.snapshot_id)


def _replacements(store: Store, collection: str) -> dict[int, Replacement]:
    records = read_all(store, CollectionPaths(collection).replacements, Replacement)
    return {record.old: record for record in records}


def _is_replacement(store: Store, entry: AliasEntry, manifest: Manifest) -> bool:
    (followed,) = follow_replacements(store, manifest.collection, [entry])
    return (followed.snapshot, followed.snapshot_id) == (manifest.sequence, manifest.snapshot_id)


def parse_time(at: str) -> float:
    """Return the time of an entry in seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()


def _was_passed(history: list[AliasEntry], manifest: Manifest) -> bool:
    """Return whether an alias has named this snapshot or a later one, or left its content by a rollback."""
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
    expected: AliasEntry | None = None,
) -> AliasEntry | None:
    def make(number: int) -> AliasEntry | None:
        history = alias_history(store, collection, alias)
        if expected is not None and (not history or history[-1] != expected):
            return None
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

    paths = CollectionPaths(collection)
    entry = append(store, paths.alias(alias), make)
    # Moving an alias takes no lease, and a vacuum may have removed the snapshot since it was looked up. A vacuum
    # deletes manifests first, and then looks for aliases that name them: at least one of the two sees the other.
    if entry is not None and not store.exists(paths.snapshot(manifest.sequence)):
        store.delete(numbered(paths.alias(alias), entry.number))
        raise NotFoundError(
            f"alias {alias!r}: snapshot {manifest.sequence} of collection {collection!r} was removed while the alias "
            "moved to it. The alias is where it was. Promote a snapshot that isospace status lists."
        )
    return entry
