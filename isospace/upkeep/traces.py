"""What documents leave behind outside the parts of a snapshot: raw vectors, samples, queries made from them, reports."""

from __future__ import annotations

import hashlib
import html
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from isospace import layout
from isospace.affine import ROLES
from isospace.evaluation.sets import EvaluationSet, list_sets, read_set, replace_version, set_versions
from isospace.fingerprint import seal, sha256, unseal
from isospace.joins import load_columns, scratch_database
from isospace.parquet import metadata_of, parse_parquet, read_parquet, write_parquet
from isospace.store import Store
from isospace.vectors import read_vectors, vector_part_path, write_vectors

_WORD = re.compile(r"\w+")
# So many words in a row that are those of a document make a quotation.
_QUOTED_WORDS = 5
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
        if any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", plain) for name in self.names):
            return True
        return not self.quotations.isdisjoint(_quotations(plain))


def forget_vectors(
    store: Store, trace: Trace, holders: Collection[str], scratch: Path, memory_mb: int,
    removed: list[str], rewritten: list[str],
) -> int:  # fmt: skip
    """Remove the raw vectors of chunks that are in no other document of any collection; return how many.

    `holders` are the chunk parts that are about to be removed.
    """
    # What pseudo-queries were tried on is text cut out of chunks, which no hash leads back to: all of it can be made again.
    for encoder_id in store.folders("vectors"):
        for role in ROLES:
            for stat in store.walk(layout.vectors_folder(encoder_id, role)):
                if stat.path.rsplit("/", 1)[-1].startswith("trial-"):
                    store.delete(stat.path)
                    removed.append(stat.path)
    hashes = _unshared(store, trace.hashes, holders, scratch, memory_mb)
    count = 0
    for encoder_id in store.folders("vectors") if hashes else ():
        for role in ROLES:
            for stat in list(store.walk(layout.vectors_folder(encoder_id, role))):
                held = read_parquet(store, stat.path, columns=["chunk_hash"])
                if hashes.isdisjoint(held["chunk_hash"].to_pylist()):
                    continue
                keys, vectors = read_vectors(store, stat.path, encoder_id)
                left = [place for place, key in enumerate(keys) if key not in hashes]
                count += len(keys) - len(left)
                if left:
                    kept = [keys[place] for place in left]
                    name = hashlib.sha256(b"".join(kept)).hexdigest()
                    told = {key: value for key, value in metadata_of(held).items() if key not in _ROLES_OF_FILES}
                    write_vectors(store, encoder_id, name, kept, vectors[left], provenance=told, role=role)
                    rewritten.append(vector_part_path(encoder_id, name, role))
                store.delete(stat.path)
                removed.append(stat.path)
    return count


def forget_references(
    store: Store, collection: str, doc_ids: Collection[str], trace: Trace, rewritten: list[str]
) -> None:
    """Leave the documents out of the samples that audits compare with."""
    for stat in list(store.walk(f"collections/{collection}/references")):
        if not stat.path.endswith(".json"):
            continue
        record = unseal(store.read(stat.path), name=stat.path)
        path = record["sample"]["path"]
        table = parse_parquet(store.read(path), path)
        keep = [
            doc_id not in doc_ids and key not in trace.hashes
            for doc_id, key in zip(table["doc_id"].to_pylist(), table["chunk_hash"].to_pylist(), strict=True)
        ]
        if all(keep) and sha256(store.read(path)) == record["sample"]["sha256"]:
            continue
        sample = write_parquet(store, path, table.filter(pa.array(keep, pa.bool_())), replace=True)
        store.write(stat.path, seal({**record, "sample": sample.model_dump(mode="json")}))
        rewritten += [path, stat.path]


def forget_queries(store: Store, collection: str, doc_ids: Set[str], removed: list[str], rewritten: list[str]) -> int:
    """Leave queries that were made from the documents out of every version of every evaluation set; return how many."""
    count = 0
    for current in list_sets(store, collection):
        for record in set_versions(store, collection, current.name):
            if record.kind != "pseudo":
                continue
            known = read_set(store, collection, record.name, set_id=record.set_id)
            gone = {query for query, found in known.judgements.items() if doc_ids & found.keys()}
            if not gone:
                continue
            count += len(gone)
            written = replace_version(store, collection, record, _left(known, gone))
            files = [ref.path for ref in (record.queries_file, record.judgements_file) if ref is not None]
            new = {ref.path for ref in (written.queries_file, written.judgements_file) if ref is not None}
            for path in set(files) - new:
                store.delete(path)
                removed.append(path)
            rewritten += sorted(new)
    return count


def forget_reports(store: Store, trace: Trace, doc_ids: Collection[str], removed: list[str]) -> None:
    """Remove reports that name the documents or quote them."""
    looked = Trace(set(), {*trace.names, *doc_ids}, trace.quotations)
    for stat in list(store.walk("reports")):
        if any(looked.is_in(text) for text in _readings(store.read(stat.path), stat.path)):
            store.delete(stat.path)
            removed.append(stat.path)


def _readings(data: bytes, path: str) -> Iterator[str]:
    text = data.decode("utf-8", errors="replace")
    yield text
    if path.endswith(".json"):
        # As it is shown, not as JSON escapes it.
        yield json.dumps(json.loads(text), ensure_ascii=False)


def _unshared(store: Store, hashes: set[bytes], holders: Collection[str], scratch: Path, memory_mb: int) -> set[bytes]:
    """Return those hashes that no other chunk of any collection has."""
    if not hashes:
        return set()
    parts = [stat.path for n in store.folders("collections") for stat in store.walk(f"collections/{n}/chunks")]
    paths = [path for path in parts if path not in set(holders)]
    with scratch_database(scratch, memory_mb=memory_mb) as connection:
        load_columns(connection, "others", store, paths, {"chunk_hash": "BLOB"})
        wanted = pa.table({"chunk_hash": pa.array(sorted(hashes), pa.binary())})
        connection.register("wanted", wanted)
        rows = connection.execute("SELECT chunk_hash FROM wanted ANTI JOIN others USING (chunk_hash)").fetchall()
    return {bytes(key) for (key,) in rows}


def _left(known: EvaluationSet, gone: Collection[str]) -> EvaluationSet:
    def without(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in found.items() if name not in gone}

    return EvaluationSet(
        name=known.name, kind=known.kind, queries=without(known.queries), judgements=without(known.judgements),
        attributes={column: without(values) for column, values in known.attributes.items()},
        remainders=without(known.remainders),
    )  # fmt: skip


def _quotations(text: str) -> Iterator[tuple[str, ...]]:
    words = [word.lower() for word in _WORD.findall(text)]
    yield from zip(*(words[start:] for start in range(_QUOTED_WORDS)), strict=False)
