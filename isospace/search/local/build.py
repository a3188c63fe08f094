"""Write a group of the local copy from the verified files of its parts."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from isospace.collection.live_rows import LivePart
from isospace.collection.part_record import PartRecord
from isospace.collection.segments import read_cells, read_codes, require_space
from isospace.collection.snapshot import Manifest
from isospace.collection.sparse_vectors import read_sparse_codes
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.errors import IntegrityError, MismatchError
from isospace.search.approximate.lists import write_lists
from isospace.search.local.choice import GroupPart
from isospace.search.local.files import Verify, load_array, write_table
from isospace.search.sparse_index import invert
from isospace.storage.parquet import FileRef, parse_parquet, read_verified, verify_file
from isospace.storage.store import Store
from isospace.transform.quantizer_set import dequantize
from isospace.transform.quantizers.cells import CELL_DTYPE
from isospace.transform.representations import code_layout, finest_of
from isospace.transform.space import Space

CHUNKS, DOCUMENTS, SQUARES = "chunks.arrow", "documents.arrow", "squares.npy"
CELLS, LISTS = "cells.npy", "cells.faiss"
SPARSE = "sparse."
_CODE = "code:"
_BLOCK_ROWS = 65_536
_CHUNK_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.large_string()),
        pa.field("document", pa.int32()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("prefix", pa.large_string()),
        pa.field("text", pa.large_string()),
        # Null for documents without headings, and for chunks that an earlier version made.
        pa.field("heading_path", pa.list_(pa.string())),
        pa.field("section_start", pa.int64()),
        pa.field("section_end", pa.int64()),
    ]
)
DOCUMENT_COLUMNS = ("doc_id", "uri", "title", "metadata")
_DOCUMENT_SCHEMA = pa.schema([(name, pa.large_string()) for name in DOCUMENT_COLUMNS])


def write_group(
    store: Store,
    manifest: Manifest,
    space: Space,
    parts: Sequence[LivePart],
    folder: Path,
    verify: Verify,
    *,
    lists: bool = True,
) -> tuple[GroupPart, ...]:
    """Write the arrays and tables of parts into an empty folder, part by part.

    Parameters
    ----------
    lists
        Whether to write inverted lists, and those of sparse vectors, if the snapshot can have them.

    Returns
    -------
    tuple of GroupPart
        What the group holds of each part.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is missing or differs from what was committed.
    MismatchError
        If a segment belongs to another space, or to other chunks, than the manifest says.
    """
    most = sum(part.record.chunks.rows or 0 for part in parts)
    made = _Arrays(folder, space, most)
    documents: list[pa.Table] = []
    written: list[GroupPart] = []
    first = known = 0
    with pa.OSFile(str(folder / CHUNKS), "wb") as sink, pa.ipc.new_file(sink, _CHUNK_SCHEMA) as writer:
        for part in parts:
            rows = chunks_and_codes(store, part, manifest.space_id, verify)
            own = part.live(read_file(store, part.record.documents, verify).select(list(DOCUMENT_COLUMNS)))
            made.fill(rows, first)
            writer.write_table(_local_chunks(rows, own, known, part.record))
            documents.append(own.replace_schema_metadata(None).cast(_DOCUMENT_SCHEMA))
            files = tuple(ref.sha256 for ref in part.record.files())
            written.append(GroupPart(part.record.name, files, part.deleted, own.num_rows, rows.num_rows))
            first, known = first + rows.num_rows, known + own.num_rows
    made.finish(first)
    if lists and has_lists(space):
        _write_lists(folder, space)
    write_table(folder / DOCUMENTS, pa.concat_tables([_DOCUMENT_SCHEMA.empty_table(), *documents]))
    if lists and manifest.sparse_space_id is not None:
        for name, array in _sparse_arrays(store, manifest, parts, verify).items():
            np.save(folder / f"{SPARSE}{name}.npy", array)
    return tuple(written)


class _Arrays:
    """The arrays of a group, written through memory maps: a group need not fit into memory."""

    def __init__(self, folder: Path, space: Space, rows: int) -> None:
        self.space, self.folder = space, folder
        layouts = {spec.name: code_layout(spec, space.record.dimension) for spec in space.record.spec.representations}
        shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
            f"{name}.npy": (dtype, (rows, width)) for name, (dtype, width) in layouts.items()
        }
        if space.transform.normalization == "none":
            shapes[SQUARES] = (np.dtype(np.float32), (rows,))
        if space.transform.cells is not None:
            shapes[CELLS] = (CELL_DTYPE, (rows,))
        self.arrays: dict[str, Any] = {
            name: np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape)
            for name, (dtype, shape) in shapes.items()
        }
        for name in self.arrays:
            _allocate(folder / name)

    def fill(self, rows: pa.Table, first: int) -> None:
        """Write the codes of a part from row `first` on."""
        codes, part = segment_of(rows), slice(first, first + rows.num_rows)
        for spec in self.space.record.spec.representations:
            self.arrays[f"{spec.name}.npy"][part] = read_codes(codes, spec, self.space.record.dimension)
        if self.space.transform.cells is not None:
            self.arrays[CELLS][part] = read_cells(codes, self.space.transform.cells.count)
        if SQUARES in self.arrays:
            stored = self.space.record.representations
            name = next((n for n in ("float32", "float16") if n in stored), stored[0])
            read = np.asarray(self.arrays[f"{name}.npy"][part])
            vectors = dequantize(self.space.transform.quantizers, read, name).astype(np.float64)
            self.arrays[SQUARES][part] = (vectors**2).sum(axis=1)

    def finish(self, rows: int) -> None:
        """Write what is in memory, and cut what the rows of deleted documents would have taken."""
        for name, array in self.arrays.items():
            array.flush()
            if len(array) != rows:
                _cut(self.folder / name, array, rows)


def has_lists(space: Space) -> bool:
    """Return whether groups have inverted lists for approximate searches: with cells, unit vectors, and faiss."""
    is_able = space.transform.cells is not None and space.transform.normalization == "l2"
    return is_able and importlib.util.find_spec("faiss") is not None


def _write_lists(folder: Path, space: Space) -> None:
    if space.transform.cells is None:
        return
    name = finest_of(space.record.spec.representations, space.record.dimension).name
    codes, cells = (load_array(folder / file) for file in (f"{name}.npy", CELLS))
    vectors = (
        np.ascontiguousarray(
            dequantize(space.transform.quantizers, np.asarray(codes[first : first + _BLOCK_ROWS]), name)
        )
        for first in range(0, len(codes), _BLOCK_ROWS)
    )
    write_lists(folder / LISTS, vectors, cells, space.transform.cells)


def _cut(path: Path, array: Any, rows: int) -> None:
    short = path.with_suffix(".short")
    kept = np.lib.format.open_memmap(short, mode="w+", dtype=array.dtype, shape=(rows, *array.shape[1:]))
    _allocate(short)
    kept[:] = array[:rows]
    kept.flush()
    short.replace(path)


def _sparse_arrays(store: Store, manifest: Manifest, parts: Sequence[LivePart], verify: Verify) -> dict[str, Any]:
    """Return the arrays of the inverted index of sparse vectors."""
    space = load_sparse_space(store, str(manifest.sparse_space_id))
    vocabulary, grid, codes = space.record.vocabulary, space.record.grid, []
    for part in parts:
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


def _local_chunks(rows: pa.Table, documents: pa.Table, known: int, part: PartRecord) -> pa.Table:
    place = {doc_id: known + row for row, doc_id in enumerate(documents["doc_id"].to_pylist())}
    try:
        owners = [place[doc_id] for doc_id in rows["doc_id"].to_pylist()]
    except KeyError as error:
        raise MismatchError(f"{part.chunks.path}: document {error} is not in {part.documents.path}.") from error
    made = {"document": pa.array(owners, pa.int32())}
    missing = (field for field in _CHUNK_SCHEMA if field.name not in (*rows.column_names, *made))
    made |= {field.name: pa.nulls(rows.num_rows, field.type) for field in missing}
    columns = [made[name] if name in made else rows[name] for name in _CHUNK_SCHEMA.names]
    return pa.table(columns, names=_CHUNK_SCHEMA.names).cast(_CHUNK_SCHEMA)


def read_file(store: Store, ref: FileRef, verify: Verify) -> pa.Table:
    """Read a file of a snapshot; IntegrityError if its content (or, for `size`, its size) is not what was committed."""
    if verify == "content":
        return parse_parquet(read_verified(store, ref), ref.path)
    verify_file(store, ref, content=False)
    return parse_parquet(store.read(ref.path), ref.path)
