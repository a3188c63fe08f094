"""Manifests written by hand."""

from __future__ import annotations

from typing import Any

from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.storage.hashing import sha256
from isospace.storage.parquet import FileRef
from isospace.storage.store import Store


def file_ref(name: str, *, content: str | None = None, size: int = 1) -> FileRef:
    return FileRef(path=name, size=size, sha256=sha256((content or name).encode()), rows=1)


def part_record(name: str, **changes: FileRef) -> PartRecord:
    files = {kind: file_ref(f"{kind}/{name}") for kind in ("documents", "chunks", "segment")}
    return PartRecord(name=name, **{**files, **changes})


def manifest(sequence: int = 1, **changes: Any) -> Manifest:
    """Return a snapshot of one part; its ID depends on the sequence unless it is given."""
    given: dict[str, Any] = {
        "collection": "c",
        "snapshot_id": f"{sequence:x}" * 64,
        "documents_digest": "d",
        "space_id": "s" * 64,
        "encoder_id": "e" * 64,
        "chunking_id": "k" * 64,
        "recipe": {},
        "documents": 1,
        "chunks": 1,
        "parts": (part_record("one"),),
        "deletions": None,
        "quarantine": None,
        "sealed_files": (),
        "provenance": {"run_id": f"run {sequence}"},
    }
    return Manifest(sequence=sequence, **{**given, **changes})


def written(store: Store, snapshot: Manifest) -> Manifest:
    """Write the files that a snapshot names and that do not exist."""
    for ref in snapshot.files():
        store.create_if_absent(ref.path, b"x" * ref.size)
    return snapshot
