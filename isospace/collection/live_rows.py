"""Read a snapshot without the documents that it has deleted.

Parts are immutable: a deletion is a row in the snapshot's list of deletions, and the document stays in its part until a
compaction. Whoever reads parts without this module serves deleted documents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pyarrow as pa

from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, deleted_documents
from isospace.storage.parquet import FileRef, read_parquet
from isospace.storage.store import Store

Kind: TypeAlias = Literal["documents", "chunks"]


@dataclass(frozen=True, slots=True)
class LivePart:
    """A part of a snapshot and the documents in it that the snapshot has deleted."""

    record: PartRecord
    deleted: frozenset[str]

    def live(self, table: pa.Table) -> pa.Table:
        """Return the live rows of a table of this part: its documents, its chunks, or its segment beside them."""
        return without_documents(table, self.deleted)


def live_parts(store: Store, parts: Sequence[PartRecord], deletions: FileRef | None) -> Iterator[LivePart]:
    """Yield each part with what is deleted in it, in order."""
    deleted = deleted_documents(store, deletions)
    for part in parts:
        yield LivePart(part, frozenset(deleted.get(part.name, ())))


def live_rows(store: Store, manifest: Manifest, kind: Kind, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of a snapshot's live documents or chunks, one table for each part, in order.

    A part whose documents are all deleted gives an empty table.
    """
    for part in live_parts(store, manifest.parts, manifest.deletions):
        file = part.record.documents if kind == "documents" else part.record.chunks
        yield read_live(store, file.path, columns, part.deleted)


def read_live(store: Store, path: str, columns: Sequence[str], deleted: Collection[str]) -> pa.Table:
    """Read columns of one file of documents or chunks, without the rows of deleted documents."""
    if not deleted:
        return read_parquet(store, path, columns=columns).select(list(columns))
    table = read_parquet(store, path, columns=list(dict.fromkeys([*columns, "doc_id"])))
    return without_documents(table, deleted).select(list(columns))


def without_documents(table: pa.Table, doc_ids: Collection[str]) -> pa.Table:
    """Return the rows of all other documents; the table itself if there is nothing to leave out."""
    if not doc_ids:
        return table
    return table.filter(pa.array([doc_id not in doc_ids for doc_id in table["doc_id"].to_pylist()], pa.bool_()))
