"""A lexical index as earlier versions wrote it: one file of scores for a snapshot, and a record that names it."""

from __future__ import annotations

from isospace.collection.snapshot import Manifest, files_digest
from isospace.search.lexical_record import lexical_record_path
from isospace.search.spec import LexicalSpec
from isospace.storage.hashing import seal, sha256
from isospace.storage.store import Store


def write_earlier_lexical(store: Store, manifest: Manifest, spec: LexicalSpec, content: bytes = b"scores") -> str:
    """Replace the record of a snapshot's index; return the path of the file of scores."""
    digest = files_digest(manifest)
    path = manifest.paths.lexical_index(manifest.snapshot_id, digest)
    store.write(path, content)
    body = {
        "path": path,
        "size": len(content),
        "sha256": sha256(content),
        "files": digest,
        "spec": spec.model_dump(mode="json"),
        "versions": {"bm25s": "0.2"},
    }
    store.write(lexical_record_path(manifest), seal(body))
    return path
