"""The log of an alias: its moves, and the records that end it.

A record of a removal lies beside the entries, under the number of the last entry that it ends. Entries after it begin
the alias anew. Versions that know no removals do not look there: for them, the alias still names its last snapshot.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from isospace.collection.alias_entry import AliasEntry
from isospace.storage.hashing import seal, unseal
from isospace.storage.paths import CollectionPaths, number_of, numbered
from isospace.storage.store import Store


class AliasRemoval(BaseModel):
    """The end of an alias.

    Attributes
    ----------
    number
        The last entry that it ends.
    snapshot, snapshot_id
        What the alias named.
    author
        Who removed it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    alias: str
    number: int
    snapshot: int
    snapshot_id: str
    reason: str
    at: str
    author: str


def read_log(store: Store, collection: str, alias: str, *, removed: bool = False) -> list[AliasEntry]:
    """Return the entries of an alias, oldest first: those since its last removal, or all of them if `removed`.

    Raises
    ------
    IntegrityError
        If an entry was changed after it was written.
    """
    paths = CollectionPaths(collection)
    # One listing finds both: services look at an alias every few seconds.
    numbers = {stat.path: number_of(stat.path) or 0 for stat in store.walk(paths.alias(alias))}
    ended = max((n for path, n in numbers.items() if path == paths.alias_removal(alias, n)), default=0)
    first = 1 if removed else ended + 1
    entries = sorted((n, path) for path, n in numbers.items() if path == numbered(paths.alias(alias), n) and n >= first)
    return [AliasEntry.model_validate(unseal(store.read(path), name=path)) for _, path in entries]


def read_removal(store: Store, collection: str, alias: str) -> AliasRemoval | None:
    """Return the last removal of an alias; None if it was never removed."""
    paths = CollectionPaths(collection)
    numbers = [number_of(stat.path) or 0 for stat in store.walk(paths.alias_removals(alias))]
    if not numbers:
        return None
    path = paths.alias_removal(alias, max(numbers))
    return AliasRemoval.model_validate(unseal(store.read(path), name=path))


def is_ended(store: Store, collection: str, alias: str, number: int) -> bool:
    """Return whether a removal ended an alias at this entry."""
    return store.exists(CollectionPaths(collection).alias_removal(alias, number))


def record_removal(store: Store, collection: str, removal: AliasRemoval) -> bool:
    """Record the end of an alias; return False if another removal ended the same entry first."""
    path = CollectionPaths(collection).alias_removal(removal.alias, removal.number)
    return store.create_if_absent(path, seal(removal.model_dump(mode="json")))
