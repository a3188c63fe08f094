"""Sparse vectors in a store: raw ones by encoder, role, and hash of the text; codes by part, one row per chunk."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from isospace.collection.raw_vectors import part_metadata, require_part
from isospace.collection.vector_files import vector_part_path
from isospace.collection.vector_index.pending import announce
from isospace.errors import IntegrityError, MismatchError
from isospace.storage.hashing import sha256_arrays
from isospace.storage.parquet import from_fixed_binary, read_parquet, write_parquet
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.sparse import SparseGrid, SparseVectors, joined_rows, require_sparse

TERMS, WEIGHTS, IMPACTS = "terms", "weights", "impacts"


def write_sparse_vectors(
    store: Store,
    encoder_id: str,
    shard_id: str,
    hashes: Sequence[bytes],
    vectors: SparseVectors,
    *,
    provenance: Mapping[str, str],
    role: Role = "document",
    announced: bool = False,
) -> None:
    """Write the raw sparse vectors of one encoding shard; an existing part stays.

    Parameters
    ----------
    hashes
        n chunk hashes of 32 bytes.
    vectors
        n vectors with float32 weights.
    provenance
        What computed them: metadata of the part.
    announced
        Whether the plan has announced the part, so that the index of raw vectors will find it.
    """
    if not announced and role == "document":
        announce(store, encoder_id, [shard_id])
    table = pa.table(
        {
            "chunk_hash": pa.array(list(hashes), pa.binary(32)),
            TERMS: _lists(vectors.starts, pa.array(vectors.terms, pa.int32())),
            WEIGHTS: _lists(vectors.starts, pa.array(vectors.values, pa.float32())),
        }
    )
    metadata = part_metadata(encoder_id, role, _content(table, vectors), provenance)
    write_parquet(store, vector_part_path(encoder_id, shard_id, role), table, metadata=metadata)


def read_sparse_vectors(store: Store, path: str, encoder_id: str) -> tuple[list[bytes], SparseVectors]:
    """Read one part of raw sparse vectors, and verify its content.

    Raises
    ------
    IntegrityError
        If the content was changed, or belongs to another encoder or role than its folder says.
    """
    table = read_parquet(store, path, columns=["chunk_hash", TERMS, WEIGHTS])
    vectors = _vectors(table, WEIGHTS, path)
    require_part(table, path, encoder_id, _content(table, vectors))
    return table["chunk_hash"].to_pylist(), vectors


def gather_sparse(store: Store, encoder_id: str, paths: Iterable[str], hashes: Sequence[bytes]) -> SparseVectors:
    """Collect the raw sparse vectors of chunk hashes, which may repeat, from the parts that contain them.

    Raises
    ------
    IntegrityError
        If a hash is in none of the parts.
    """
    wanted, found = set(hashes), {}
    for path in paths:
        keys, vectors = read_sparse_vectors(store, path, encoder_id)
        for number, key in enumerate(keys):
            if key in wanted and key not in found:
                found[key] = vectors.row(number)
    if missing := len(wanted - found.keys()):
        raise IntegrityError(
            f"{missing} of {len(wanted)} texts have no sparse vector under vectors/{encoder_id[:16]}…. A part was "
            "deleted while the run used it: run the same command again."
        )
    return joined_rows(found[key] for key in hashes)


def code_columns(codes: SparseVectors) -> dict[str, pa.Array]:
    """Return the columns of a segment that hold sparse codes, one row per chunk."""
    return {
        TERMS: _lists(codes.starts, pa.array(codes.terms, pa.int32())),
        IMPACTS: _lists(codes.starts, pa.array(codes.values, pa.from_numpy_dtype(codes.values.dtype))),
    }


def read_sparse_codes(table: pa.Table, grid: SparseGrid, vocabulary: int, path: str) -> SparseVectors:
    """Return the sparse codes of a segment, one row per chunk.

    Raises
    ------
    IntegrityError
        If a column is missing, of another type, or holds terms outside the vocabulary.
    """
    if missing := [name for name in (TERMS, IMPACTS) if name not in table.column_names]:
        raise IntegrityError(f"{path}: lacks the columns {', '.join(missing)}. Restore the segment.")
    expected = pa.list_(pa.from_numpy_dtype(grid.dtype("document")))
    if table[IMPACTS].type != expected:
        raise IntegrityError(
            f"{path}: column {IMPACTS} has the type {table[IMPACTS].type}, expected {expected}. Restore the segment."
        )
    codes = _vectors(table, IMPACTS, path)
    try:
        require_sparse(codes, vocabulary, path)
    except MismatchError as error:
        raise IntegrityError(f"{error} Restore the segment.") from error
    return codes


def _lists(starts: np.ndarray, values: pa.Array) -> pa.Array:
    # Offsets of a list array have 32 bits, which bounds a part to 2**31 entries: 2,000 documents have far fewer.
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def _vectors(table: pa.Table, column: str, path: str) -> SparseVectors:
    terms, values = (_flat(table[name]) for name in (TERMS, column))
    if not np.array_equal(terms[0], values[0]):
        raise IntegrityError(f"{path}: columns {TERMS} and {column} have rows of different length. Restore the file.")
    return SparseVectors(terms[0], terms[1], values[1])


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return the starts and the values of a column of lists."""
    pieces = [piece for piece in column.chunks if len(piece)]
    lengths = [np.diff(piece.offsets.to_numpy()) for piece in pieces]
    starts = np.concatenate([[0], *lengths]).cumsum().astype(np.int64)
    empty = pa.array([], column.type.value_type).to_numpy()
    return starts, np.concatenate([empty, *(piece.flatten().to_numpy() for piece in pieces)])


def _content(table: pa.Table, vectors: SparseVectors) -> str:
    hashes = from_fixed_binary(table["chunk_hash"], np.dtype("u1"))
    arrays = {"chunk_hash": hashes, "starts": vectors.starts, TERMS: vectors.terms, WEIGHTS: vectors.values}
    return sha256_arrays(arrays)
