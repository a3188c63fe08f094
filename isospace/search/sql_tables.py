"""The tables, the view, and the macro of a serving database."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from isospace.collection.live_rows import LivePart, live_parts, read_live
from isospace.collection.part_record import PartRecord
from isospace.collection.segments import VECTOR, column_of, read_codes, require_space
from isospace.collection.snapshot import Manifest, deleted_documents
from isospace.search.sql_record import Layout
from isospace.storage.guard import confined
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store
from isospace.transform.quantizer_set import dequantize
from isospace.transform.space import Space

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

DOCUMENT_COLUMNS = ["doc_id", "uri", "title", "metadata", "doc_hash"]


def layout_of(store: Store, manifest: Manifest, space: Space, table_rows: int) -> Layout:
    """Return whether `chunks` is a table, or a view for more than `table_rows` rows of a local store."""
    # A view reads vectors straight from the segments, so they must be stored as float32.
    viewable = store.root is not None and "float32" in space.record.representations
    return "view" if manifest.chunks > table_rows and viewable else "table"


def write_all(connection: DuckDBPyConnection, store: Store, manifest: Manifest, space: Space, layout: Layout) -> None:
    """Fill an empty database from every part of a snapshot."""
    # In one transaction: with a checkpoint in between, DuckDB may rewrite groups of rows, which doubles the file.
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)")
    write_meta(connection, manifest, space)
    connection.execute(
        "CREATE TABLE documents (doc_id VARCHAR, uri VARCHAR, title VARCHAR, metadata VARCHAR, doc_hash VARCHAR)"
    )
    insert_documents(connection, store, live_parts(store, manifest.parts, manifest.deletions))
    if layout == "view":
        connection.execute("CREATE TABLE deletions (part VARCHAR, doc_id VARCHAR)")
        write_view(connection, store, manifest, space)
    else:
        _create_chunks(connection, space)
        insert_chunks(connection, store, space, live_parts(store, manifest.parts, manifest.deletions))
    _write_macro(connection, space)
    connection.execute("COMMIT")


def write_meta(connection: DuckDBPyConnection, manifest: Manifest, space: Space) -> None:
    """Replace the rows of `meta` by those of a snapshot."""
    rows = {
        "space_id": manifest.space_id,
        "snapshot_id": manifest.snapshot_id,
        "sequence": str(manifest.sequence),
        "collection": manifest.collection,
        "encoder_id": manifest.encoder_id,
        "chunking_id": manifest.chunking_id,
        "dimension": str(space.record.dimension),
        "normalization": space.record.spec.normalization,
        "representations": ",".join(space.record.representations),
        "documents": str(manifest.documents),
        "chunks": str(manifest.chunks),
        "recipe": json.dumps(manifest.recipe, sort_keys=True),
        "provenance": json.dumps(manifest.provenance, sort_keys=True),
    }
    if manifest.query_encoder_id is not None:
        # Whoever embeds queries for this database must not take the documents' encoder.
        rows["query_encoder_id"] = manifest.query_encoder_id
    if manifest.metadata is not None:
        rows["metadata_types"] = json.dumps({field.name: field.type for field in manifest.metadata})
    connection.execute("DELETE FROM meta")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", list(rows.items()))


def insert_documents(connection: DuckDBPyConnection, store: Store, parts: Iterable[LivePart]) -> None:
    """Insert the live documents of parts."""
    for part in parts:
        rows = read_live(store, part.record.documents.path, DOCUMENT_COLUMNS, part.deleted)
        insert_rows(connection, "documents", rows)


def insert_chunks(connection: DuckDBPyConnection, store: Store, space: Space, parts: Iterable[LivePart]) -> None:
    """Insert the live chunks of parts into the table, with their vectors and codes; one part is in memory at a time."""
    for part in parts:
        insert_rows(connection, "chunks", part.live(_joined(store, part.record, space)))


def write_view(connection: DuckDBPyConnection, store: Store, manifest: Manifest, space: Space) -> None:
    """Replace `chunks` by a view over the store's Parquet files, by their paths on this machine."""
    connection.execute("DELETE FROM deletions")
    deleted = [(p, d) for p, ids in deleted_documents(store, manifest.deletions).items() for d in ids]
    rows = pa.table({"part": [p for p, _ in deleted], "doc_id": [d for _, d in deleted]})
    insert_rows(connection, "deletions", rows.cast(pa.schema([("part", pa.string()), ("doc_id", pa.string())])))
    chunks = _paths(store, [part.chunks.path for part in manifest.parts])
    segments = _paths(store, [part.segment.path for part in manifest.parts])
    codes = "".join(f', s."{name}"' for name in _code_columns(space))
    connection.execute(
        f"""
        CREATE OR REPLACE VIEW chunks AS
        SELECT c.chunk_id, c.doc_id, d.uri, c.title, c."start" AS span_start, c."end" AS span_end, c.n_tokens, c.text,
               s.vector::FLOAT[{space.record.dimension}] AS vector{codes}
        FROM read_parquet({chunks}, filename = true, file_row_number = true) c
        JOIN read_parquet({segments}, filename = true, file_row_number = true) s
          ON parse_filename(c.filename, true) = parse_filename(s.filename, true)
         AND c.file_row_number = s.file_row_number
        JOIN documents d ON d.doc_id = c.doc_id
        WHERE (parse_filename(c.filename, true), c.doc_id) NOT IN (SELECT part, doc_id FROM deletions)
        """
    )


