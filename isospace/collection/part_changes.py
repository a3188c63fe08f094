"""What a snapshot has other than its base, part by part, so that its figures follow from those of the base."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isospace.collection.live_rows import read_live
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, deleted_documents
from isospace.ingest.document import read_metadata
from isospace.ingest.metadata_types import MetadataField, MetadataType, count_fields, describe_counts
from isospace.storage.file_ref import FileRef
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class PartChange:
    """A part whose documents came, went, or both.

    Attributes
    ----------
    before, after
        IDs of its documents that base and snapshot have deleted; None if they do not have the part.
    """

    record: PartRecord
    before: frozenset[str] | None
    after: frozenset[str] | None


def part_changes(
    store: Store, base: Manifest, records: Sequence[PartRecord], deletions: FileRef | None
) -> list[PartChange]:
    """Return the parts that base and snapshot do not have in the same way; a part with other files is two of them."""
    gone, goes = deleted_documents(store, base.deletions), deleted_documents(store, deletions)
    old = {record.name: record for record in base.parts}
    kept = {record.name for record in records if old.get(record.name) == record}
    changes = [PartChange(r, frozenset(gone.get(r.name, ())), None) for r in base.parts if r.name not in kept]
    for record in records:
        after = frozenset(goes.get(record.name, ()))
        if record.name not in kept:
            changes.append(PartChange(record, None, after))
        elif (before := frozenset(gone.get(record.name, ()))) != after:
            changes.append(PartChange(record, before, after))
    return changes


def count_chunks(store: Store, base: Manifest, changes: Sequence[PartChange]) -> int:
    """Return the number of live chunks of a snapshot, given its changes.

    Raises
    ------
    NotFoundError
        If a file of chunks is missing.
    """
    return base.chunks + sum(
        count_live(store, change.record, change.after) - count_live(store, change.record, change.before)
        for change in changes
    )


def count_live(store: Store, record: PartRecord, deleted: Collection[str] | None) -> int:
    """Return how many chunks of a part are not of deleted documents; 0 without the part."""
    if deleted is None:
        return 0
    # The manifest records how many rows a part has; only deletions have to be counted.
    chunks = record.chunks
    return read_live(store, chunks.path, ["doc_id"], deleted).num_rows if deleted else chunks.rows or 0


def fields_after(
    store: Store, base: Manifest, changes: Sequence[PartChange], declared: Mapping[str, MetadataType]
) -> tuple[MetadataField, ...] | None:
    """Return the metadata fields of the live documents of a snapshot, given its changes.

    None if the base does not tell: an earlier version wrote it, it declares other types, or it contradicts its parts.

    Raises
    ------
    NotFoundError
        If a file of documents is missing.
    """
    if base.metadata is None or base.declared_types != declared:
        return None
    kinds = {field.name: Counter(field.kinds) for field in base.metadata}
    odd = Counter({field.name: field.odd for field in base.metadata if field.name in declared})
    for change in changes:
        for sign, documents in zip((-1, 1), _moved(store, change), strict=True):
            found, unread = count_fields(documents, declared)
            for name, counts in found.items():
                kinds.setdefault(name, Counter()).update({kind: sign * count for kind, count in counts.items()})
            odd.update({name: sign * count for name, count in unread.items()})
    totals = [*odd.values(), *(total for counted in kinds.values() for total in counted.values())]
    return None if min(totals, default=0) < 0 else describe_counts(kinds, odd, declared)


def _moved(store: Store, change: PartChange) -> tuple[Iterator[dict[str, Any]], Iterator[dict[str, Any]]]:
    """Return the metadata of the documents of a part that went, and of those that came."""
    table = read_parquet(store, change.record.documents.path, columns=["doc_id", "metadata"])
    rows = list(zip(table["doc_id"].to_pylist(), table["metadata"].to_pylist(), strict=True))

    def chosen(here: frozenset[str] | None, there: frozenset[str] | None) -> Iterator[dict[str, Any]]:
        for doc_id, metadata in rows:
            if _has(here, doc_id) and not _has(there, doc_id):
                yield read_metadata(metadata)

    return chosen(change.before, change.after), chosen(change.after, change.before)


def _has(deleted: frozenset[str] | None, doc_id: str) -> bool:
    return deleted is not None and doc_id not in deleted
