"""Rewrite a snapshot without some documents."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from isospace.collection.live_rows import without_documents
from isospace.collection.metadata_schema import read_fields
from isospace.collection.part_record import PartRecord
from isospace.collection.quarantine import write_quarantine
from isospace.collection.snapshot import Manifest, deleted_documents, documents_digest, sequences, snapshot_id
from isospace.errors import ConfigError
from isospace.operations.maintenance.compact import derived_origins, derived_provenance, write_deletions
from isospace.operations.maintenance.rewrite_parts import merge_parts
from isospace.storage.parquet import FileRef, parse_parquet, read_parquet, read_verified
from isospace.storage.scratch_duckdb import fetch_rows, load_columns, scratch_database
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def require_some_left(store: Store, old: Manifest, wanted: set[str]) -> None:
    """Raise the ConfigError of `snapshot_without` if it would leave no document; nothing is written."""
    gone = deleted_documents(store, old.deletions)
    for part in old.parts:
        ids = set(read_parquet(store, part.documents.path, columns=["doc_id"])["doc_id"].to_pylist())
        if not ids & wanted or ids - wanted - gone.get(part.name, set()):
            return
    raise _emptied_error(store, old)


def _emptied_error(store: Store, old: Manifest) -> ConfigError:
    """Return the error of a snapshot without documents; an old one is no reason to remove the collection."""
    emptied = f"collection {old.collection!r}: no document would be left in snapshot {old.sequence}."
    if old.sequence != sequences(store, old.collection)[-1]:
        return ConfigError(
            f"{emptied} An alias names it, or would be rolled back to it: see `isospace aliases`, move or remove that "
            "alias, and run the same command again."
        )
    drop = shlex.join(["isospace", "drop", store.url, old.collection])
    vacuum = shlex.join(["isospace", "vacuum", store.url, "--vectors", "--retention-days", "0"])
    return ConfigError(
        f"{emptied} To forget a whole collection, run `{drop}`, then `{vacuum}`, which removes its raw vectors."
    )


def snapshot_without(
    store: Store, old: Manifest, wanted: set[str], holders: Collection[str], scratch: Path, memory_mb: int
) -> Manifest:
    """Write the parts of a snapshot without documents; return its manifest, which is not committed.

    Parameters
    ----------
    holders
        Paths of all documents files that hold one of the documents.
    scratch, memory_mb
        A local folder for joins, and their memory limit.

    Raises
    ------
    ConfigError
        If no document would be left.
    IntegrityError
        If a file that must be rewritten is damaged.
    """
    gone = deleted_documents(store, old.deletions)
    parts, left = [], dict(gone)
    sources: dict[str, list[PartRecord]] = {}
    for part in old.parts:
        if part.documents.path not in holders:
            parts.append(part)
            continue
        held = wanted & set(read_parquet(store, part.documents.path, columns=["doc_id"])["doc_id"].to_pylist())
        if not held:
            parts.append(part)
            continue
        # Documents that were deleted before are dropped with it.
        written = merge_parts(store, old, [part], {part.name: held | left.pop(part.name, set())})
        if written:
            parts.append(written)
            sources[written.name] = [part]
    if not parts:
        raise _emptied_error(store, old)
    with scratch_database(scratch, memory_mb=memory_mb) as connection:
        digest, documents, chunks = _live(connection, store, parts, left)
    deletions = write_deletions(store, old.collection, left)
    update = {
        "snapshot_id": snapshot_id(
            space_id=old.space_id,
            chunking_id=old.chunking_id,
            documents_digest=digest,
            sparse_space_id=old.sparse_space_id,
        ),
        "documents_digest": digest,
        "documents": documents,
        "chunks": chunks,
        "parts": tuple(parts),
        "deletions": deletions,
        "quarantine": _quarantine_without(store, old, wanted),
        "provenance": derived_provenance(old, "forget"),
        "origins": derived_origins(old, parts, sources),
        # The name of a field that only they had is theirs, too.
        "metadata": None if old.metadata is None else read_fields(store, parts, deletions, old.declared_types),
    }
    return old.model_copy(update=update)


def _live(
    connection: DuckDBPyConnection, store: Store, records: Sequence[PartRecord], gone: dict[str, set[str]]
) -> tuple[str, int, int]:
    """Return the digest and number of live documents, and the number of their chunks."""
    columns = {"doc_id": "VARCHAR", "doc_hash": "VARCHAR", "uri": "VARCHAR"}
    load_columns(connection, "documents", store, [part.documents.path for part in records], columns)
    load_columns(connection, "chunks", store, [part.chunks.path for part in records], {"doc_id": "VARCHAR"})
    connection.execute("CREATE TABLE gone (part INTEGER, doc_id VARCHAR)")
    pairs = [(n, doc_id) for n, part in enumerate(records) for doc_id in sorted(gone.get(part.name, ()))]
    if pairs:
        connection.executemany("INSERT INTO gone VALUES (?, ?)", pairs)
    live_documents, live_chunks = (f"{table} ANTI JOIN gone USING (part, doc_id)" for table in ("documents", "chunks"))
    query = f"SELECT doc_id, doc_hash, uri FROM {live_documents} ORDER BY doc_id"
    digest = documents_digest(fetch_rows(connection.execute(query)))
    return digest, _count(connection, live_documents), _count(connection, live_chunks)


def _count(connection: DuckDBPyConnection, rows: str) -> int:
    (count,) = connection.execute(f"SELECT count(*) FROM {rows}").fetchone() or (0,)
    return int(count)


def _quarantine_without(store: Store, old: Manifest, wanted: set[str]) -> FileRef | None:
    if old.quarantine is None:
        return None
    table = parse_parquet(read_verified(store, old.quarantine), old.quarantine.path)
    left = without_documents(table, wanted)
    if left.num_rows == table.num_rows:
        return old.quarantine
    return write_quarantine(store, old.collection, left)
