"""Make a serving database from that of an earlier snapshot, so that its cost follows the change.

A deleted row stays in the file: in its block until DuckDB rewrites that, and then in a free block. So a database of a
collection from which documents were erased since is never used (`ServingRecord.tombstones`), an erasure builds from
every part, and a database with too many such rows is not kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.errors import IntegrityError, NotFoundError
from isospace.search.sql_changes import Changes, apply_changes, changes_between, tables_of
from isospace.search.sql_record import Layout, ServingRecord, read_serving_record, serving_files
from isospace.storage.store import Store
from isospace.transform.space import Space

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Snapshots to look at: after an erasure, none of the earlier databases can be used.
_MOST_CANDIDATES = 10
# Above this share of the chunks, building from every part takes about as long.
_MOST_CHANGED = 0.5
# Share of a file that deleted rows and free blocks may take, unless they are few bytes.
_MOST_WASTE = 1 / 3
_LEAST_WASTE_BYTES = 16 << 20
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Base:
    """The database of an earlier snapshot, and what the later one changes."""

    record: ServingRecord
    changes: Changes


def find_bases(store: Store, manifest: Manifest, layout: Layout, duckdb: str, tombstones: int | None) -> Iterator[Base]:
    """Yield the databases of earlier snapshots that the one of a snapshot can be made from, the newest first.

    Parameters
    ----------
    duckdb
        The version that will write: one file is written by one version only.
    tombstones
        What `settled_tombstones` returns: none is yielded while an erasure is not complete.
    """
    if tombstones is None:
        return
    listed = {stat.path for stat in store.walk(manifest.paths.folder("serving"))}
    earlier = [number for number in sequences(store, manifest.collection) if number < manifest.sequence]
    for number in sorted(earlier, reverse=True)[:_MOST_CANDIDATES]:
        try:
            old = read_manifest(store, manifest.collection, number)
            if old.space_id != manifest.space_id or not listed.issuperset(serving_files(old)):
                continue
            record = read_serving_record(store, old)
            if (record.path, record.layout, record.duckdb) != (serving_files(old)[0], layout, duckdb):
                continue
            if record.tombstones != tombstones:
                continue
            changes = changes_between(store, old, manifest)
        except (IntegrityError, NotFoundError):
            # It is damaged, or a vacuum removed it meanwhile.
            continue
        if layout == "view" or changes.rows <= _MOST_CHANGED * manifest.chunks:
            yield Base(record, changes)


def copy_base(store: Store, record: ServingRecord, path: Path) -> bool:
    """Copy a database to a local file in blocks; return whether it is the one that its record describes."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for start in range(0, record.size, _BLOCK_BYTES):
            block = store.read_range(record.path, start, min(_BLOCK_BYTES, record.size - start))
            digest.update(block)
            stream.write(block)
    return digest.hexdigest() == record.sha256


def update_base(
    connection: DuckDBPyConnection, store: Store, manifest: Manifest, space: Space, layout: Layout, changes: Changes
) -> bool:
    """Change a copy of a base; return whether it has the rows of the snapshot and little else."""
    apply_changes(connection, store, manifest, space, layout, changes)
    # Blocks are freed, and rows that are next to each other are joined, at a checkpoint only.
    connection.execute("CHECKPOINT")
    expected = {"documents": manifest.documents, "chunks": manifest.chunks}
    counts = {table: _count(connection, table) for table in tables_of(layout)}
    return all(counts[table] == expected[table] for table in counts) and not _is_wasteful(connection, layout)


def _is_wasteful(connection: DuckDBPyConnection, layout: Layout) -> bool:
    """Return whether deleted rows and free blocks take too much of the file."""
    block, total, used = _row(connection, "SELECT block_size, total_blocks, used_blocks FROM pragma_database_size()")
    live = min(_live_share(connection, table) for table in tables_of(layout))
    wasted = block * (total - used * live)
    return bool(wasted > _LEAST_WASTE_BYTES and wasted > _MOST_WASTE * block * total)


def _live_share(connection: DuckDBPyConnection, table: str) -> float:
    """Return the share of a table's rows that are not deleted: `rowid` counts those that are, too."""
    rows, places = _row(connection, f"SELECT count(*), coalesce(max(rowid) + 1, 0) FROM {table}")
    return rows / places if places else 1.0


def _count(connection: DuckDBPyConnection, table: str) -> int:
    return _row(connection, f"SELECT count(*) FROM {table}")[0]


def _row(connection: DuckDBPyConnection, query: str) -> tuple[int, ...]:
    row = connection.execute(query).fetchone()
    return tuple(int(value) for value in row or ())
