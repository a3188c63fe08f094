"""Aliases: movable names for snapshots, each stored as an append-only history."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, overload

from isospace.collection.alias_entry import (
    CANDIDATE,
    AliasEntry,
    describe_hold,
    held_by,
    login_name,
    new_entry,
    release_command,
)
from isospace.collection.alias_log import is_ended, read_log, read_removal
from isospace.collection.alias_moves import has_moved, previous_entry, was_passed
from isospace.collection.alias_refusals import number_error, removed_error
from isospace.collection.find_snapshot import find_manifest, require_snapshots
from isospace.collection.replacements import follow_replacements
from isospace.collection.snapshot import Manifest, read_manifest
from isospace.errors import ConfigError, HeldError, IntegrityError, NotFoundError
from isospace.storage.numbered_log import append
from isospace.storage.paths import CollectionPaths, is_name, numbered
from isospace.storage.store import Store


def alias_history(store: Store, collection: str, alias: str) -> list[AliasEntry]:
    """Return the moves of an alias, oldest first; empty if the alias does not exist or was removed."""
    return read_log(store, collection, alias)


@dataclass(frozen=True, slots=True)
class AliasState:
    """Where an alias is.

    Attributes
    ----------
    current
        The last entry of its history; names the snapshot.
    moved
        The entry of its last move.
    holding
        The entry that began its hold; None if it is not held.
    """

    current: AliasEntry
    moved: AliasEntry
    holding: AliasEntry | None

    def held_message(self, store: Store, collection: str) -> str:
        """Return that the alias is held, where, why, by whom, since when, and the remedy; empty if it is not held."""
        if self.holding is None:
            return ""
        command = release_command(store, collection, self.current.alias)
        return f"{describe_hold(self.holding, self.current.snapshot)}; release it with `{command}`"


def alias_states(store: Store, collection: str) -> dict[str, AliasState]:
    """Return the state of every alias of a collection."""
    states = {name: alias_state(store, collection, name) for name in list_aliases(store, collection)}
    # A removal leaves the folder, and so does a run that dies before the first move.
    return {name: state for name, state in states.items() if state is not None}


def alias_state(store: Store, collection: str, alias: str) -> AliasState | None:
    """Return the state of an alias; None if it names no snapshot, because it never moved or was removed."""
    history = alias_history(store, collection, alias)
    if not history:
        return None
    moved = next((entry for entry in reversed(history) if entry.is_move), history[-1])
    return AliasState(history[-1], moved, held_by(history))


def aliases(store: Store, collection: str) -> dict[str, AliasEntry]:
    """Return the current entry of every alias of a collection."""
    return {name: state.current for name, state in alias_states(store, collection).items()}


def list_aliases(store: Store, collection: str) -> list[str]:
    """Return the names of the aliases of a collection, sorted, including any that never moved or were removed."""
    return [name for name in store.folders(CollectionPaths(collection).folder("aliases")) if is_name(name)]


def reference_text(reference: str | int) -> str:
    """Return a reference to a snapshot as text; ConfigError if it is neither a text nor a number."""
    if isinstance(reference, int) and not isinstance(reference, bool):
        return str(reference)
    if not isinstance(reference, str):
        raise ConfigError(
            f"alias {reference!r:.60}: is neither a text nor a number; expected an alias, a snapshot number, or the "
            "first digits of a snapshot ID."
        )
    return reference


def resolve(store: Store, collection: str, reference: str | int) -> Manifest:
    """Return the snapshot for an alias, a snapshot number, or the start of a snapshot_id.

    Raises
    ------
    ConfigError
        If the reference is neither a text nor a number.
    NotFoundError
        If there is no such snapshot.
    IntegrityError
        If the snapshot of the alias was replaced by another.
    """
    reference = reference_text(reference)
    history = alias_history(store, collection, reference)
    if not history:
        try:
            return find_manifest(store, collection, reference)
        except NotFoundError as error:
            # Without a snapshot there is no alias to list: the collection itself is the mistake.
            require_snapshots(store, collection)
            known = ", ".join(aliases(store, collection)) or "none"
            removal = read_removal(store, collection, reference) if is_name(reference) else None
            if removal is not None:
                raise NotFoundError(
                    f"alias {reference!r} of collection {collection!r}: was removed at {removal.at} by "
                    f"{removal.author}, when it named snapshot {removal.snapshot}. Aliases: {known}."
                ) from error
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
    release: bool = False,
    hold: bool = False,
    author: str = "",
) -> AliasEntry | None:
    """Move an alias to a snapshot.

    Parameters
    ----------
    reason
        Recorded in the history.
    forward_only
        Do not move the alias if it is held, or has ever named this snapshot or a later one. A slow run then cannot undo
        a fast one, and no run can undo a rollback.
    forced
        Objections of the gate to a forced promotion, recorded in the history.
    expected
        Move the alias only if it has not moved since this entry, so that nobody's later move is undone. For the same
        content in other files: a hold does not prevent it.
    release
        Move the alias even if it is held, and end the hold.
    hold
        Move the alias even if it is held, and hold it at this snapshot.
    author
        Who moves the alias, recorded in the history; empty for a run.

    Returns
    -------
    AliasEntry or None
        None if the alias was not moved.

    Raises
    ------
    ConfigError
        If the name of the alias is a number, or if it cannot be held for this reason.
    HeldError
        If the alias is held, and neither `forward_only`, `expected`, `release`, nor `hold` is given.
    """
    if alias.isdecimal():
        raise ConfigError(f"alias {alias!r}: expected a name that is not a number, since numbers name snapshots.")
    if hold:
        _require_holdable(alias, reason)

    def make(number: int) -> AliasEntry | None:
        history = alias_history(store, collection, alias)
        if expected is not None and has_moved(history, since=expected):
            return None
        holding = held_by(history)
        if holding is not None and expected is None and not release and not hold:
            if forward_only:
                return None
            raise _held_error(store, collection, AliasState(history[-1], history[-1], holding))
        current = (history[-1].snapshot, history[-1].snapshot_id) if history else None
        ends = release and holding is not None and not hold
        if current == (manifest.sequence, manifest.snapshot_id) and not ends and not hold:
            return None
        if forward_only and was_passed(follow_replacements(store, collection, history), manifest):
            return None
        held = True if hold else False if ends else None
        return new_entry(alias, number, "promote", manifest, reason, forced=forced, author=author, hold=held)

    return _append(store, collection, alias, manifest, make)


def rollback(
    store: Store, collection: str, alias: str, *, reason: str, hold: bool = True, author: str | None = None
) -> AliasEntry:
    """Move an alias back to its previous snapshot, and hold it there until it is released.

    Parameters
    ----------
    reason
        Recorded in the history.
    hold
        Whether to hold the alias, so that no run moves it. The alias `candidate` is never held. An alias that is held
        already stays held.
    author
        Who rolls back; by default, the login name.

    Raises
    ------
    NotFoundError
        If the alias has no previous snapshot, or if it was removed.
    """
    history = alias_history(store, collection, alias)
    earlier = previous_entry(follow_replacements(store, collection, history))
    numbers = require_snapshots(store, collection)
    if earlier is None:
        state = (
            f"is at snapshot {history[-1].snapshot}, the first it named" if history else "has never named a snapshot"
        )
        known = ", ".join(aliases(store, collection)) or "none"
        raise NotFoundError(
            f"alias {alias!r} of collection {collection!r} {state}: no earlier snapshot to go back to. Promote the "
            f"snapshot that you want. Aliases: {known}."
        )
    if earlier.snapshot not in numbers:
        current = history[-1].snapshot
        raise removed_error(store, collection, alias, earlier.snapshot, current=current, numbers=numbers)
    manifest = read_manifest(store, collection, earlier.snapshot)
    holds = True if hold and alias != CANDIDATE else None
    who = login_name() if author is None else author

    def make(number: int) -> AliasEntry:
        return new_entry(alias, number, "rollback", manifest, reason, author=who, hold=holds)

    return _append(store, collection, alias, manifest, make)


def hold(store: Store, collection: str, alias: str, *, reason: str, author: str | None = None) -> AliasEntry:
    """Hold an alias where it is: runs commit and judge, but do not move it until it is released.

    A promotion that has begun does not move it either, since both write the next entry of one history. An alias that is
    held already gets the new reason.

    Parameters
    ----------
    reason
        Why; shown wherever the alias is not moved.
    author
        Who holds it; by default, the login name.

    Raises
    ------
    ConfigError
        If there is no reason, or if the alias is `candidate`, which every gate moves.
    NotFoundError
        If the alias names no snapshot.
    """
    numbers = require_snapshots(store, collection)
    if alias.isdecimal():
        raise number_error(store, collection, int(alias), numbers)
    _require_holdable(alias, reason)
    entry = _append_beside(store, collection, alias, "hold", reason=reason, author=author)
    if entry is None:
        known = ", ".join(aliases(store, collection)) or "none"
        raise NotFoundError(
            f"alias {alias!r} of collection {collection!r}: names no snapshot to be held at. Aliases: {known}."
        )
    return entry


def _require_holdable(alias: str, reason: str) -> None:
    if alias == CANDIDATE:
        raise ConfigError(f"alias {alias!r}: every gate moves it to the snapshot that it judges. Hold another alias.")
    if not reason.strip():
        raise ConfigError("a hold needs a reason, which every run shows. Give it with --reason.")


def release(
    store: Store, collection: str, alias: str, *, reason: str = "", author: str | None = None
) -> AliasEntry | None:
    """End the hold of an alias, so that runs move it again; return None if it was not held.

    Parameters
    ----------
    reason
        Recorded in the history.
    author
        Who releases it; by default, the login name.
    """
    return _append_beside(store, collection, alias, "release", reason=reason, author=author)


def _append_beside(
    store: Store, collection: str, alias: str, action: Literal["hold", "release"], *, reason: str, author: str | None
) -> AliasEntry | None:
    """Append an entry that repeats the snapshot of the alias; None if there is nothing to hold or to release."""

    def make(number: int) -> AliasEntry | None:
        history = alias_history(store, collection, alias)
        if not history or (action == "release" and held_by(history) is None):
            return None
        changes = {
            "number": number,
            "action": action,
            "reason": reason,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "author": login_name() if author is None else author,
            "hold": action == "hold",
        }
        return history[-1].model_copy(update=changes)

    return append(store, CollectionPaths(collection).alias(alias), make)


def held_message(store: Store, collection: str, alias: str | None) -> str:
    """Return in a sentence that an alias is held, and how to release it; empty if it is not held."""
    state = alias_state(store, collection, alias) if alias is not None else None
    return state.held_message(store, collection) if state is not None else ""


def require_released(store: Store, collection: str, alias: str) -> None:
    """Raise HeldError if an alias is held."""
    state = alias_state(store, collection, alias)
    if state is not None and state.holding is not None:
        raise _held_error(store, collection, state)


def _held_error(store: Store, collection: str, state: AliasState) -> HeldError:
    return HeldError(f"{state.held_message(store, collection)}, or promote with --release.")


def _is_replacement(store: Store, entry: AliasEntry, manifest: Manifest) -> bool:
    (followed,) = follow_replacements(store, manifest.collection, [entry])
    return (followed.snapshot, followed.snapshot_id) == (manifest.sequence, manifest.snapshot_id)


def parse_time(at: str) -> float:
    """Return the time of an entry in seconds since the epoch."""
    return datetime.fromisoformat(at).timestamp()


@overload
def _append(
    store: Store, collection: str, alias: str, manifest: Manifest, make: Callable[[int], AliasEntry]
) -> AliasEntry: ...
@overload
def _append(
    store: Store, collection: str, alias: str, manifest: Manifest, make: Callable[[int], AliasEntry | None]
) -> AliasEntry | None: ...
def _append(
    store: Store, collection: str, alias: str, manifest: Manifest, make: Callable[[int], AliasEntry | None]
) -> AliasEntry | None:
    paths = CollectionPaths(collection)
    entry = append(store, paths.alias(alias), make)
    # Moving an alias takes no lease, and a vacuum may have removed the snapshot since it was looked up. A vacuum
    # deletes manifests first, and then looks for aliases that name them: at least one of the two sees the other.
    if entry is not None and not store.exists(paths.snapshot(manifest.sequence)):
        # An entry that a removal ended stays: its number must not be given to another.
        if not is_ended(store, collection, alias, entry.number):
            store.delete(numbered(paths.alias(alias), entry.number))
        raise NotFoundError(
            f"alias {alias!r}: snapshot {manifest.sequence} of collection {collection!r} was removed while the alias "
            "moved to it. The alias is where it was. Promote a snapshot that isospace status lists."
        )
    return entry
