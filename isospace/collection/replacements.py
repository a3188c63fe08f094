"""Snapshots that an erasure replaced in place: what they were, and where an entry of an alias leads since."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from isospace.collection.alias_entry import AliasEntry
from isospace.collection.snapshot import Manifest
from isospace.storage.hashing import seal
from isospace.storage.numbered_log import read_all
from isospace.storage.paths import CollectionPaths, numbered
from isospace.storage.store import Store


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
