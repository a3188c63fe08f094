"""Vacuum: remove files that no retained snapshot names and that are older than the retention period.

Retained are the latest snapshot, those that an alias names or would be rolled back to, and those that it named within
the retention period. While a run works on a collection, nothing is removed from it.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from isospace.collection.absent import require_collection
from isospace.collection.listing import read_listing
from isospace.collection.vector_index.manifests import index_files, old_index_files
from isospace.errors import BusyError, ConfigError
from isospace.operations.maintenance.retention import RetainedSnapshots, retained_snapshots
from isospace.search.approximate.record import recall_path
from isospace.search.lexical_record import lexical_files
from isospace.search.remote.record import published_files
from isospace.search.sql_database import serving_files
from isospace.storage.leases import HeldLease, maintenance_lease
from isospace.storage.local_files import Stat
from isospace.storage.paths import (
    COMPARISONS,
    ENCODERS,
    REPORTS,
    SPACES,
    VECTORS,
    CollectionPaths,
    Kind,
    encoder_folder,
    encoder_lineage,
    encoder_vectors,
    list_collections,
    list_encoders,
    list_encoders_with_vectors,
    list_spaces,
    number_of,
    parse_collection_path,
    space_folder,
)
from isospace.storage.scratch_duckdb import load_columns, scratch_database
from isospace.storage.store import Store
from isospace.storage.trash import remove_files

DAY = 86_400.0
# Kinds of files whose paths do not show which snapshot they belong to.
_WORK: tuple[Kind, ...] = ("documents", "chunks", "segments", "parts", "deletions", "quarantine")
_SEARCH_FILES: tuple[Kind, ...] = ("serving", "lexical", "recall", "remote")


@dataclass(frozen=True, slots=True)
class Removal:
    """One file to remove, and the reason."""

    path: str
    size: int
    reason: str


@dataclass(frozen=True, slots=True)
class VacuumResult:
    """The outcome of a vacuum."""

    kept: dict[str, dict[int, str]]
    """By collection: the numbers of retained snapshots, and why each is retained."""
    dropped: dict[str, tuple[int, ...]]
    """By collection: the numbers of the other snapshots."""
    removals: tuple[Removal, ...]
    done: bool
    """Whether the files were removed; False for a dry run."""

    @property
    def bytes(self) -> int:
        """Total size of the files."""
        return sum(removal.size for removal in self.removals)

    def by_reason(self) -> dict[str, int]:
        """Count the files by reason."""
        return dict(Counter(removal.reason for removal in self.removals))

    def describe(self) -> str:
        """Describe the outcome in a few lines."""
        verb = "removed" if self.done else "would remove"
        lines = [f"{verb} {len(self.removals):,} files, {self.bytes:,} bytes"]
        lines += [f"  {count:>6,}  {reason}" for reason, count in sorted(self.by_reason().items())]
        for name, reasons in self.kept.items():
            kept = ", ".join(f"{number} ({why})" for number, why in reasons.items()) or "none"
            gone = ", ".join(map(str, self.dropped[name])) or "none"
            lines.append(f"{name}: snapshots kept: {kept}; removed: {gone}")
        return "\n".join(lines)

    def markdown(self, most: int) -> str:
        """Return the outcome as Markdown, with the first `most` files."""
        rows = [f"| `{removal.path}` | {removal.size:,} | {removal.reason} |" for removal in self.removals[:most]]
        more = len(self.removals) - len(rows)
        listed = ["", "| file | bytes | why |", "| --- | ---: | --- |", *rows] if rows else []
        return "\n".join(["```", self.describe(), "```", *listed, *([f"\n… and {more:,} more."] if more else [])])


def vacuum(
    store: Store,
    scratch: Path,
    *,
    retention_days: float = 7.0,
    collections: Sequence[str] = (),
    vectors: bool = False,
    answers_days: float | None = None,
    dry: bool = False,
    memory_mb: int = 512,
) -> VacuumResult:
    """Remove files that no retained snapshot needs.

    Parameters
    ----------
    scratch
        A local folder for the join of raw vectors.
    retention_days
        How long unnamed files, and snapshots that an alias named, are retained.
    collections
        Collections to vacuum; all if empty. A single one can be vacuumed while runs work on others; spaces are kept
        then.
    vectors
        Whether to remove raw vectors and encoders that no snapshot needs. Without them, a return to an old text or
        model must encode again.
    answers_days
        Remove logged answers that are older; None keeps them.
    dry
        Only report what would be removed.
    memory_mb
        Memory limit of the join.

    Raises
    ------
    BusyError
        If a run works on a collection in scope.
    ConfigError
        If a number of days is negative.
    IntegrityError
        If the manifest of a retained snapshot cannot be read.
    NotFoundError
        If there is no such collection.
    """
    if retention_days < 0 or (answers_days is not None and answers_days < 0):
        raise ConfigError(f"retention of {min(retention_days, answers_days or 0)} days: expected 0 or more.")
    for name in collections:
        require_collection(store, name)
    known = list_collections(store)
    chosen = list(collections) or known
    # Collections share raw vectors and spaces, and any run may be about to use one: no run may be working then.
    scope = chosen[0] if len(collections) == 1 and not vectors else None
    lease = contextlib.nullcontext() if dry else maintenance_lease(store, scope, "vacuum")
    with lease as held:
        now = held.stat.modified if held else time.time()
        watched = None if scope is None else [scope]
        before = _commits(store, watched)
        retention = retention_days * DAY
        everything = {n: retained_snapshots(store, n, now=now, retention_seconds=retention) for n in chosen}
        # In the other collections, every snapshot is retained.
        others = [
            retained_snapshots(store, n, now=now, retention_seconds=float("inf")) for n in known if n not in chosen
        ]
        stale = _Stale(now - retention)
        removals = [removal for kept in everything.values() for removal in _of_collection(store, kept, stale)]
        if scope is None:
            removals += _of_spaces(store, [*everything.values(), *others], stale)
        if vectors:
            removals += _of_vectors(store, [*everything.values(), *others], stale, scratch, memory_mb)
        if answers_days is not None:
            old = _Stale(now - answers_days * DAY)
            removals += [r for n in chosen for r in old.all(store, CollectionPaths(n).folder("answers"), "old answers")]
        if held:
            _remove(store, held, removals, lambda: _require_unchanged(store, watched, before, removals))
    dropped = {name: tuple(number_of(stat.path) or 0 for stat in kept.dropped) for name, kept in everything.items()}
    return VacuumResult({n: kept.reasons for n, kept in everything.items()}, dropped, tuple(removals), done=not dry)


_SNAPSHOT = "snapshot past its retention"


def _remove(store: Store, held: HeldLease, removals: Sequence[Removal], check: Callable[[], None]) -> None:
    remove_files(store, held.token, [removal.path for removal in removals], proceed=held.require, check=check)
    for folder in {_folder_of(removal.path) for removal in removals}:
        store.remove_empty(folder)


def _commits(store: Store, collections: Sequence[str] | None) -> dict[str, Stat]:
    """Return the files of all snapshots and aliases; `collections` is None for all collections."""
    names = list_collections(store) if collections is None else collections
    kinds: tuple[Kind, ...] = ("snapshots", "aliases")
    folders = [CollectionPaths(name).folder(kind) for name in names for kind in kinds]
    return {stat.path: stat for folder in folders for stat in store.walk(folder)}


def _require_unchanged(
    store: Store, collections: Sequence[str] | None, before: dict[str, Stat], removals: Sequence[Removal]
) -> None:
    """Refuse if a snapshot was committed or an alias moved since `before`: moving an alias takes no lease.

    Raises
    ------
    BusyError
        If any did.
    """
    removed = {removal.path for removal in removals}
    expected = {path: stat for path, stat in before.items() if path not in removed}
    if changed := dict(expected.items() ^ _commits(store, collections).items()):
        raise BusyError(
            f"{min(changed)}: was written while files were being removed; all files were put back. A snapshot was "
            "committed, or an alias moved. Run the same command again."
        )


@dataclass(frozen=True, slots=True)
class _Stale:
    """Files written before a time."""

    before: float

    def all(self, store: Store, folder: str, reason: str) -> list[Removal]:
        return [Removal(s.path, s.size, reason) for s in store.walk(folder) if self.holds(s)]

    def unless(self, needed: Callable[[str], bool], store: Store, folder: str, reason: str) -> list[Removal]:
        return [removal for removal in self.all(store, folder, reason) if not needed(removal.path)]

    def left(self, store: Store, folder: str) -> list[Removal]:
        return [Removal(s.path, s.size, "left by a killed run") for s in store.leftovers(folder) if self.holds(s)]

    def holds(self, stat: Stat) -> bool:
        return stat.modified < self.before


def _of_collection(store: Store, kept: RetainedSnapshots, stale: _Stale) -> Iterator[Removal]:
    paths = CollectionPaths(kept.collection)
    yield from (Removal(stat.path, stat.size, _SNAPSHOT) for stat in kept.dropped)
    named = kept.files()
    for kind in _WORK:
        yield from stale.unless(lambda path: path in named, store, paths.folder(kind), f"{kind} of no snapshot")
    listed = _listings(store, kept)
    yield from stale.unless(lambda path: path in listed, store, paths.folder("listings"), "listings of no snapshot")
    yield from stale.all(store, paths.folder("plans"), "old plan")
    derived = {
        path
        for manifest in kept.manifests
        for path in (
            *serving_files(manifest),
            *lexical_files(store, manifest),
            *published_files(store, manifest),
            recall_path(manifest),
        )
    }
    for kind in _SEARCH_FILES:
        yield from stale.unless(lambda path: path in derived, store, paths.folder(kind), f"{kind} of no snapshot")
    spaces = {manifest.space_id for manifest in kept.manifests}
    folder = paths.folder("references")
    yield from stale.unless(lambda path: _id_of(path) in spaces, store, folder, "reference of no space")
    yield from stale.left(store, paths.root)


def _listings(store: Store, kept: RetainedSnapshots) -> set[str]:
    """Return the paths of what is known of the source for each retained snapshot."""
    digests = {manifest.documents_digest for manifest in kept.manifests}
    records = {digest: read_listing(store, kept.collection, digest) for digest in digests}
    rows = {ref.path for record in records.values() if record is not None for ref in record.files}
    return rows | {CollectionPaths(kept.collection).listing_record(digest) for digest in digests}


def _folder_of(path: str) -> str:
    """Return the folder to remove when empty: that of the file, or of the space or encoder."""
    folder = PurePosixPath(path).parent
    return str(folder) if parse_collection_path(path) else "/".join(folder.parts[:2])


def _id_of(path: str) -> str:
    """Return the fingerprint at the start of a file's name."""
    return PurePosixPath(path).name[:64]


