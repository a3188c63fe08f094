"""The serving database: one DuckDB file per snapshot, which any DuckDB client can search.

    SELECT * FROM nearest([0.1, ...], 10);

It is derived from the snapshot, named after the snapshot and its files, and written atomically.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from isospace.collection.live_rows import live_parts, live_rows
from isospace.collection.segments import VECTOR, column_of, read_codes, require_space
from isospace.collection.snapshot import Manifest, PartRecord, deleted_documents, files_digest
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.guard import confined
from isospace.storage.hashing import seal, unseal
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store
from isospace.transform.quantizer_set import dequantize
from isospace.transform.space import Space

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def build_serving(
    store: Store, manifest: Manifest, space: Space, scratch: Path, *, table_rows: int, memory_mb: int = 1024
) -> bool:
    """Build the serving database of a snapshot unless it exists; return whether this call built it.

    Parameters
    ----------
    scratch
        Local folder in which the database is built.
    table_rows
        Up to this many rows, `chunks` is a table; above, it is a view over the segments of a local store.
    memory_mb
        Memory limit of DuckDB while it builds.
    """
    target, record = serving_files(manifest)
    if _is_whole(store, manifest):
        return False
    import duckdb

    scratch.mkdir(parents=True, exist_ok=True)
    path = scratch / f"serving-{secrets.token_hex(6)}.duckdb"
    connection = duckdb.connect(str(path), config={"memory_limit": f"{memory_mb}MB"})
    try:
        _write_meta(connection, manifest, space)
        # A view reads vectors straight from the segments, so they must be stored as float32.
        viewable = store.root is not None and "float32" in space.record.representations
        as_view = manifest.chunks > table_rows and viewable
        _write_documents(connection, store, manifest)
        _write_view(connection, store, manifest, space) if as_view else _write_table(connection, store, manifest, space)
        _write_macro(connection, space)
    finally:
        connection.close()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    size = path.stat().st_size
    # The record comes last: a database without one was left by a run that died here.
    store.write_file(target, path)
    path.unlink()
    store.write(record, seal({"path": target, "size": size, "sha256": digest, "files": files_digest(manifest)}))
    return True


def serving_files(manifest: Manifest) -> tuple[str, str]:
    """Return the paths of a snapshot's serving database and its record, whether or not they exist."""
    names = (manifest.snapshot_id, files_digest(manifest))
    return manifest.paths.serving_database(*names), manifest.paths.serving_record(*names)


def verify_serving(store: Store, manifest: Manifest) -> None:
    """Compare the serving database with its record.

    Raises
    ------
    IntegrityError
        If it is missing or was changed; running the pipeline again rebuilds a deleted one.
    """
    path = serving_files(manifest)[1]
    remedy = f"Delete {path} and run the pipeline again to rebuild it."
    try:
        record = unseal(store.read(path), name=path)
        digest = store.digest(record["path"])
    except NotFoundError as error:
        raise IntegrityError(f"{error} {remedy}") from error
    if record["files"] != files_digest(manifest):
        raise IntegrityError(f"{path}: was built from other files than those of snapshot {manifest.sequence}. {remedy}")
    if digest != record["sha256"]:
        raise IntegrityError(
            f"{record['path']}: has SHA-256 {digest[:16]}…, expected {record['sha256'][:16]}…. {remedy}"
        )


def _is_whole(store: Store, manifest: Manifest) -> bool:
    try:
        verify_serving(store, manifest)
    except IntegrityError:
        return False
    return True


def _write_meta(connection: DuckDBPyConnection, manifest: Manifest, space: Space) -> None:
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
    connection.execute("CREATE TABLE meta (key VARCHAR PRIMARY KEY, value VARCHAR NOT NULL)")
    connection.executemany("INSERT INTO meta VALUES (?, ?)", list(rows.items()))


def _write_documents(connection: DuckDBPyConnection, store: Store, manifest: Manifest) -> None:
    connection.execute(
        "CREATE TABLE documents (doc_id VARCHAR, uri VARCHAR, title VARCHAR, metadata VARCHAR, doc_hash VARCHAR)"
    )
    for rows in live_rows(store, manifest, "documents", ["doc_id", "uri", "title", "metadata", "doc_hash"]):
        _insert(connection, "documents", rows)


def _write_table(connection: DuckDBPyConnection, store: Store, manifest: Manifest, space: Space) -> None:
    fields = "".join(f', "{name}" BLOB' for name in _code_columns(space))
    connection.execute(
        "CREATE TABLE chunks (chunk_id VARCHAR, doc_id VARCHAR, uri VARCHAR, title VARCHAR, span_start BIGINT, "
        f"span_end BIGINT, n_tokens INTEGER, text VARCHAR, vector FLOAT[{space.record.dimension}]{fields})"
    )
    for part in live_parts(store, manifest.parts, manifest.deletions):
        _insert(connection, "chunks", part.live(_joined(store, part.record, space)))


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


def _write_view(connection: DuckDBPyConnection, store: Store, manifest: Manifest, space: Space) -> None:
    """Create `chunks` as a view over the store's Parquet files, by their paths on this machine."""
    connection.execute("CREATE TABLE deletions (part VARCHAR, doc_id VARCHAR)")
    deleted = [(p, d) for p, ids in deleted_documents(store, manifest.deletions).items() for d in ids]
    rows = pa.table({"part": [p for p, _ in deleted], "doc_id": [d for _, d in deleted]})
    _insert(connection, "deletions", rows.cast(pa.schema([("part", pa.string()), ("doc_id", pa.string())])))
    chunks = _paths(store, [part.chunks.path for part in manifest.parts])
    segments = _paths(store, [part.segment.path for part in manifest.parts])
    codes = "".join(f', s."{name}"' for name in _code_columns(space))
    connection.execute(
        f"""
        CREATE VIEW chunks AS
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


def _insert(connection: DuckDBPyConnection, table: str, rows: pa.Table) -> None:
    connection.register("incoming", rows)
    connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
    connection.unregister("incoming")
