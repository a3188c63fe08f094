"""Decide which snapshots of a collection are retained, and which files they need."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from isospace.collection.alias import alias_history, list_aliases, parse_time
from isospace.collection.alias_log import read_removal
from isospace.collection.alias_moves import previous_entry
from isospace.collection.replacements import follow_replacements
from isospace.collection.snapshot import Manifest, read_manifest
from isospace.storage.local_files import Stat
from isospace.storage.paths import CollectionPaths, number_of
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class RetainedSnapshots:
    """The snapshots of one collection that are retained, and those that are not."""

    collection: str
    manifests: tuple[Manifest, ...]
    """Retained snapshots, oldest first."""
    reasons: dict[int, str]
    """Why each is retained, by number."""
    dropped: tuple[Stat, ...]
    """Manifest files of the other snapshots."""

    def files(self) -> set[str]:
        """Return the paths of all files of the retained snapshots."""
        return {ref.path for manifest in self.manifests for ref in manifest.files()}


def retained_snapshots(store: Store, collection: str, *, now: float, retention_seconds: float) -> RetainedSnapshots:
    """Decide which snapshots of a collection are retained.

    These are the latest one, those that an alias names, would be rolled back to, or named within the retention period,
    and those committed within it.

    Parameters
    ----------
    now
        Seconds since the epoch, by the store's clock.
    retention_seconds
        The retention period.

    Raises
    ------
    IntegrityError
        If the manifest of a retained snapshot cannot be read: its files are unknown then.
    """
    stats = _snapshot_files(store, CollectionPaths(collection))
    since = now - retention_seconds
    reasons = {number: "young" for number, stat in stats.items() if stat.modified >= since}
    for name in list_aliases(store, collection):
        named = _by_alias(store, collection, name, since)
        reasons |= {number: why for number, why in named.items() if number in stats}
    if stats:
        reasons.setdefault(max(stats), "latest")
    manifests = tuple(read_manifest(store, collection, number) for number in sorted(reasons))
    dropped = tuple(stat for number, stat in sorted(stats.items()) if number not in reasons)
    return RetainedSnapshots(collection, manifests, dict(sorted(reasons.items())), dropped)


def why_retained(store: Store, collection: str, number: int) -> str:
    """Return why a vacuum keeps a snapshot whatever its age is; empty if it does not."""
    return retained_snapshots(store, collection, now=math.inf, retention_seconds=0.0).reasons.get(number, "")


def _snapshot_files(store: Store, paths: CollectionPaths) -> dict[int, Stat]:
    numbers = ((number_of(stat.path), stat) for stat in store.walk(paths.folder("snapshots")))
    return {number: stat for number, stat in numbers if number is not None and stat.path == paths.snapshot(number)}


def _by_alias(store: Store, collection: str, alias: str, since: float) -> dict[int, str]:
    history = follow_replacements(store, collection, alias_history(store, collection, alias))
    reasons: dict[int, str] = {}
    removal = read_removal(store, collection, alias)
    if removal is not None and parse_time(removal.at) >= since:
        reasons[removal.snapshot] = f"{alias} named it until {removal.at}"
    for entry, following in pairwise(history):
        if parse_time(following.at) >= since:
            reasons[entry.snapshot] = f"{alias} named it until {following.at}"
    if (before := previous_entry(history)) is not None:
        reasons[before.snapshot] = f"{alias} would be rolled back to it"
    if history:
        reasons[history[-1].snapshot] = alias
    return reasons
