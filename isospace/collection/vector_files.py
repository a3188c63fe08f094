"""The files of raw vectors: their names, which of them exist, and what computed the vectors in them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

import pyarrow as pa

from isospace.collection.origins import Origin, origin_of
from isospace.errors import IntegrityError
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint
from isospace.storage.parquet import metadata_of
from isospace.storage.store import Store
from isospace.transform.affine import Role

# Metadata that describe the file; all others are the provenance of its vectors.
FILE_METADATA = ("encoder_id", "role", "content_sha256", "provenance_sha256")
_SEALED_FIELDS = ("bits", "batch_invariant", "cosine")
_SUFFIX = ".parquet"
# Names in one answer of an object store, and requests for single names in the time of such an answer.
_LISTED, _REQUESTS = 1_000, 32


def vector_parts(store: Store, encoder_id: str) -> list[str]:
    """Return the paths of all parts with document vectors of an encoder, sorted; this lists the whole folder."""
    folder = layout.vectors_folder(encoder_id, "document")
    return [stat.path for stat in store.walk(folder) if stat.path.endswith(_SUFFIX)]


def vector_part_path(encoder_id: str, shard_id: str, role: Role = "document") -> str:
    """Return the path of the part that one encoding shard writes."""
    return f"{layout.vectors_folder(encoder_id, role)}/{shard_id}{_SUFFIX}"


def name_of_part(path: str, encoder_id: str) -> str:
    """Return the name by which `vector_part_path` gives the path of a part of document vectors."""
    folder = layout.vectors_folder(encoder_id, "document")
    return str(PurePosixPath(path).relative_to(folder)).removesuffix(_SUFFIX)


def present_parts(store: Store, encoder_id: str, names: Sequence[str], *, among: int) -> set[str]:
    """Return those of the named parts of document vectors that exist.

    Parameters
    ----------
    names
        Names, as `name_of_part` returns them.
    among
        About how many parts there are. An object store is asked for each name, or for all that it has, whichever takes
        less time.
    """

    def exists(name: str) -> bool:
        return store.exists(vector_part_path(encoder_id, name))

    if store.root is None and len(names) > _REQUESTS * max(-(-among // _LISTED), 1):
        return set(names) & {name_of_part(path, encoder_id) for path in vector_parts(store, encoder_id)}
    # Of a local store, too: a disk answers many questions at once.
    with ThreadPoolExecutor(_REQUESTS) as pool:
        return {name for name, found in zip(names, pool.map(exists, names), strict=True) if found}


def part_origin(table: pa.Table, path: str) -> Origin:
    """Return what computed the vectors of a part; parts of older versions do not seal it, and count as unrecorded.

    Raises
    ------
    IntegrityError
        If it was changed.
    """
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