def insert_rows(connection: DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    """Insert the rows of an Arrow table, whose columns have the order of the database's table."""
    connection.register("incoming", rows)
    connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
    connection.unregister("incoming")


def _create_chunks(connection: DuckDBPyConnection, space: Space) -> None:
    fields = "".join(f', "{name}" BLOB' for name in _code_columns(space))
    connection.execute(
        "CREATE TABLE chunks (chunk_id VARCHAR, doc_id VARCHAR, uri VARCHAR, title VARCHAR, span_start BIGINT, "
        f"span_end BIGINT, n_tokens INTEGER, text VARCHAR, vector FLOAT[{space.record.dimension}]{fields})"
    )


def _joined(store: Store, part: PartRecord, space: Space) -> pa.Table:
    columns = ["chunk_id", "doc_id", "uri", "title", "start", "end", "n_tokens", "text"]
    rows = read_parquet(store, part.chunks.path, columns=columns).select(columns)
    # Documents may have moved since their chunks were written.
    owners = read_parquet(store, part.documents.path, columns=["doc_id", "uri"])
    uris = dict(zip(owners["doc_id"].to_pylist(), owners["uri"].to_pylist(), strict=True))
    current = pa.array([uris[doc_id] for doc_id in rows["doc_id"].to_pylist()], pa.string())
    rows = rows.set_column(columns.index("uri"), "uri", current)
    segment = read_parquet(store, part.segment.path)
    require_space(segment, part.segment.path, space.space_id)
    specs = {spec.name: spec for spec in space.record.spec.representations}
    dimension = space.record.dimension
    source = "float32" if "float32" in specs else next(iter(specs))
    vectors = dequantize(space.transform.quantizers, read_codes(segment, specs[source], dimension), source)
    rows = rows.append_column(VECTOR, pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dimension))
    for name in _code_columns(space):
        rows = rows.append_column(name, segment[name].cast(pa.binary()))
    return rows


def _code_columns(space: Space) -> list[str]:
    """Return the columns besides the vector; their names hold only letters, digits, and underscores."""
    return [column_of(spec) for spec in space.record.spec.representations if column_of(spec) != VECTOR]


def _paths(store: Store, paths: list[str]) -> str:
    root = store.root or Path()
    quoted = (str(root / confined(path)).replace("'", "''") for path in paths)
    return "[" + ", ".join(f"'{path}'" for path in quoted) + "]"


def _write_macro(connection: DuckDBPyConnection, space: Space) -> None:
    # The inner product of unit vectors is their cosine.
    connection.execute(
        f"""
        CREATE MACRO nearest(query, k) AS TABLE
        SELECT chunk_id, doc_id, uri, title, text, span_start, span_end,
               array_inner_product(vector, query::FLOAT[{space.record.dimension}]) AS score
        FROM chunks ORDER BY score DESC, chunk_id LIMIT k
        """
    )
