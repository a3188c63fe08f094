"""Compaction: merge small parts and rewrite parts with many deletions, without changing content.

The result is a snapshot with the same snapshot ID in other files; every alias of the old snapshot moves to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from isospace.collection.absent import absent_collection
from isospace.collection.alias import aliases, promote
from isospace.collection.deletions import DELETION_SCHEMA
from isospace.collection.origins import Origins, origins_of
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, commit_manifest, deleted_documents, latest_manifest, read_manifest
from isospace.collection.tombstones import count_tombstones, require_no_newer_tombstone
from isospace.errors import IsospaceError, NotFoundError
from isospace.operations.maintenance.compaction_settings import DEFAULT_SETTINGS, CompactionSettings
from isospace.operations.maintenance.rebuild_search import make_searchable
from isospace.operations.maintenance.rewrite_parts import merge_parts
from isospace.pipeline.forgotten_files import erase_leftovers
from isospace.storage.hashing import sha256_lines
from isospace.storage.leases import run_lease
from isospace.storage.parquet import FileRef, write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.run_id import new_run_id
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class Group:
    """Parts that are merged into one."""

    parts: tuple[PartRecord, ...]
    """In the order of the snapshot."""
    documents: int
    """Number of live documents."""
    deleted: int
    """Number of deleted documents, which are left out."""
    bytes: int
    """Total size of the parts' files."""


@dataclass(frozen=True, slots=True)
class CompactionPlan:
    """What a compaction would do to the latest snapshot of a collection."""

    base: Manifest
    """The latest snapshot."""
    groups: tuple[Group, ...]
    """The parts to rewrite."""
    gone: dict[str, set[str]]
    """IDs of deleted documents by part."""
    tombstones: int = 0
    """How many tombstones the collection had; a later one keeps the plan from being carried out."""

    @property
    def parts_after(self) -> int:
        """Number of parts after the compaction; a group without live documents leaves none."""
        merged = sum(len(group.parts) for group in self.groups)
        return len(self.base.parts) - merged + sum(group.documents > 0 for group in self.groups)

    def describe(self) -> str:
        """Describe the plan in one sentence."""
        base, size = self.base, sum(group.bytes for group in self.groups)
        deleted = sum(group.deleted for group in self.groups)
        return (
            f"{base.collection}, snapshot {base.sequence}: {len(base.parts)} parts become {self.parts_after}, "
            f"{deleted:,} deleted documents are dropped, {size:,} bytes are read"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "collection": self.base.collection,
            "snapshot": self.base.sequence,
            "parts_before": len(self.base.parts),
            "parts_after": self.parts_after,
            "deleted": sum(group.deleted for group in self.groups),
            "bytes": sum(group.bytes for group in self.groups),
        }

    def markdown(self) -> str:
        """Return the plan as Markdown, with a row for each new part."""
        rows = [f"| {len(g.parts)} | {g.documents:,} | {g.deleted:,} | {g.bytes:,} |" for g in self.groups]
        return "\n".join(
            [self.describe(), "", "| parts | documents | deleted | bytes |", "| ---: | ---: | ---: | ---: |", *rows]
        )


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """The outcome of a compaction."""

    manifest: Manifest
    """The new snapshot; the old one if there was nothing to do."""
    parts_before: int
    parts_after: int
    deleted: int
    """Number of deleted documents that were dropped."""
    aliases: tuple[str, ...]
    """Aliases that moved."""

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return {
            "collection": self.manifest.collection,
            "snapshot": self.manifest.sequence,
            "snapshot_id": self.manifest.snapshot_id,
            "parts_before": self.parts_before,
            "parts_after": self.parts_after,
            "deleted": self.deleted,
            "aliases": list(self.aliases),
        }

    def describe(self) -> str:
        """Describe the outcome in one sentence."""
        manifest = self.manifest
        if self.parts_before == self.parts_after and not self.deleted and not self.aliases:
            return f"{manifest.collection}: nothing to compact, still snapshot {manifest.sequence}"
        return (
            f"{manifest.collection}: {self.parts_before} parts became {self.parts_after}, {self.deleted:,} deleted "
            f"documents dropped; snapshot {manifest.sequence} ({manifest.snapshot_id[:16]}…), aliases: "
            f"{', '.join(self.aliases) or 'none'}"
        )


