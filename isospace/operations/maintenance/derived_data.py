"""Erase data derived from documents: raw vectors, samples, pseudo-queries."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence, Set
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from isospace.collection.raw_vectors import read_vectors, write_vectors
from isospace.collection.sparse_vectors import read_sparse_vectors, write_sparse_vectors
from isospace.collection.tombstones import forgotten_documents
from isospace.collection.vector_files import FILE_METADATA, vector_part_path
from isospace.collection.vector_index.manifests import drop_index
from isospace.errors import IntegrityError
from isospace.evaluation.query_sets import EvaluationSet, SetRecord, read_version, replace_version, set_versions
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.numbered_log import entry_paths
from isospace.storage.parquet import metadata_of, parse_parquet, read_parquet, write_parquet
from isospace.storage.paths import (
    CollectionFile,
    CollectionPaths,
    list_collections,
    list_encoders_with_vectors,
    parse_collection_path,
    sparse_encoder_document,
    vectors_folder,
)
from isospace.storage.scratch_duckdb import load_columns, scratch_database
from isospace.storage.store import Store
from isospace.transform.affine import ROLES


def forget_vectors(
    store: Store, holders: Collection[str], scratch: Path, memory_mb: int, removed: list[str], rewritten: list[str]
) -> int:
    """Remove the raw vectors of texts that are in no chunk of any collection; return how many.

    `holders` are the chunk parts that are about to be removed. The vectors of chunks that a vacuum removed go too: it
    is no longer known which documents they belonged to.
    """
    # Vectors of trials belong to texts cut out of chunks, which cannot be traced to documents. They can be recomputed.
    for encoder_id in list_encoders_with_vectors(store):
        for role in ROLES:
            for stat in store.walk(vectors_folder(encoder_id, role)):
                if stat.path.rsplit("/", 1)[-1].startswith("trial-"):
                    store.delete(stat.path)
                    removed.append(stat.path)
    count = 0
    for encoder_id in list_encoders_with_vectors(store):
        folder = vectors_folder(encoder_id, "document")
        paths = [stat.path for stat in store.walk(folder) if stat.path.endswith(".parquet")]
        for path, rows in _unowned(store, paths, holders, scratch, memory_mb):
            written = _without_rows(store, encoder_id, path, rows)
            count += len(rows)
            rewritten += [] if written is None else [written]
            store.delete(path)
            removed.append(path)
        # It has the hashes of erased texts, also of those that a killed attempt has erased.
        if holders or removed:
            drop_index(store, encoder_id)
    return count


def _without_rows(store: Store, encoder_id: str, path: str, rows: Collection[int]) -> str | None:
    """Write the other rows of a part of raw vectors, dense or sparse; return the path, None if none is left."""
    metadata = metadata_of(read_parquet(store, path, columns=["chunk_hash"]))
    provenance = {key: value for key, value in metadata.items() if key not in FILE_METADATA}
    if store.exists(sparse_encoder_document(encoder_id)):
        keys, sparse = read_sparse_vectors(store, path, encoder_id)
        left = [place for place in range(len(keys)) if place not in rows]
        remaining = [keys[place] for place in left]
        name = hashlib.sha256(b"".join(remaining)).hexdigest()
        if left:
            write_sparse_vectors(store, encoder_id, name, remaining, sparse.take(left), provenance=provenance)
    else:
        keys, vectors = read_vectors(store, path, encoder_id)
        left = [place for place in range(len(keys)) if place not in rows]
        remaining = [keys[place] for place in left]
        name = hashlib.sha256(b"".join(remaining)).hexdigest()
        if left:
            write_vectors(store, encoder_id, name, remaining, vectors[left], provenance=provenance)
    return vector_part_path(encoder_id, name) if left else None


def forget_references(
    store: Store, collection: str, doc_ids: Collection[str], hashes: Collection[bytes], rewritten: list[str]
) -> None:
    """Remove the documents from the reference samples of audits; `hashes` are those of their chunks.

    A sample that cannot be read, or whose record cannot, is removed: the next audit draws another.
    """
    folder = CollectionPaths(collection).folder("references")
    records = _reference_records(store, folder)
    named = {record["sample"]["path"] for record in records.values()}
    for stat in list(store.walk(folder)):
        if stat.path.endswith(".parquet") and stat.path not in named:
            # A run was killed before it wrote the record of this sample; the sample will be drawn again.
            store.delete(stat.path)
    for path, record in records.items():
        sample = _own_sample(collection, record["sample"]["path"])
        if not store.exists(sample):
            store.delete(path)
            continue
        try:
            table = parse_parquet(store.read(sample), sample)
        except IntegrityError:
            store.delete(path)
            store.delete(sample)
            continue
        keep = [
            doc_id not in doc_ids and key not in hashes
            for doc_id, key in zip(table["doc_id"].to_pylist(), table["chunk_hash"].to_pylist(), strict=True)
        ]
        if all(keep) and sha256(store.read(sample)) == record["sample"]["sha256"]:
            continue
        left = table.filter(pa.array(keep, pa.bool_()))
        # A new file, so that the record names a whole one at any moment.
        digest = sha256(b"".join(left["chunk_hash"].to_pylist()))
        target = CollectionPaths(collection).reference_sample(PurePosixPath(path).stem, digest)
        written = write_parquet(store, target, left, replace=True)
        store.write(path, seal({**record, "sample": written.model_dump(mode="json")}))
        if target != sample:
            store.delete(sample)
        rewritten += [target, path]


def _reference_records(store: Store, folder: str) -> dict[str, dict[str, Any]]:
    """Return the records of reference samples by path; remove those that are damaged."""
    records: dict[str, dict[str, Any]] = {}
    for path in [stat.path for stat in store.walk(folder) if stat.path.endswith(".json")]:
        try:
            records[path] = unseal(store.read(path), name=path)
        except IntegrityError:
            store.delete(path)
    return records


def _own_sample(collection: str, path: str) -> str:
    """Return the path of a reference's sample; IntegrityError if it is outside the folder of references."""
    if parse_collection_path(path) != CollectionFile(collection, "references"):
        raise IntegrityError(
            f"{path[:200]!r}: a reference of collection {collection!r} names this file as its sample; expected a file "
            f"in {CollectionPaths(collection).folder('references')}. The record was forged or damaged: delete it, and "
            "the next audit draws another sample."
        )
    return path