def _of_spaces(store: Store, kept: Sequence[RetainedSnapshots], stale: _Stale) -> Iterator[Removal]:
    spaces = {space_id for retained in kept for manifest in retained.manifests for space_id in manifest.space_ids}
    for name in list_spaces(store):
        if name not in spaces:
            stats = list(store.walk(space_folder(name)))
            # Keep a space that has a recent file: a snapshot may be about to name it.
            if all(stale.holds(stat) for stat in stats):
                yield from (Removal(stat.path, stat.size, "space of no snapshot") for stat in stats)
    for encoder_id in list_encoders_with_vectors(store):
        for stat in old_index_files(store, encoder_id):
            yield Removal(stat.path, stat.size, "old index of raw vectors")
    for folder in (SPACES, VECTORS, ENCODERS, REPORTS, COMPARISONS):
        yield from stale.left(store, folder)


def _of_vectors(
    store: Store, kept: Sequence[RetainedSnapshots], stale: _Stale, scratch: Path, memory_mb: int
) -> Iterator[Removal]:
    """Yield parts of raw vectors that hold no chunk of a snapshot, and encoders that no snapshot uses."""
    manifests = [manifest for retained in kept for manifest in retained.manifests]
    encoders = {encoder_id for manifest in manifests for encoder_id in manifest.all_encoder_ids}
    for name in list_encoders(store):
        # A fine-tuned encoder cannot be downloaded again.
        if name not in encoders and not store.exists(encoder_lineage(name)):
            encoder_stats = list(store.walk(encoder_folder(name)))
            if all(stale.holds(stat) for stat in [*encoder_stats, *store.walk(encoder_vectors(name))]):
                yield from (Removal(stat.path, stat.size, "encoder of no snapshot") for stat in encoder_stats)
    chunks = sorted({part.chunks.path for manifest in manifests for part in manifest.parts})
    with scratch_database(scratch, memory_mb=memory_mb) as connection:
        load_columns(connection, "live", store, chunks, {"chunk_hash": "BLOB"})
        for encoder_id in list_encoders_with_vectors(store):
            parts = [stat for stat in store.walk(encoder_vectors(encoder_id)) if stat.path.endswith(".parquet")]
            stats = [stat for stat in parts if stale.holds(stat)]
            if encoder_id not in encoders:
                if len(stats) < len(parts):
                    # A run in portions is embedding with it; no snapshot names the vectors before the last portion.
                    continue
                yield from (Removal(stat.path, stat.size, "vectors of no snapshot") for stat in stats)
                yield from _of_index(store, encoder_id)
                continue
            connection.execute("DROP TABLE IF EXISTS vectors")
            load_columns(connection, "vectors", store, [stat.path for stat in stats], {"chunk_hash": "BLOB"})
            used = connection.execute("SELECT DISTINCT part FROM vectors SEMI JOIN live USING (chunk_hash)").fetchall()
            needed = {number for (number,) in used}
            gone = [stat for number, stat in enumerate(stats) if number not in needed]
            yield from (Removal(stat.path, stat.size, "vectors of no snapshot") for stat in gone)
            if gone:
                yield from _of_index(store, encoder_id)


def _of_index(store: Store, encoder_id: str) -> Iterator[Removal]:
    """Yield the index of raw vectors, which names files that are removed; the next run makes it again."""
    for stat in index_files(store, encoder_id):
        yield Removal(stat.path, stat.size, "index of raw vectors that are removed")
