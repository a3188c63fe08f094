"""What differs between the serving databases of two snapshots, and how the earlier one becomes the later one.

A part is a set of files that never change, so parts that both snapshots have are not read. Of the others, each live
document is in one part of a snapshot: rows are deleted by document, not by part, so that no table has to say which rows
are of which part.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from isospace.collection.live_rows import LivePart, live_parts, read_live
from isospace.collection.snapshot import Manifest
from isospace.search.sql_record import Layout
from isospace.search.sql_tables import (
    DOCUMENT_COLUMNS,
    insert_chunks,
    insert_documents,
    write_meta,
    write_view,
)
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store
from isospace.transform.space import Space

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@dataclass(frozen=True, slots=True)
class Changes:
    """Parts that two snapshots do not share.

    Attributes
    ----------
    removed, added
        Parts that only the earlier or only the later one has, or whose chunks or vectors are in other files.
    changed
        Parts with the same chunks and vectors, but with other deletions or moved documents: before and after.
    """

    removed: tuple[LivePart, ...]
    added: tuple[LivePart, ...]
    changed: tuple[tuple[LivePart, LivePart], ...]

    @property
    def rows(self) -> int:
        """Chunks that are deleted or inserted, at most; deleted documents of older parts do not count."""
        return sum(part.record.chunks.rows or 0 for part in (*self.removed, *self.added))


def changes_between(store: Store, old: Manifest, new: Manifest) -> Changes:
    """Compare the parts and deletions of two snapshots; of the store, only their lists of deletions are read."""
    before = {part.record.name: part for part in live_parts(store, old.parts, old.deletions)}
    after = {part.record.name: part for part in live_parts(store, new.parts, new.deletions)}
    kept = {name for name, part in after.items() if name in before and _has_same_chunks(before[name], part)}
    pairs = ((before[name], part) for name, part in after.items() if name in kept)
    return Changes(
        tuple(part for name, part in before.items() if name not in kept),
        tuple(part for name, part in after.items() if name not in kept),
        tuple((earlier, later) for earlier, later in pairs if not _is_same(earlier, later)),
    )


def apply_changes(
    connection: DuckDBPyConnection,
    store: Store,
    manifest: Manifest,
    space: Space,
    layout: Layout,
    changes: Changes,
) -> None:
    """Turn a copy of the earlier snapshot's database, which has the same layout, into the later one's."""
    # Deletions come first: a document that was edited is deleted from one part and inserted from another.
    for part in changes.removed:
        _delete(connection, layout, _ids(store, part) - part.deleted)
    for earlier, later in changes.changed:
        _delete(connection, layout, later.deleted - earlier.deleted)
    for earlier, later in changes.changed:
        restored = _restored(store, earlier, later)
        insert_documents(connection, store, restored)
        if layout == "table":
            insert_chunks(connection, store, space, restored)
        if earlier.record.documents.sha256 != later.record.documents.sha256:
            _move(connection, layout, read_live(store, later.record.documents.path, DOCUMENT_COLUMNS, later.deleted))
    insert_documents(connection, store, changes.added)
    if layout == "table":
        insert_chunks(connection, store, space, changes.added)
    else:
        write_view(connection, store, manifest, space)
    write_meta(connection, manifest, space)


def _has_same_chunks(earlier: LivePart, later: LivePart) -> bool:
    pairs = ((part.record.chunks.sha256, part.record.segment.sha256) for part in (earlier, later))
    return len(set(pairs)) == 1


def _is_same(earlier: LivePart, later: LivePart) -> bool:
    return earlier.record.documents.sha256 == later.record.documents.sha256 and earlier.deleted == later.deleted


def _restored(store: Store, earlier: LivePart, later: LivePart) -> list[LivePart]:
    """Return the part with those documents alone that only the later snapshot has; nothing if there are none."""
    if not (back := earlier.deleted - later.deleted):
        return []
    return [LivePart(later.record, _ids(store, later) - back)]


def _ids(store: Store, part: LivePart) -> frozenset[str]:
    """Return all documents of a part, deleted or not."""
    return frozenset(read_parquet(store, part.record.documents.path, columns=["doc_id"])["doc_id"].to_pylist())


def _delete(connection: DuckDBPyConnection, layout: Layout, doc_ids: Collection[str]) -> None:
    if not doc_ids:
        return
    connection.register("gone", pa.table({"doc_id": pa.array(sorted(doc_ids), pa.string())}))
    for table in tables_of(layout):
        connection.execute(f"DELETE FROM {table} WHERE doc_id IN (SELECT doc_id FROM gone)")
    connection.unregister("gone")


def _move(connection: DuckDBPyConnection, layout: Layout, documents: pa.Table) -> None:
    """Give rows that are there already the columns of their moved documents."""
    connection.register("moved", documents)
    connection.execute(
        "UPDATE documents SET uri = moved.uri, title = moved.title, metadata = moved.metadata, "
        "doc_hash = moved.doc_hash FROM moved WHERE documents.doc_id = moved.doc_id"
    )
    if layout == "table":
        connection.execute("UPDATE chunks SET uri = moved.uri FROM moved WHERE chunks.doc_id = moved.doc_id")
    connection.unregister("moved")


def tables_of(layout: Layout) -> tuple[str, ...]:
    """Return the tables with a row for each document or chunk."""
    return ("documents", "chunks") if layout == "table" else ("documents",)
