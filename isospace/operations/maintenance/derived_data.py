"""Erase data derived from documents: raw vectors, samples, pseudo-queries, reports."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from isospace.collection.raw_vectors import FILE_METADATA, read_vectors, vector_part_path, write_vectors
from isospace.errors import IntegrityError
from isospace.evaluation.query_sets import EvaluationSet, list_sets, read_set, replace_version, set_versions
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.parquet import metadata_of, parse_parquet, read_parquet, write_parquet
from isospace.storage.paths import (
    REPORTS,
    CollectionFile,
    CollectionPaths,
    list_collections,
    list_encoders_with_vectors,
    parse_collection_path,
    vectors_folder,
)
from isospace.storage.scratch_duckdb import load_columns, scratch_database
from isospace.storage.store import Store
from isospace.transform.affine import ROLES

_WORD = re.compile(r"\w+")
# This many consecutive words of a document count as a quotation.
_QUOTED_WORDS = 5
# Names of at least this many characters are searched for anywhere in a text.
_DISTINCTIVE_LENGTH = 6


@dataclass(frozen=True, slots=True)
class Trace:
    """The hashes, names, and quotations that identify documents in files without their IDs."""

    hashes: set[bytes] = field(default_factory=set)
    """Hashes of the documents' chunks, in all versions."""
    names: set[str] = field(default_factory=set)
    """IDs, URIs, and titles of the documents."""
    quotations: set[tuple[str, ...]] = field(default_factory=set)
    """Every run of a few consecutive words in the documents."""

    def add_documents(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add documents: rows with doc_id, uri, title, text."""
        for row in rows:
            self.names.update(name for name in (row["doc_id"], row["uri"], row["title"]) if name)
            self.quotations.update(_quotations(f"{row['title']} {row['text']}"))

    def add_chunks(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add chunks: rows with doc_id, uri, title, text, chunk_hash."""
        chunks = list(rows)
        self.add_documents(chunks)
        self.hashes.update(chunk["chunk_hash"] for chunk in chunks)

    def is_in(self, text: str) -> bool:
        """Return whether a text names or quotes one of the documents."""
        plain = html.unescape(text)
        # A short ID or title may occur by chance: it counts only where it is a whole value or cell.
        for name in self.names:
            left, right = (r"(?<!\w)", r"(?!\w)") if len(name) >= _DISTINCTIVE_LENGTH else (r"[\">]", r"[\"<]")
            if re.search(left + re.escape(name) + right, plain):
                return True
        return not self.quotations.isdisjoint(_quotations(plain))


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
            keys, vectors = read_vectors(store, path, encoder_id)
            left = [place for place in range(len(keys)) if place not in rows]
            count += len(rows)
            if left:
                remaining = [keys[place] for place in left]
                name = hashlib.sha256(b"".join(remaining)).hexdigest()
                metadata = metadata_of(read_parquet(store, path, columns=["chunk_hash"]))
                provenance = {key: value for key, value in metadata.items() if key not in FILE_METADATA}
                write_vectors(store, encoder_id, name, remaining, vectors[left], provenance=provenance)
                rewritten.append(vector_part_path(encoder_id, name))
            store.delete(path)
            removed.append(path)
    return count


def forget_references(
    store: Store, collection: str, doc_ids: Collection[str], trace: Trace, rewritten: list[str]
) -> None:
    """Remove the documents from the reference samples of audits."""
    folder = CollectionPaths(collection).folder("references")
    records = {
        stat.path: unseal(store.read(stat.path), name=stat.path)
        for stat in store.walk(folder)
        if stat.path.endswith(".json")
    }
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
        table = parse_parquet(store.read(sample), sample)
        keep = [
            doc_id not in doc_ids and key not in trace.hashes
            for doc_id, key in zip(table["doc_id"].to_pylist(), table["chunk_hash"].to_pylist(), strict=True)
        ]
        if all(keep) and sha256(store.read(sample)) == record["sample"]["sha256"]:
            continue
        written = write_parquet(store, sample, table.filter(pa.array(keep, pa.bool_())), replace=True)
        store.write(path, seal({**record, "sample": written.model_dump(mode="json")}))
        rewritten += [sample, path]


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
    """Remove pseudo-queries made from the documents from all evaluation sets; return how many."""
    count = 0
    for current in list_sets(store, collection):
        for record in set_versions(store, collection, current.name):
            if record.kind != "pseudo":
                continue
            known = read_set(store, collection, record.name, set_id=record.set_id)
            gone = {query for query, judged in known.judgements.items() if doc_ids & judged.keys()}
            if gone:
                count += len(gone)
                replace_version(store, collection, record, _without_queries(known, gone))
        # Versions may share files, and a killed forget may have left some: remove those that no version names.
        versions = set_versions(store, collection, current.name)
        named = {ref.path for v in versions for ref in (v.queries_file, v.judgements_file) if ref is not None}
        for stat in list(store.walk(CollectionPaths(collection).evaluation_set(current.name))):
            if stat.path.endswith(".parquet") and stat.path not in named:
                store.delete(stat.path)
                removed.append(stat.path)
        rewritten += sorted(named) if count else []
    return count


def forget_reports(store: Store, trace: Trace, doc_ids: Collection[str], removed: list[str]) -> None:
    """Remove reports that name or quote the documents."""
    searched = Trace(set(), {*trace.names, *doc_ids}, trace.quotations)
    for stat in list(store.walk(REPORTS)):
        if any(searched.is_in(text) for text in _readings(store.read(stat.path), stat.path)):
            store.delete(stat.path)
            removed.append(stat.path)


def _readings(data: bytes, path: str) -> Iterator[str]:
    text = data.decode("utf-8", errors="replace")
    yield text
    if path.endswith(".json"):
        # Without the escapes of JSON.
        yield json.dumps(json.loads(text), ensure_ascii=False)


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


def _without_queries(known: EvaluationSet, gone: Collection[str]) -> EvaluationSet:
    def without(by_query: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in by_query.items() if name not in gone}

    return EvaluationSet(
        name=known.name,
        kind=known.kind,
        queries=without(known.queries),
        judgements=without(known.judgements),
        attributes={column: without(values) for column, values in known.attributes.items()},
        remainders=without(known.remainders),
    )


def _quotations(text: str) -> Iterator[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(text)]
    yield from zip(*(words[start:] for start in range(_QUOTED_WORDS)), strict=False)
