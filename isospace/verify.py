"""Verify a snapshot: every byte of it, what it was made from, and what its encoder computes today."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from isospace.alias import aliases, resolve
from isospace.encoder_files import fetch_encoder, read_encoder_record
from isospace.errors import IsospaceError
from isospace.opening import open_space
from isospace.parquet import FileRef, parse_parquet, read_verified
from isospace.segments import require_space
from isospace.serving import verify_serving
from isospace.snapshot import Manifest, read_manifest, sequences
from isospace.store import Store
from isospace.vectors import read_vectors, vector_parts


@dataclass(frozen=True, slots=True)
class Verified:
    """Outcome of a verification.

    Attributes
    ----------
    snapshot
        Number of the snapshot.
    snapshot_id
        Its identity.
    files, bytes
        What was read and hashed.
    failures
        One message a fault; empty if all holds.
    """

    snapshot: int
    snapshot_id: str
    files: int
    bytes: int
    failures: tuple[str, ...]


def verify_snapshot(store: Store, collection: str, reference: str = "production", *, device: str = "auto") -> Verified:
    """Read every file of a snapshot, its raw vectors, its serving database and the collection's history.

    Parameters
    ----------
    store
        The store.
    collection
        Name of the collection.
    reference
        An alias, a number or the start of a snapshot_id.
    device
        torch device for the probes.

    Returns
    -------
    Verified
        With every fault found, not only the first.
    """
    manifest = resolve(store, collection, reference)
    failures: list[str] = []
    for number in sequences(store, collection):
        _attempt(failures, lambda number=number: read_manifest(store, collection, number))  # type: ignore[misc]
    _attempt(failures, lambda: aliases(store, collection))
    segments = {part.segment.path for part in manifest.parts}
    for ref in manifest.files():
        _attempt(failures, lambda ref=ref: _verify(store, ref, segments, manifest))  # type: ignore[misc]
    parts = vector_parts(store, manifest.encoder_id)
    for path in parts:
        _attempt(failures, lambda path=path: read_vectors(store, path, manifest.encoder_id))  # type: ignore[misc]
    _attempt(failures, lambda: verify_serving(store, manifest))
    _attempt(failures, lambda: fetch_encoder(store, read_encoder_record(store, manifest.encoder_id)))
    if not failures:
        # With damaged files the probes could only repeat what was said already.
        _attempt(failures, lambda: open_space(store, manifest.space_id, device=device))
    refs = manifest.files()
    return Verified(
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        files=len(refs) + len(parts) + 1,
        bytes=sum(ref.size for ref in refs),
        failures=tuple(dict.fromkeys(failures)),
    )


def _verify(store: Store, ref: FileRef, segments: set[str], manifest: Manifest) -> None:
    data = read_verified(store, ref)
    if ref.path in segments:
        require_space(parse_parquet(data, ref.path, columns=["chunk_id"]), ref.path, manifest.space_id)


def _attempt(failures: list[str], action: Callable[[], object]) -> None:
    try:
        action()
    except IsospaceError as error:
        failures.append(str(error))
