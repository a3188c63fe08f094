"""What documents leave behind outside the parts of a snapshot: raw vectors, samples, queries made from them, reports."""

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

from isospace.collection.raw_vectors import read_vectors, vector_part_path, write_vectors
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
# So many words in a row that are those of a document make a quotation.
_QUOTED_WORDS = 5
_TELLING = 6
_ROLES_OF_FILES = ("encoder_id", "role", "content_sha256")


@dataclass(frozen=True, slots=True)
class Trace:
    """What documents can be found by where their ids are not.

    Attributes
    ----------
    hashes
        Of their chunks, in every version of them.
    names
        Their ids, uris and titles.
    quotations
        Every few words in a row of their texts.
    """

    hashes: set[bytes] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    quotations: set[tuple[str, ...]] = field(default_factory=set)

    def add_documents(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add documents: rows with doc_id, uri, title, text."""
        for row in rows:
            self.names.update(name for name in (row["doc_id"], row["uri"], row["title"]) if name)
            self.quotations.update(_quotations(f"{row['title']} {row['text']}"))

    def add_chunks(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add chunks: rows with doc_id, uri, title, text, chunk_hash."""
        found = list(rows)
        self.add_documents(found)
        self.hashes.update(row["chunk_hash"] for row in found)

    def is_in(self, text: str) -> bool:
        """Tell whether a text names one of the documents or quotes it."""
        plain = html.unescape(text)
        # A short id or title says nothing by itself: it counts where it stands alone, as a value or a cell.
        for name in self.names:
            left, right = (r"(?<!\w)", r"(?!\w)") if len(name) >= _TELLING else (r"[\">]", r"[\"<]")
            if re.search(left + re.escape(name) + right, plain):
                return True
        return not self.quotations.isdisjoint(_quotations(plain))


def forget_vectors(
    store: Store, holders: Collection[str], scratch: Path, memory_mb: int, removed: list[str], rewritten: list[str]
) -> int:
    """Remove the raw vectors of texts that are in no chunk of any collection; return how many.

    `holders` are the chunk parts that are about to be removed. Vectors of older versions go too, whose chunks a vacuum
    took: nothing tells whose they were.
    """
    # What pseudo-queries were tried on is text cut out of chunks, which no hash leads back to: all of it can be made
    # again.
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
                kept = [keys[place] for place in left]
                name = hashlib.sha256(b"".join(kept)).hexdigest()
                metadata = metadata_of(read_parquet(store, path, columns=["chunk_hash"]))
                told = {key: value for key, value in metadata.items() if key not in _ROLES_OF_FILES}
                write_vectors(store, encoder_id, name, kept, vectors[left], provenance=told)
                rewritten.append(vector_part_path(encoder_id, name))
            store.delete(path)
            removed.append(path)
    return count


def forget_references(
    store: Store, collection: str, doc_ids: Collection[str], trace: Trace, rewritten: list[str]
) -> None:
    """Leave the documents out of the samples that audits compare with."""
    folder = CollectionPaths(collection).folder("references")
    records = {
        stat.path: unseal(store.read(stat.path), name=stat.path)
        for stat in store.walk(folder)
        if stat.path.endswith(".json")
    }
    named = {record["sample"]["path"] for record in records.values()}
    for stat in list(store.walk(folder)):
        if stat.path.endswith(".parquet") and stat.path not in named:
            # Of a draw that was killed: it is drawn again.
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
    """Return the path of a sample that a record names, which is about to be written to."""
    if parse_collection_path(path) != CollectionFile(collection, "references"):
        raise IntegrityError(
            f"{path[:200]!r}: named as the sample of a reference of collection {collection!r}; expected a file in "
            f"{CollectionPaths(collection).folder('references')}. The record was forged or damaged: delete it, and the "
            "next audit draws another sample."
        )
    return path


def forget_queries(store: Store, collection: str, doc_ids: Set[str], removed: list[str], rewritten: list[str]) -> int:
    """Leave queries that were made from the documents out of every version of every evaluation set; return how many."""
    count = 0
    for current in list_sets(store, collection):
        for record in set_versions(store, collection, current.name):
            if record.kind != "pseudo":
                continue
            known = read_set(store, collection, record.name, set_id=record.set_id)
            gone = {query for query, found in known.judgements.items() if doc_ids & found.keys()}
            if gone:
                count += len(gone)
                replace_version(store, collection, record, _left(known, gone))
        # Several versions may share files, and a killed order may have left some: what no version names goes.
        versions = set_versions(store, collection, current.name)
        named = {ref.path for v in versions for ref in (v.queries_file, v.judgements_file) if ref is not None}
        for stat in list(store.walk(CollectionPaths(collection).evaluation_set(current.name))):
            if stat.path.endswith(".parquet") and stat.path not in named:
                store.delete(stat.path)
                removed.append(stat.path)
        rewritten += sorted(named) if count else []
    return count


def forget_reports(store: Store, trace: Trace, doc_ids: Collection[str], removed: list[str]) -> None:
    """Remove reports that name the documents or quote them."""
    looked = Trace(set(), {*trace.names, *doc_ids}, trace.quotations)
    for stat in list(store.walk(REPORTS)):
        if any(looked.is_in(text) for text in _readings(store.read(stat.path), stat.path)):
            store.delete(stat.path)
            removed.append(stat.path)


def _readings(data: bytes, path: str) -> Iterator[str]:
    text = data.decode("utf-8", errors="replace")
    yield text
    if path.endswith(".json"):
        # As it is shown, not as JSON escapes it.
        yield json.dumps(json.loads(text), ensure_ascii=False)


def _unowned(
    store: Store, paths: Sequence[str], holders: Collection[str], scratch: Path, memory_mb: int
) -> list[tuple[str, set[int]]]:
    """Return the parts with rows that no chunk of any collection has, and these rows."""
    folders = [CollectionPaths(name).folder("chunks") for name in list_collections(store)]
    chunks = [stat.path for folder in folders for stat in store.walk(folder)]
    with scratch_database(scratch, memory_mb=memory_mb) as connection:
        load_columns(connection, "owned", store, [p for p in chunks if p not in set(holders)], {"chunk_hash": "BLOB"})
        load_columns(connection, "vectors", store, paths, {"chunk_hash": "BLOB"})
        query = "SELECT part, list(row) FROM vectors ANTI JOIN owned USING (chunk_hash) GROUP BY part ORDER BY part"
        return [(paths[part], set(rows)) for part, rows in connection.execute(query).fetchall()]


def _left(known: EvaluationSet, gone: Collection[str]) -> EvaluationSet:
    def without(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name not in gone}

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