def plan_compaction(store: Store, collection: str, settings: CompactionSettings = DEFAULT_SETTINGS) -> CompactionPlan:
    """Find the parts of the latest snapshot that are worth rewriting.

    Raises
    ------
    NotFoundError
        If the collection has no snapshot.
    """
    tombstones = count_tombstones(store, collection)
    base = latest_manifest(store, collection)
    if base is None:
        absent = absent_collection(store, collection, "no snapshot")
        raise NotFoundError(f"{absent} Embed it with `isospace run CONFIG`.")
    gone = deleted_documents(store, base.deletions)
    most, most_bytes, share = settings.part_documents, settings.part_bytes, settings.max_deleted_share
    groups = tuple(_groups(base.parts, gone, most, most_bytes, share))
    return CompactionPlan(base, groups, gone, tombstones)


def compact(store: Store, plan: CompactionPlan) -> Manifest:
    """Write the planned parts, and commit the new snapshot; no alias moves.

    Raises
    ------
    ConflictError
        If a run has committed, or documents were forgotten, since the plan was made; plan again.
    IntegrityError
        If a file of the snapshot is damaged.
    """
    base = plan.base
    if not plan.groups:
        return base
    with _cleaned_up(store, plan):
        return _compact(store, plan)


def _compact(store: Store, plan: CompactionPlan) -> Manifest:
    base = plan.base
    require_no_newer_tombstone(store, base.collection, plan.tombstones)
    first = {group.parts[0].name: group for group in plan.groups}
    merged = {part.name for group in plan.groups for part in group.parts}
    records: list[PartRecord] = []
    sources: dict[str, tuple[PartRecord, ...]] = {}
    for part in base.parts:
        if part.name in first:
            group = first[part.name].parts
            if merged_part := merge_parts(store, base, group, plan.gone):
                records.append(merged_part)
                sources[merged_part.name] = group
        elif part.name not in merged:
            records.append(part)
    left = {name: ids for name, ids in plan.gone.items() if name not in merged}
    update = {
        "sequence": base.sequence + 1,
        "parts": tuple(records),
        "deletions": write_deletions(store, base.collection, left),
        "provenance": derived_provenance(base, "compaction"),
        "origins": derived_origins(base, records, sources),
    }
    return commit_manifest(store, base.model_copy(update=update), tombstones=plan.tombstones, base=base)


def compact_collection(
    store: Store, collection: str, settings: CompactionSettings = DEFAULT_SETTINGS
) -> CompactionResult:
    """Compact the latest snapshot of a collection under a lease, and move its aliases."""
    with run_lease(store, collection, "compact"), TemporaryDirectory(prefix="isospace-compact-") as scratch:
        plan = plan_compaction(store, collection, settings)
        return conclude_compaction(store, plan, compact(store, plan), Path(scratch))


def conclude_compaction(store: Store, plan: CompactionPlan, manifest: Manifest, scratch: Path) -> CompactionResult:
    """Build the search files of the new snapshot, then move the aliases of the old one to it."""
    with _cleaned_up(store, plan):
        return _conclude(store, plan, manifest, scratch)


@contextlib.contextmanager
def _cleaned_up(store: Store, plan: CompactionPlan) -> Iterator[None]:
    """If documents were forgotten meanwhile, remove what was written of them."""
    try:
        yield
    except IsospaceError:
        if count_tombstones(store, plan.base.collection) > plan.tombstones:
            erase_leftovers(store, plan.base.collection, after=plan.tombstones)
        raise