def forget_queries(store: Store, collection: str, doc_ids: Set[str], removed: list[str], rewritten: list[str]) -> int:
    """Remove queries that only forgotten documents answer from all evaluation sets; return how many.

    A version of a set that cannot be read is removed, since it may hold pseudo-queries.
    """
    count, forgotten = 0, doc_ids | forgotten_documents(store, collection)
    for name in store.folders(CollectionPaths(collection).folder("evaluation")):
        folder = CollectionPaths(collection).evaluation_set(name)
        for path in entry_paths(store, folder).values():
            found = _readable_set(store, collection, path)
            if found is None:
                store.delete(path)
                removed.append(path)
                continue
            record, known = found
            left = known.without_answers(forgotten)
            if len(left.queries) < len(known.queries):
                count += len(known.queries) - len(left.queries)
                replace_version(store, collection, record, left)
        # Versions may share files, and a killed forget may have left some: remove those that no version names.
        versions = set_versions(store, collection, name)
        named = {ref.path for v in versions for ref in (v.queries_file, v.judgements_file) if ref is not None}
        unnamed = [s.path for s in store.walk(folder) if s.path not in {*named, *entry_paths(store, folder).values()}]
        for path in unnamed:
            store.delete(path)
        removed += unnamed
        rewritten += sorted(named) if count else []
    return count


def _readable_set(store: Store, collection: str, path: str) -> tuple[SetRecord, EvaluationSet] | None:
    """Return a version of an evaluation set; None if its record or its files are damaged."""
    try:
        record = SetRecord.model_validate(unseal(store.read(path), name=path))
        return record, read_version(store, record)
    except (IntegrityError, ValidationError, KeyError):
        return None


def _unowned(
    store: Store, paths: Sequence[str], holders: Collection[str], scratch: Path, memory_mb: int
) -> list[tuple[str, set[int]]]:
    """Return the parts of raw vectors that hold rows of no chunk in any collection, with those rows."""
    folders = [CollectionPaths(name).folder("chunks") for name in list_collections(store)]
    chunks = [stat.path for folder in folders for stat in store.walk(folder)]
    with scratch_database(scratch, memory_mb=memory_mb) as connection:
        load_columns(connection, "owned", store, [p for p in chunks if p not in set(holders)], {"chunk_hash": "BLOB"})
        load_columns(connection, "vectors", store, paths, {"chunk_hash": "BLOB"})
        query = "SELECT part, list(row) FROM vectors ANTI JOIN owned USING (chunk_hash) GROUP BY part ORDER BY part"
        return [(paths[part], set(rows)) for part, rows in connection.execute(query).fetchall()]
