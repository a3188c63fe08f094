"""The baseline of audits: a permanent sample of the collection as it was when its space was fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from isospace.collection.raw_vectors import gather
from isospace.collection.sampling import bottom_k
from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.collection.vector_homes import find_files
from isospace.errors import NotFoundError
from isospace.evaluation.ranking import live_keys
from isospace.storage.hashing import seal, unseal
from isospace.storage.parquet import (
    FileRef,
    fixed_binary,
    from_fixed_binary,
    parse_parquet,
    read_verified,
    write_parquet,
)
from isospace.storage.store import Store

SIZE = 2_000
_SEED = 0


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    space_id: str
    snapshot: int
    snapshot_id: str
    chunks: int
    duplicates: float
    sample: FileRef


@dataclass(frozen=True, slots=True)
class Reference:
    """A collection as it was when its space was fitted.

    Attributes
    ----------
    snapshot
        Number of the first snapshot in the space.
    chunks
        Number of its chunks.
    duplicates
        Share of chunks whose text also occurs in an earlier document.
    owners
        The document of each vector.
    raw
        (n, d) float32 raw vectors of a sample of different texts.
    """

    snapshot: int
    chunks: int
    duplicates: float
    owners: tuple[str, ...]
    raw: npt.NDArray[np.float32]


def read_reference(store: Store, manifest: Manifest, dimension: int) -> Reference:
    """Return the baseline of a snapshot's space; the first call draws it from the oldest snapshot in that space.

    Parameters
    ----------
    store, manifest
        A snapshot in the space.
    dimension
        d, the dimension of the encoder's raw vectors.

    Raises
    ------
    IntegrityError
        If the stored sample is damaged, or a raw vector for a new one is missing.
    """
    path = manifest.paths.reference_record(manifest.space_id)
    if not store.exists(path) and not _created(store, manifest, dimension):
        # An erasure removed the sample, which no record named yet.
        store.delete(path)
        _created(store, manifest, dimension)
    record, table = _read(store, path)
    raw = from_fixed_binary(table["vector"], np.dtype("<f4")).reshape(len(table), -1)
    return Reference(record.snapshot, record.chunks, record.duplicates, tuple(table["doc_id"].to_pylist()), raw)


def _created(store: Store, manifest: Manifest, dimension: int) -> bool:
    """Draw a sample and write its record; return whether the sample is still there."""
    record = _draw(store, _oldest(store, manifest), dimension)
    store.create_if_absent(manifest.paths.reference_record(manifest.space_id), seal(record.model_dump(mode="json")))
    return store.exists(record.sample.path)


def verify_reference(store: Store, manifest: Manifest) -> None:
    """Read the baseline of a snapshot's space if there is one; IntegrityError or NotFoundError if it is damaged."""
    path = manifest.paths.reference_record(manifest.space_id)
    if store.exists(path):
        _read(store, path)


def _read(store: Store, path: str) -> tuple[_Record, pa.Table]:
    record = _Record.model_validate(unseal(store.read(path), name=path))
    return record, parse_parquet(read_verified(store, record.sample), record.sample.path)


def duplicate_share(keys: list[tuple[str, bytes]]) -> float:
    """Return the share of chunks whose text also occurs in an earlier document."""
    first: dict[bytes, str] = {}
    copies = sum(first.setdefault(key, owner) != owner for owner, key in keys)
    return copies / max(len(keys), 1)


def _oldest(store: Store, manifest: Manifest) -> Manifest:
    for number in sequences(store, manifest.collection):
        try:
            older = read_manifest(store, manifest.collection, number)
        except NotFoundError:
            continue
        if older.space_id == manifest.space_id:
            return older
    return manifest


def _draw(store: Store, manifest: Manifest, dimension: int) -> _Record:
    keys = live_keys(store, manifest)
    owner_of: dict[bytes, str] = {}
    for owner, key in keys:
        owner_of.setdefault(key, owner)
    drawn = bottom_k((key for _, key in keys), SIZE, _SEED)
    raw = gather(store, manifest.encoder_id, find_files(store, manifest.encoder_id, drawn), drawn, dimension)
    columns: dict[str, Any] = {
        "doc_id": pa.array([owner_of[key] for key in drawn], pa.string()),
        "chunk_hash": pa.array(drawn, pa.binary(32)),
        "vector": fixed_binary(raw),
    }
    path = manifest.paths.reference_sample(manifest.space_id, manifest.snapshot_id)
    sample = write_parquet(store, path, pa.table(columns), metadata={"space_id": manifest.space_id})
    return _Record(
        space_id=manifest.space_id,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        chunks=len(keys),
        duplicates=duplicate_share(keys),
        sample=sample,
    )
