"""Remove a collection with everything that belongs only to it."""

from __future__ import annotations

from dataclasses import dataclass

from isospace.collection.absent import require_collection
from isospace.collection.snapshot import sequences
from isospace.errors import BusyError
from isospace.evaluation.reports.quotes import reports_on
from isospace.search.local.copy import drop_copies
from isospace.storage.leases import maintenance_lease
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.storage.trash import remove_files


@dataclass(frozen=True, slots=True)
class DroppedCollection:
    """What was removed, or would be.

    Attributes
    ----------
    snapshots, files, reports
        Number of snapshots, of files of the collection, and of files of reports on it.
    bytes
        Size of all of these files.
    forgotten
        Whether documents were forgotten in this collection; the orders are removed, too.
    done
        False for a dry run.
    """

    collection: str
    snapshots: int
    files: int
    reports: int
    bytes: int
    forgotten: bool
    done: bool

    def describe(self) -> str:
        """Return in words what was removed, and what remains."""
        verb = "removed" if self.done else "would remove"
        lines = [
            f"{self.collection}: {verb} {self.snapshots} snapshots in {self.files:,} files, and {self.reports:,} files "
            f"of reports: {self.bytes:,} bytes",
            "Encoders, spaces, and raw vectors stay, since other collections may use them. "
            "`isospace vacuum STORE --vectors` removes those that none needs.",
        ]
        if self.forgotten:
            lines.append(
                "Documents were forgotten in this collection. A collection of the same name would ingest them again."
            )
        return "\n".join(lines)


def drop_collection(store: Store, collection: str, *, dry: bool = False) -> DroppedCollection:
    """Remove every file of a collection, the reports on it, and this machine's copies of its snapshots.

    Services that answer from the collection keep what they have opened, and fail when they are started again.

    Raises
    ------
    BusyError
        If a run or a command that deletes files uses the collection, or if a snapshot is committed meanwhile.
    NotFoundError
        If there is no such collection.
    """
    paths = CollectionPaths(collection)
    require_collection(store, collection)
    if dry:
        return _found(store, collection, done=False)[0]
    with maintenance_lease(store, collection, "the removal of the collection") as lease:
        dropped, files = _found(store, collection, done=True)

        def check() -> None:
            if committed := sequences(store, collection):
                raise BusyError(
                    f"collection {collection!r}: snapshot {committed[-1]} was committed while the collection was being "
                    "removed; all files were put back. Run the same command again."
                )

        remove_files(store, lease.token, files, proceed=lease.require, check=check)
        store.remove_empty(paths.root)
        for folder in {path.rpartition("/")[0] for path in files if not path.startswith(paths.root)}:
            store.remove_empty(folder)
    drop_copies(collection)
    return dropped


def _found(store: Store, collection: str, *, done: bool) -> tuple[DroppedCollection, list[str]]:
    paths = CollectionPaths(collection)
    own = [*store.walk(paths.root), *store.leftovers(paths.root)]
    reports = list(reports_on(store, collection))
    forgotten = any(True for _ in store.walk(paths.folder("forgotten")))
    dropped = DroppedCollection(
        collection=collection,
        snapshots=len(sequences(store, collection)),
        files=len(own),
        reports=len(reports),
        bytes=sum(stat.size for stat in (*own, *reports)),
        forgotten=forgotten,
        done=done,
    )
    return dropped, [stat.path for stat in (*own, *reports)]