def _conclude(store: Store, plan: CompactionPlan, manifest: Manifest, scratch: Path) -> CompactionResult:
    base = plan.base
    if manifest.sequence != base.sequence:
        make_searchable(store, base, manifest, scratch)
        require_no_newer_tombstone(store, base.collection, plan.tombstones)
        moved = follow_aliases(store, base, manifest, f"compaction of snapshot {base.sequence}")
    else:
        moved = _late_aliases(store, manifest, scratch)
    deleted = sum(group.deleted for group in plan.groups)
    return CompactionResult(manifest, len(base.parts), len(manifest.parts), deleted, moved)


def _late_aliases(store: Store, manifest: Manifest, scratch: Path) -> tuple[str, ...]:
    """Move aliases that a killed compaction left on the old snapshot: both have the same content."""
    moved: list[str] = []
    for entry in aliases(store, manifest.collection).values():
        if entry.snapshot_id == manifest.snapshot_id and entry.snapshot < manifest.sequence:
            old = read_manifest(store, manifest.collection, entry.snapshot)
            # The compaction may have been killed before it built the search files.
            make_searchable(store, old, manifest, scratch)
            moved += follow_aliases(store, old, manifest, f"compaction of snapshot {entry.snapshot}")
    return tuple(dict.fromkeys(moved))


def follow_aliases(store: Store, old: Manifest, new: Manifest, reason: str) -> tuple[str, ...]:
    """Move every alias of a snapshot to its replacement; return the names of the moved aliases."""
    moved = [
        name
        for name, entry in aliases(store, old.collection).items()
        if (entry.snapshot, entry.snapshot_id) == (old.sequence, old.snapshot_id)
        and promote(store, old.collection, name, new, reason=reason, forced=entry.forced, expected=entry)
    ]
    return tuple(moved)


def write_deletions(store: Store, collection: str, gone: dict[str, set[str]]) -> FileRef | None:
    """Write the file of a snapshot's deleted documents by part; None if there are none."""
    pairs = sorted((part, doc_id) for part, ids in gone.items() for doc_id in ids)
    if not pairs:
        return None
    columns = [pa.array(list(column), pa.string()) for column in zip(*pairs, strict=True)]
    name = sha256_lines(text for pair in pairs for text in pair)
    table = pa.table(columns, schema=DELETION_SCHEMA)
    return write_parquet(store, CollectionPaths(collection).deletions(name), table, dictionary=["part"])


def derived_origins(
    base: Manifest, parts: Sequence[PartRecord], sources: Mapping[str, Sequence[PartRecord]]
) -> Origins | None:
    """Return the origins of a snapshot derived from another one; `sources` are the old parts of each new part."""
    if base.origins is None:
        return None
    old = {part.name: sources.get(part.name, (part,)) for part in parts}
    return origins_of({name: [o for part in group for o in base.origins.of(part.name)] for name, group in old.items()})


def derived_provenance(base: Manifest, operation: str) -> dict[str, object]:
    """Return the provenance of a snapshot that an operation derived from another one."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        **base.provenance,
        "run_id": new_run_id(),
        "parent": base.sequence,
        "committed_at": now,
        "made_by": operation,
    }


def _groups(
    parts: Sequence[PartRecord], gone: dict[str, set[str]], most: int, most_bytes: int, share: float
) -> Iterator[Group]:
    """Yield the groups worth rewriting: adjacent small parts, and single parts with many deletions."""
    pending = Group((), 0, 0, 0)
    for part in parts:
        total, deleted = part.documents.rows or 0, len(gone.get(part.name, ()))
        if 2 * (total - deleted) >= most and deleted <= share * total:
            continue
        size = sum(ref.size for ref in part.files())
        if pending.documents + total - deleted > most or pending.bytes + size > most_bytes:
            yield from _if_worthwhile(pending)
            pending = Group((), 0, 0, 0)
        live, lost = pending.documents + total - deleted, pending.deleted + deleted
        pending = Group((*pending.parts, part), live, lost, pending.bytes + size)
    yield from _if_worthwhile(pending)


def _if_worthwhile(group: Group) -> Iterator[Group]:
    if len(group.parts) > 1 or group.deleted:
        yield group
