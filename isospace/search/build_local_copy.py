"""Write the local copy of a snapshot from its verified parts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from isospace.collection.live_rows import LivePart, live_parts
from isospace.collection.segments import read_codes, require_space
from isospace.collection.snapshot import Manifest, PartRecord
from isospace.collection.sparse_vectors import read_sparse_codes
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.errors import IntegrityError, MismatchError
from isospace.ingest.metadata_types import MetadataType, describe_fields
from isospace.search.metadata import hidden_column, metadata_columns, parse_metadata
from isospace.search.sparse_index import invert
from isospace.storage.parquet import FileRef, parse_parquet, read_verified, verify_file
from isospace.storage.store import Store
from isospace.transform.quantizer_set import dequantize
from isospace.transform.representations import code_layout
from isospace.transform.space import Space

CHUNKS, DOCUMENTS, SQUARES = "chunks.arrow", "documents.arrow", "squares.npy"
Verify: TypeAlias = Literal["content", "size"]
_CODE = "code:"
_CHUNK_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.large_string()),
        pa.field("document", pa.int32()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("prefix", pa.large_string()),
        pa.field("text", pa.large_string()),
    ]
)
_DOCUMENT_COLUMNS = ("doc_id", "uri", "title", "metadata")


def make_copy(store: Store, manifest: Manifest, space: Space, folder: Path, verify: Verify) -> None:
    """Write the arrays and tables of a snapshot into an empty folder, part by part.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is missing or differs from what was committed.
    MismatchError
        If a segment belongs to another space, or to other chunks, than the manifest says.
    """
    arrays: dict[str, Any] = {
        spec.name: np.lib.format.open_memmap(
            folder / f"{spec.name}.npy", mode="w+", dtype=layout[0], shape=(manifest.chunks, layout[1])
        )
        for spec in space.record.spec.representations
        for layout in [code_layout(spec, space.record.dimension)]
    }
    if space.transform.normalization == "none":
        squares = np.lib.format.open_memmap(folder / SQUARES, mode="w+", dtype=np.float32, shape=(manifest.chunks,))
        arrays |= {SQUARES: squares}
    for name in arrays:
        _allocate(folder / (name if name == SQUARES else f"{name}.npy"))
    documents: list[pa.Table] = []
    first = known = 0
    with pa.OSFile(str(folder / CHUNKS), "wb") as sink, pa.ipc.new_file(sink, _CHUNK_SCHEMA) as writer:
        for part in live_parts(store, manifest.parts, manifest.deletions):
            rows = chunks_and_codes(store, part, manifest.space_id, verify)
            own = part.live(read_file(store, part.record.documents, verify).select(list(_DOCUMENT_COLUMNS)))
            _fill(arrays, space, rows, first)
            writer.write_table(_local_chunks(rows, own, known, part.record))
            documents.append(own)
            first, known = first + rows.num_rows, known + own.num_rows
    if first != manifest.chunks:
        raise IntegrityError(
            f"snapshot {manifest.sequence}: its parts hold {first} live chunks, its manifest says {manifest.chunks}. "
            "Restore it."
        )
    for array in arrays.values():
        array.flush()
    _write_documents(folder / DOCUMENTS, documents, manifest.declared_types)


def sparse_arrays(store: Store, manifest: Manifest, verify: Verify) -> dict[str, Any]:
    """Return the arrays of the inverted index of a snapshot's sparse vectors.

    Raises
    ------
    IntegrityError
        If a file is missing, damaged, or has other rows than the chunks beside it.
    MismatchError
        If a file belongs to another sparse space.
    """
    space = load_sparse_space(store, str(manifest.sparse_space_id))
    vocabulary, grid, codes = space.record.vocabulary, space.record.grid, []
    for part in live_parts(store, manifest.parts, manifest.deletions):
        ref = part.record.sparse
        if ref is None:
            raise IntegrityError(
                f"snapshot {manifest.sequence}: part {part.record.name[:16]}… has no sparse vectors, but the snapshot "
                "has a sparse space. Restore the manifest."
            )
        rows = read_file(store, ref, verify)
        require_space(rows, ref.path, space.space_id)
        chunks = read_file(store, part.record.chunks, verify)
        if not rows["chunk_id"].equals(chunks["chunk_id"]):
            raise MismatchError(
                f"{ref.path}: its chunk_id column differs from that of {part.record.chunks.path}. Restore both files."
            )
        codes.append(read_sparse_codes(part.live(rows), grid, vocabulary, ref.path))
    return invert(codes, vocabulary)


def _allocate(path: Path) -> None:
    """Allocate the blocks of a sparse file: on a full disk, a write to mapped memory kills the process."""
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


def chunks_and_codes(store: Store, part: LivePart, space_id: str, verify: Verify) -> pa.Table:
    """Return the live chunks of a part, with the columns of its segment beside them, as `code:NAME`.

    Raises
    ------
    IntegrityError
        If a file is missing or differs from what was committed.
    MismatchError
        If the segment belongs to another space, or to other chunks.
    """
    record = part.record
    segment = read_file(store, record.segment, verify)
    require_space(segment, record.segment.path, space_id)
    rows = read_file(store, record.chunks, verify)
    if not segment["chunk_id"].equals(rows["chunk_id"]):
        raise MismatchError(
            f"{record.segment.path}: its chunk_id column differs from that of {record.chunks.path}. Restore both files."
        )
    for name in segment.column_names:
        if name not in ("chunk_id", "doc_id"):
            rows = rows.append_column(f"{_CODE}{name}", segment[name])
    return part.live(rows)


def segment_of(rows: pa.Table) -> pa.Table:
    """Return the columns of the segment from what `chunks_and_codes` returns, under their own names."""
    codes = rows.select([name for name in rows.column_names if name.startswith(_CODE)])
    return codes.rename_columns([name.removeprefix(_CODE) for name in codes.column_names])


def _fill(arrays: dict[str, Any], space: Space, rows: pa.Table, first: int) -> None:
    codes = segment_of(rows)
    part = slice(first, first + rows.num_rows)
    for spec in space.record.spec.representations:
        arrays[spec.name][part] = read_codes(codes, spec, space.record.dimension)
    if SQUARES in arrays:
        name = next((n for n in ("float32", "float16") if n in arrays), space.record.representations[0])
        vectors = dequantize(space.transform.quantizers, np.asarray(arrays[name][part]), name).astype(np.float64)
        arrays[SQUARES][part] = (vectors**2).sum(axis=1)


def _local_chunks(rows: pa.Table, documents: pa.Table, known: int, part: PartRecord) -> pa.Table:
    place = {doc_id: known + row for row, doc_id in enumerate(documents["doc_id"].to_pylist())}
    try:
        owners = [place[doc_id] for doc_id in rows["doc_id"].to_pylist()]
    except KeyError as error:
        raise MismatchError(f"{part.chunks.path}: document {error} is not in {part.documents.path}.") from error
    columns = [
        pa.array(owners, field.type) if field.name == "document" else rows[field.name] for field in _CHUNK_SCHEMA
    ]
    return pa.table(columns, names=_CHUNK_SCHEMA.names).cast(_CHUNK_SCHEMA)


def _write_documents(path: Path, parts: list[pa.Table], declared: Mapping[str, MetadataType]) -> None:
    plain = pa.schema([(name, pa.large_string()) for name in _DOCUMENT_COLUMNS])
    table = pa.concat_tables([plain.empty_table(), *(part.replace_schema_metadata(None).cast(plain) for part in parts)])
    metadata = [parse_metadata(text) for text in table["metadata"].to_pylist()]
    for name, column in metadata_columns(metadata, describe_fields(metadata, declared)):
        table = table.append_column(hidden_column(name) if name in _DOCUMENT_COLUMNS else name, column)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def read_file(store: Store, ref: FileRef, verify: Verify) -> pa.Table:
    """Read a file of a snapshot; IntegrityError if its content (or, for `size`, its size) is not what was committed."""
    if verify == "content":
        return parse_parquet(read_verified(store, ref), ref.path)
    verify_file(store, ref, content=False)
    return parse_parquet(store.read(ref.path), ref.path)
