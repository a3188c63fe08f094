"""Raw vectors: append-only Parquet parts, keyed by encoder, role and the hash of the encoded text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.origins import Origin, distinct, origin_of
from isospace.errors import IntegrityError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, sha256_arrays
from isospace.storage.parquet import fixed_binary, from_fixed_binary, metadata_of, read_parquet, write_parquet
from isospace.storage.scratch_duckdb import load_columns
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_HASH = np.dtype("V32")
# Metadata that describe the file; all others are the provenance of its vectors.
FILE_METADATA = ("encoder_id", "role", "content_sha256", "provenance_sha256")
_SEALED_FIELDS = ("bits", "batch_invariant", "cosine")


def vector_parts(store: Store, encoder_id: str) -> list[str]:
    """Return the paths of all parts with document vectors of an encoder, sorted."""
    return [
        stat.path
        for stat in store.walk(layout.vectors_folder(encoder_id, "document"))
        if stat.path.endswith(".parquet")
    ]


def vector_part_path(encoder_id: str, shard_id: str, role: Role = "document") -> str:
    """Return the path of the part that one encoding shard writes."""
    return f"{layout.vectors_folder(encoder_id, role)}/{shard_id}.parquet"


def write_vectors(
    store: Store,
    encoder_id: str,
    shard_id: str,
    hashes: Sequence[bytes],
    vectors: Float32,
    *,
    provenance: Mapping[str, str],
    role: Role = "document",
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
    """
    table = pa.table({"chunk_hash": pa.array(list(hashes), pa.binary(32)), "vector": fixed_binary(vectors)})
    content = sha256_arrays({"chunk_hash": _hash_array(table["chunk_hash"]), "vector": vectors})
    metadata = part_metadata(encoder_id, role, content, provenance)
    write_parquet(store, vector_part_path(encoder_id, shard_id, role), table, metadata=metadata, arrow_schema=False)


def vector_origins(store: Store, encoder_id: str) -> tuple[Origin, ...]:
    """Return the origins of all raw vectors of an encoder, one for each class of bits."""
    parts = vector_parts(store, encoder_id)
    return distinct(_origin(read_parquet(store, path, columns=["chunk_hash"]), path) for path in parts)


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


def _read_part(store: Store, path: str, encoder_id: str) -> tuple[list[bytes], Float32, Origin]:
    table = read_parquet(store, path, columns=["chunk_hash", "vector"])
    vectors = from_fixed_binary(table["vector"], np.dtype("<f4"))
    content = sha256_arrays({"chunk_hash": _hash_array(table["chunk_hash"]), "vector": vectors})
    require_part(table, path, encoder_id, content)
    return table["chunk_hash"].to_pylist(), vectors, _origin(table, path)


def part_metadata(encoder_id: str, role: Role, content: str, provenance: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata of a part of raw vectors, dense or sparse; `content` is the SHA-256 of its arrays."""
    sealed = {"content_sha256": content, "provenance_sha256": fingerprint(dict(provenance))}
    return {"encoder_id": encoder_id, "role": role, **sealed, **provenance}


def require_part(table: pa.Table, path: str, encoder_id: str, content: str) -> None:
    """Compare a part of raw vectors, dense or sparse, with its metadata and its folder.

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
    if content != metadata.get("content_sha256"):
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
    for path in paths:
        part_hashes, vectors, origin = _read_part(store, path, encoder_id)
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
    for path in paths:
        part_hashes, vectors = read_vectors(store, path, encoder_id)
        for position, key in enumerate(part_hashes):
            if key in wanted and key not in found:
                found[key] = vectors[position].copy()
    return found


def locate(connection: DuckDBPyConnection, wanted: str) -> Iterator[tuple[int, list[int]]]:
    """Yield, for each part in the table `wanted`, the numbers of the vector parts with its chunks.

    `wanted` has the columns part and chunk_hash. `load_vector_hashes` must have filled the table `vectors`.
    """
    # A hash in several parts always belongs to the first one. The semi join first drops the many vectors that are not
    # wanted.
    query = f"""
        WITH home AS (
            SELECT chunk_hash, min(part) AS home FROM vectors SEMI JOIN {wanted} USING (chunk_hash) GROUP BY chunk_hash
        )
        SELECT w.part, list(DISTINCT home.home ORDER BY home.home)
        FROM {wanted} w JOIN home USING (chunk_hash) GROUP BY w.part ORDER BY w.part
    """
    result = connection.execute(query)
    while rows := result.fetchmany(1000):
        yield from ((int(part), [int(home) for home in homes]) for part, homes in rows)


def load_vector_hashes(connection: DuckDBPyConnection, store: Store, encoder_id: str) -> list[str]:
    """Fill the table `vectors` with the hashes of every part; return the paths of the parts by number."""
    return list(load_vectors(connection, store, encoder_id))


def load_vectors(connection: DuckDBPyConnection, store: Store, encoder_id: str) -> dict[str, Origin]:
    """Fill the table `vectors` with the hashes of every part; return the origin of each part by path, in order."""
    paths = vector_parts(store, encoder_id)
    origins: dict[str, Origin] = {}

    def note(path: str, table: pa.Table) -> None:
        origins[path] = _origin(table, path)

    load_columns(connection, "vectors", store, paths, {"chunk_hash": "BLOB"}, on_table=note)
    return origins


def reused_origins(connection: DuckDBPyConnection, wanted: str, origins: Mapping[str, Origin]) -> tuple[Origin, ...]:
    """Return the origins of those vectors whose hashes are in the table `wanted`, after `load_vectors`."""
    known = list(origins.values())
    query = f"""
        SELECT DISTINCT home FROM (
            SELECT min(part) AS home FROM vectors SEMI JOIN {wanted} USING (chunk_hash) GROUP BY chunk_hash
        )
    """
    return distinct(known[number] for (number,) in connection.execute(query).fetchall())


def _origin(table: pa.Table, path: str) -> Origin:
    """Return what computed the vectors of a part; parts of older versions do not seal it, and count as unrecorded."""
    metadata = metadata_of(table)
    provenance = {key: value for key, value in metadata.items() if key not in FILE_METADATA}
    if (sealed := metadata.get("provenance_sha256")) is None:
        return origin_of({key: value for key, value in provenance.items() if key not in _SEALED_FIELDS})
    if (digest := fingerprint(provenance)) != sealed:
        raise IntegrityError(
            f"{path}: what computed its vectors has SHA-256 {digest[:16]}…, expected {sealed[:16]}…. Delete the file "
            "and run the pipeline again, which re-encodes its texts."
        )
    return origin_of(provenance)


def _hash_array(column: pa.ChunkedArray) -> npt.NDArray[np.uint8]:
    return from_fixed_binary(column, np.dtype("u1"))
