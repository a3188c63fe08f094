"""Read the chunks of a snapshot as Arrow batches, with their vectors, codes, and raw vectors; no model is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from isospace.collection.alias import resolve
from isospace.collection.live_rows import LivePart, live_parts
from isospace.collection.raw_vectors import gather
from isospace.collection.segments import read_codes
from isospace.collection.snapshot import Manifest
from isospace.collection.vector_homes import load_homes, locate
from isospace.encoding.embedder import load_space
from isospace.encoding.registry.record import read_encoder_record
from isospace.errors import ConfigError
from isospace.search.local.build import chunks_and_codes, read_file, segment_of
from isospace.storage.parquet import fixed_binary
from isospace.storage.scratch_duckdb import load_columns, scratch_database
from isospace.storage.store import Store, as_store
from isospace.transform.quantizer_set import dequantize
from isospace.transform.representations import code_bytes, finest_of
from isospace.transform.space import Space
from isospace.transform.vectors import Float32

_CHUNK_COLUMNS = {
    "chunk_id": pa.string(),
    "doc_id": pa.string(),
    "start": pa.int64(),
    "end": pa.int64(),
    "n_tokens": pa.int64(),
    "prefix": pa.string(),
    "text": pa.string(),
    "heading_path": pa.list_(pa.string()),
}
# A document that moved has another URI than its chunks had when they were written.
_DOCUMENT_COLUMNS = {"uri": pa.string(), "title": pa.string(), "metadata": pa.string()}
VECTOR, RAW = "vector", "raw"
DEFAULT_COLUMNS = ("chunk_id", "doc_id", "uri", "title", "start", "end", "text", "metadata", VECTOR)
_MEMORY_MB = 512


def read_chunks(
    store: Store | str,
    collection: str,
    snapshot: str | int = "production",
    *,
    columns: Sequence[str] = DEFAULT_COLUMNS,
) -> pa.RecordBatchReader:
    """Read the chunks of a snapshot, one batch for each part, without those of deleted documents.

    Parameters
    ----------
    store
        A store, a local folder, or a URL such as `s3://bucket/prefix`.
    collection
        Name of the collection.
    snapshot
        Alias, snapshot number, or the first digits of a snapshot ID.
    columns
        Any of: chunk_id, doc_id, uri, title, start, end, n_tokens, prefix, text; `heading_path` (list of texts; null if
        no heading is known); `metadata` (JSON of the document);
        `vector` (k float32, decoded from the most precise representation); `raw` (d float32, as the encoder returned
        it); the name of a representation, for its codes as stored (fixed-size binary; docs/format.md says what they
        mean). Columns that are not named are not read or decoded.

    Returns
    -------
    pyarrow.RecordBatchReader
        polars, pandas, and DuckDB read it directly; `read_all()` gives a table. Vectors are fixed-size lists. The rows
        are in the order of the snapshot's parts.

    Raises
    ------
    ConfigError
        If a column is unknown or named twice.
    NotFoundError
        If there is no such snapshot.
    IntegrityError
        While reading, if a file is missing or differs from what was committed.
    """
    opened = as_store(store)
    manifest = resolve(opened, collection, snapshot)
    space = load_space(opened, manifest.space_id)
    width = read_encoder_record(opened, manifest.encoder_id).dimension
    schema = _schema(space, columns, width)
    return pa.RecordBatchReader.from_batches(schema, _batches(opened, manifest, space, schema, width))


def _schema(space: Space, columns: Sequence[str], raw_width: int) -> pa.Schema:
    record = space.record
    known: Mapping[str, pa.DataType] = {
        **{spec.name: pa.binary(code_bytes(spec, record.dimension)) for spec in record.spec.representations},
        **_CHUNK_COLUMNS,
        **_DOCUMENT_COLUMNS,
        VECTOR: pa.list_(pa.float32(), record.dimension),
        RAW: pa.list_(pa.float32(), raw_width),
    }
    if isinstance(columns, str) or len(set(columns)) < len(columns):
        raise ConfigError(f"columns = {columns!r:.80}; expected a list of different names.")
    for name in columns:
        if name not in known:
            raise ConfigError(f"column {name!r:.60} is unknown; expected some of {', '.join(known)}.")
    return pa.schema([(name, known[name]) for name in columns])


def _batches(
    store: Store, manifest: Manifest, space: Space, schema: pa.Schema, raw_width: int
) -> Iterator[pa.RecordBatch]:
    homes = _raw_files(store, manifest) if RAW in schema.names else {}
    for part in live_parts(store, manifest.parts, manifest.deletions):
        rows = chunks_and_codes(store, part, manifest.space_id, "content")
        documents = _owners(store, part, rows) if set(schema.names) & set(_DOCUMENT_COLUMNS) else None
        arrays = []
        for field in schema:
            if field.name == "heading_path" and field.name not in rows.column_names:
                # No document of this part has headings, or an earlier version cut it into chunks.
                column = pa.nulls(rows.num_rows, field.type)
            elif field.name in _CHUNK_COLUMNS:
                column = rows[field.name]
            elif field.name in _DOCUMENT_COLUMNS and documents is not None:
                column = documents[field.name]
            elif field.name == VECTOR:
                column = _lists(_vectors(space, rows))
            elif field.name == RAW:
                hashes = rows["chunk_hash"].to_pylist()
                files = homes.get(part.record.name, ())
                column = _lists(gather(store, manifest.encoder_id, files, hashes, raw_width))
            else:
                column = _codes(space, rows, field.name)
            arrays.append(column.cast(field.type) if column.type != field.type else column)
        yield from pa.table(arrays, schema=schema).combine_chunks().to_batches()


def _owners(store: Store, part: LivePart, rows: pa.Table) -> pa.Table:
    """Return the row of each chunk's document."""
    documents = read_file(store, part.record.documents, "content").select(["doc_id", *_DOCUMENT_COLUMNS])
    place = {doc_id: row for row, doc_id in enumerate(documents["doc_id"].to_pylist())}
    return documents.take(pa.array([place[doc_id] for doc_id in rows["doc_id"].to_pylist()], pa.int64()))


def _vectors(space: Space, rows: pa.Table) -> Float32:
    finest = finest_of(space.record.spec.representations, space.record.dimension)
    codes = np.ascontiguousarray(read_codes(segment_of(rows), finest, space.record.dimension))
    return np.ascontiguousarray(dequantize(space.transform.quantizers, codes, finest.name), np.float32)


def _codes(space: Space, rows: pa.Table, name: str) -> pa.Array:
    spec = next(spec for spec in space.record.spec.representations if spec.name == name)
    return fixed_binary(np.ascontiguousarray(read_codes(segment_of(rows), spec, space.record.dimension)))


def _lists(vectors: Float32) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1), pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def _raw_files(store: Store, manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return, for each part, the files that hold the raw vectors of its chunks."""
    with (
        tempfile.TemporaryDirectory(prefix="isospace-read-") as scratch,
        scratch_database(Path(scratch), memory_mb=_MEMORY_MB) as connection,
    ):
        chunks = [part.chunks.path for part in manifest.parts]
        load_columns(connection, "wanted", store, chunks, {"chunk_hash": "BLOB"})
        homes = load_homes(connection, store, manifest.encoder_id, "wanted", Path(scratch), are_stored=True)
        located = dict(locate(connection, "wanted", homes))
    return {part.name: tuple(located.get(row, ())) for row, part in enumerate(manifest.parts)}
