"""Time and size of the serving database after a change: made from the earlier one, and from every part.

    python -m benchmarks.serving [--chunks 80000] [--rounds 5] [--work FOLDER]

A document has ten chunks of about 700 characters, with random vectors of 384 dimensions as float32 and int8; a part has
400 documents. Every round replaces another hundredth of the documents, spread over all parts, as a run after an edit
does: the earlier versions are deleted, and the later ones are in a new part. No model is needed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.search.sql_database import build_serving, serving_files
from isospace.search.sql_record import read_serving_record
from isospace.storage.hashing import fingerprint
from isospace.storage.parquet import FileRef, fixed_binary, write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store, open_store
from isospace.transform.representations import Float32Spec, Int8Spec

COLLECTION, SPACE_ID, DIMENSION, CHUNKS, PART_DOCUMENTS = "c", "5" * 64, 384, 10, 400
PATHS = CollectionPaths(COLLECTION)
WORDS = np.array([f"{number:05x}" for number in range(30_000)])


def stub_space() -> Any:
    """Return what of a space is needed to build the database: here, vectors are stored as they are."""
    spec = SimpleNamespace(normalization="l2", representations=(Float32Spec(), Int8Spec()))
    record = SimpleNamespace(dimension=DIMENSION, spec=spec, representations=("float32", "int8"))
    plain = SimpleNamespace(decode=lambda codes: codes)
    quantizers = SimpleNamespace(by_name={"float32": plain, "int8": plain})
    return SimpleNamespace(space_id=SPACE_ID, record=record, transform=SimpleNamespace(quantizers=quantizers))


def write_part(store: Store, doc_ids: Sequence[str], version: int) -> PartRecord:
    """Write the documents, chunks, and vectors of one part."""
    name = fingerprint([*doc_ids, version])
    chance = np.random.default_rng(int(name[:8], 16))
    rows = len(doc_ids) * CHUNKS
    owners = [doc_id for doc_id in doc_ids for _ in range(CHUNKS)]
    texts = [" ".join(row) for row in WORDS[chance.integers(0, len(WORDS), (rows, 117))]]
    vectors = chance.standard_normal((rows, DIMENSION), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    documents = {
        "doc_id": doc_ids,
        "uri": doc_ids,
        "title": doc_ids,
        "metadata": ["{}"] * len(doc_ids),
        "doc_hash": [fingerprint([doc_id, version]) for doc_id in doc_ids],
    }
    chunks = {
        "chunk_id": [f"{doc_id}:{number}" for doc_id in doc_ids for number in range(CHUNKS)],
        "doc_id": owners,
        "uri": owners,
        "title": owners,
        "start": np.arange(rows),
        "end": np.arange(rows) + 700,
        "n_tokens": pa.array([180] * rows, pa.int32()),
        "text": texts,
    }
    segment = {
        "chunk_id": chunks["chunk_id"],
        "doc_id": owners,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
        "int8": fixed_binary(np.rint(vectors * 500).clip(-127, 127).astype(np.int8)),
    }
    return PartRecord(
        name=name,
        documents=write_parquet(store, PATHS.documents(name), pa.table(documents)),
        chunks=write_parquet(store, PATHS.chunks(name), pa.table(chunks), dictionary=["doc_id", "uri", "title"]),
        segment=write_parquet(store, PATHS.segment(SPACE_ID, name), pa.table(segment), metadata={"space_id": SPACE_ID}),
    )


def write_deletions(store: Store, gone: dict[str, str]) -> FileRef | None:
    """Write the list of deleted documents, given their parts."""
    if not gone:
        return None
    table = pa.table({"part": list(gone.values()), "doc_id": [key.rpartition("@")[0] for key in gone]})
    return write_parquet(store, PATHS.deletions(fingerprint(gone)), table)


def commit(store: Store, number: int, parts: Sequence[PartRecord], gone: dict[str, str], documents: int) -> Manifest:
    """Commit a snapshot of these parts."""
    return commit_manifest(
        store,
        Manifest(
            collection=COLLECTION,
            sequence=number,
            snapshot_id=fingerprint(["snapshot", number]),
            documents_digest=fingerprint(["documents", number]),
            space_id=SPACE_ID,
            encoder_id="e" * 64,
            chunking_id="c" * 64,
            recipe={},
            documents=documents,
            chunks=documents * CHUNKS,
            parts=tuple(parts),
            deletions=write_deletions(store, gone),
            quarantine=None,
            sealed_files=(),
            provenance={"run_id": str(number)},
        ),
    )


def timed(store: Store, manifest: Manifest, folder: Path, *, from_scratch: bool) -> str:
    """Build the database anew; return seconds and MB as cells of a table."""
    for path in serving_files(manifest):
        store.delete(path)
    began = time.perf_counter()
    build_serving(store, manifest, stub_space(), folder, table_rows=2 * manifest.chunks, from_scratch=from_scratch)
    seconds = time.perf_counter() - began
    made = "" if from_scratch or read_serving_record(store, manifest).reused else " (from every part)"
    return f"{seconds:.2f}{made} | {store.size(serving_files(manifest)[0]) / 1e6:,.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=80_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--work", type=Path)
    arguments = parser.parse_args()
    ids = [f"d{number:08d}" for number in range(arguments.chunks // CHUNKS)]
    with tempfile.TemporaryDirectory(dir=arguments.work) as name:
        store = open_store(f"{name}/store")
        parts = [
            write_part(store, ids[start : start + PART_DOCUMENTS], 0) for start in range(0, len(ids), PART_DOCUMENTS)
        ]
        # Which part has the current version of a document.
        owner = {doc_id: parts[place // PART_DOCUMENTS].name for place, doc_id in enumerate(ids)}
        gone: dict[str, str] = {}
        print("| snapshot | from every part, s | MB | from the earlier one, s | MB |")
        print("| ---: | ---: | ---: | ---: | ---: |")
        for number in range(1, arguments.rounds + 2):
            if number > 1:
                edited = ids[number % 100 :: 100]
                gone |= {f"{doc_id}@{number}": owner[doc_id] for doc_id in edited}
                parts.append(write_part(store, edited, number))
                owner |= dict.fromkeys(edited, parts[-1].name)
            manifest = commit(store, number, parts, gone, len(ids))
            cells = [timed(store, manifest, Path(name), from_scratch=flag) for flag in (True, False)]
            print(f"| {number} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
