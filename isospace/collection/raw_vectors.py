"""Raw vectors: append-only Parquet parts, keyed by encoder, role and the hash of the encoded text."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.origins import Origin, distinct
from isospace.collection.vector_files import part_origin, vector_part_path, vector_parts
from isospace.collection.vector_index.pending import announce
from isospace.errors import IntegrityError
from isospace.storage.hashing import fingerprint, sha256_arrays
from isospace.storage.parquet import (
    fixed_binary,
    from_fixed_binary,
    metadata_of,
    read_groups_with,
    read_parquet,
    write_parquet,
)
from isospace.storage.read_ranges import prefetch
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.vectors import Float32

# A few megabytes of vectors. Who needs some rows of a large file reads their groups alone.
_GROUP_ROWS = 2_048
# Parts that are read, or announced to the system, before they are needed.
_AHEAD = 16


def write_vectors(
    store: Store,
    encoder_id: str,
    shard_id: str,
    hashes: Sequence[bytes],
    vectors: Float32,
    *,
    provenance: Mapping[str, str],
    role: Role = "document",
    announced: bool = False,
) -> None:
    """Write the raw vectors of one encoding shard; an existing part stays.

    Parameters
    ----------
    hashes
        n chunk hashes of 32 bytes.
    vectors
        (n, d) float32.
    provenance
        What computed them, from `isospace.encoding.bits.computed_by`: metadata of the part.
    announced
        Whether the plan has announced the part, so that the index of raw vectors will find it.
    """
    if not announced and role == "document":
        announce(store, encoder_id, [shard_id])
    table = pa.table({"chunk_hash": pa.array(list(hashes), pa.binary(32)), "vector": fixed_binary(vectors)})
    content = sha256_arrays({"chunk_hash": _hash_array(table["chunk_hash"]), "vector": vectors})
    metadata = part_metadata(encoder_id, role, content, provenance)
    path = vector_part_path(encoder_id, shard_id, role)
    write_parquet(store, path, table, metadata=metadata, arrow_schema=False, group_rows=_GROUP_ROWS)


def vector_origins(store: Store, encoder_id: str) -> tuple[Origin, ...]:
    """Return the origins of all raw vectors of an encoder, one for each class of bits."""
    parts = vector_parts(store, encoder_id)
    return distinct(part_origin(read_parquet(store, path, columns=["chunk_hash"]), path) for path in parts)


def read_vectors(store: Store, path: str, encoder_id: str) -> tuple[list[bytes], Float32]:
    """Read one part and verify its content.

    Returns
    -------
    tuple
        n chunk hashes, and (n, d) float32 raw vectors.

    Raises
    ------
    IntegrityError
        If the content was changed, or belongs to another encoder, or to another role than that of its folder.
    """
    hashes, vectors, _ = _read_part(store, path, encoder_id)
    return hashes, vectors


def _read_parts(
    store: Store, paths: Iterable[str], encoder_id: str, wanted: Collection[bytes]
) -> Iterator[tuple[list[bytes], Float32, Origin]]:
    """Yield parts as `_read_part` returns them, and read some ahead; none once nothing is wanted any more."""
    some = list(paths)
    with ThreadPoolExecutor(_AHEAD) as pool:
        for first in range(0, len(some), _AHEAD):
            if not wanted:
                return
            window = some[first : first + _AHEAD]
            if store.root is None:
                yield from pool.map(lambda path: _read_part(store, path, encoder_id, wanted), window)
                continue
            prefetch(store, some[first + _AHEAD : first + 2 * _AHEAD] if first else some[: 2 * _AHEAD])
            yield from (_read_part(store, path, encoder_id, wanted) for path in window)


def _read_part(
    store: Store, path: str, encoder_id: str, wanted: Collection[bytes] | None = None
) -> tuple[list[bytes], Float32, Origin]:
    """Read a part, or those of its row groups that hold a wanted hash.

    The SHA-256 of the content covers all rows. Of some, the CRC-32 of each page is verified, that of the hashes too.
    """

    def holds(column: pa.ChunkedArray) -> bool:
        return wanted is None or any(key in wanted for key in column.to_pylist())

    table, whole = read_groups_with(store, path, "chunk_hash", ["chunk_hash", "vector"], holds)
    vectors = from_fixed_binary(table["vector"], np.dtype("<f4"))
    content = sha256_arrays({"chunk_hash": _hash_array(table["chunk_hash"]), "vector": vectors}) if whole else None
    require_part(table, path, encoder_id, content)
    return table["chunk_hash"].to_pylist(), vectors, part_origin(table, path)


def part_metadata(encoder_id: str, role: Role, content: str, provenance: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a part of raw vectors, dense or sparse; `content` is the SHA-256 of its arrays."""
    sealed = {"content_sha256": content, "provenance_sha256": fingerprint(dict(provenance))}
    return {"encoder_id": encoder_id, "role": role, **sealed, **provenance}


