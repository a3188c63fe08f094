"""What of a store is needed: the snapshots that stay, and everything that they name."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from isospace.collection.alias import alias_history, follow_replacements, list_aliases, parse_time, previous_entry
from isospace.collection.snapshot import Manifest, read_manifest
from isospace.storage.local_files import Stat
from isospace.storage.paths import CollectionPaths, number_of
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class Kept:
    """The snapshots of one collection, those that stay and those that go.

    Attributes
    ----------
    collection
        Its name.
    manifests
        Those that stay, oldest first.
    reasons
        Why, by number.
    dropped
        The files of the others.
    """

    collection: str
    manifests: tuple[Manifest, ...]
    reasons: dict[int, str]
    dropped: tuple[Stat, ...]

    def files(self) -> set[str]:
        """Return the path of every file that the kept snapshots consist of."""
        return {ref.path for manifest in self.manifests for ref in manifest.files()}


def kept_snapshots(store: Store, collection: str, *, now: float, retention_seconds: float) -> Kept:
    """Decide which snapshots of a collection stay.

    The latest one, what an alias names, what it named within the retention, what it would be rolled back to, and what
    was committed within the retention.

    Parameters
    ----------
    store, collection
        Where.
    now
        Seconds since the epoch, by the store's clock.
    retention_seconds
        How long what is no longer needed stays.

    Raises
    ------
    IntegrityError
        If a manifest that stays cannot be read: what it names is not known.
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
    return Kept(collection, manifests, dict(sorted(reasons.items())), dropped)


def _snapshot_files(store: Store, paths: CollectionPaths) -> dict[int, Stat]:
    numbers = ((number_of(stat.path), stat) for stat in store.walk(paths.folder("snapshots")))
    return {number: stat for number, stat in numbers if number is not None and stat.path == paths.snapshot(number)}


def _by_alias(store: Store, collection: str, alias: str, since: float) -> dict[int, str]:
    history = follow_replacements(store, collection, alias_history(store, collection, alias))
    found: dict[int, str] = {}
    for entry, following in pairwise(history):
        if parse_time(following.at) >= since:
            found[entry.snapshot] = f"{alias} named it until {following.at}"
    if (before := previous_entry(history)) is not None:
        found[before.snapshot] = f"{alias} would be rolled back to it"
    if history:
        found[history[-1].snapshot] = alias
    return found