def require_part(table: pa.Table, path: str, encoder_id: str, content: str | None) -> None:
    """Compare a part of raw vectors, dense or sparse, with its metadata and its folder.

    `content` is the SHA-256 of its arrays; None if not all rows were read.

    Raises
    ------
    IntegrityError
        If its content was changed, or it belongs to another encoder, or to another role than that of its folder.
    """
    metadata = metadata_of(table)
    for field, expected in (("encoder_id", encoder_id), ("role", PurePosixPath(path).parent.name)):
        if metadata.get(field) != expected:
            raise IntegrityError(
                f"{path}: field {field} is {str(metadata.get(field))[:16]}…, expected {expected[:16]}…. Delete the "
                "file and run the pipeline again, which re-encodes its texts."
            )
    if content is not None and content != metadata.get("content_sha256"):
        raise IntegrityError(
            f"{path}: its vectors have SHA-256 {content[:16]}…, expected {str(metadata.get('content_sha256'))[:16]}…. "
            "Delete the file and run the pipeline again, which re-encodes its texts."
        )


def gather(
    store: Store,
    encoder_id: str,
    paths: Iterable[str],
    hashes: Sequence[bytes],
    dimension: int,
    *,
    partial: bool = False,
) -> Float32:
    """Collect the raw vectors of chunk hashes from the parts that contain them.

    Parameters
    ----------
    paths
        Parts that together contain every hash. For a hash in several parts, the first part counts.
    hashes
        n chunk hashes, which may repeat.
    dimension
        d.
    partial
        Skip hashes that are in none of the parts, instead of raising an error.

    Returns
    -------
    numpy.ndarray
        (n, d) float32, in the order of `hashes`.

    Raises
    ------
    IntegrityError
        If a hash is in none of the parts.
    """
    return gather_with_origins(store, encoder_id, paths, hashes, dimension, partial=partial)[0]


def gather_with_origins(
    store: Store,
    encoder_id: str,
    paths: Iterable[str],
    hashes: Sequence[bytes],
    dimension: int,
    *,
    partial: bool = False,
) -> tuple[Float32, tuple[Origin, ...]]:
    """Collect raw vectors as `gather` does, and return them with the origins that they have."""
    places: dict[bytes, list[int]] = {}
    for row, key in enumerate(hashes):
        places.setdefault(key, []).append(row)
    result = np.empty((len(hashes), dimension), np.float32)
    origins = []
    for part_hashes, vectors, origin in _read_parts(store, paths, encoder_id, places.keys()):
        wanted = len(places)
        for position, key in enumerate(part_hashes):
            if rows := places.pop(key, None):
                result[rows] = vectors[position]
        if len(places) < wanted:
            origins.append(origin)
    if places and partial:
        missing = {row for rows in places.values() for row in rows}
        return result[[row for row in range(len(hashes)) if row not in missing]], distinct(origins)
    if places:
        raise IntegrityError(
            f"{len(places)} of {len(hashes)} chunks have no raw vector under vectors/{encoder_id[:16]}…. A part was "
            "deleted while the run used it: run the same command again."
        )
    return result, distinct(origins)


def find_vectors(store: Store, encoder_id: str, paths: Iterable[str], hashes: Iterable[bytes]) -> dict[bytes, Float32]:
    """Return the (d,) float32 raw vectors of those chunk hashes that the parts contain; the first part counts."""
    wanted, found = set(hashes), dict[bytes, Float32]()
    for part_hashes, vectors, _ in _read_parts(store, paths, encoder_id, wanted):
        for position, key in enumerate(part_hashes):
            if key in wanted and key not in found:
                found[key] = vectors[position].copy()
    return found


def _hash_array(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    return from_fixed_binary(column, np.dtype("u1"))
