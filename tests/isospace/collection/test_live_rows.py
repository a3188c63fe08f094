"""Rows of deleted documents are never yielded, and all others are, in the order of the parts."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from isospace.collection.deletions import DELETION_SCHEMA
from isospace.collection.live_rows import Kind, live_parts, live_rows, read_live
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.storage.parquet import read_parquet, write_parquet
from isospace.storage.store import Store, open_store

PARTS = {"one": ["a", "b", "c"], "two": ["d", "e"], "three": ["f", "a2"], "four": ["g"]}
# Of the first part one document, of the second all, of the third none, and one that is in another part.
DELETED = [("one", "b"), ("two", "d"), ("two", "e"), ("three", "a")]


def part(store: Store, name: str, doc_ids: list[str]) -> PartRecord:
    owners = [doc_id for doc_id in doc_ids for _ in range(2)]
    chunks = {"chunk_id": [f"{owner}:{n}" for n, owner in enumerate(owners)], "doc_id": owners, "text": owners}
    documents = {"doc_id": doc_ids, "title": [f"title {doc_id}" for doc_id in doc_ids]}
    return PartRecord(
        name=name,
        documents=write_parquet(store, f"documents/{name}.parquet", pa.table(documents)),
        chunks=write_parquet(store, f"chunks/{name}.parquet", pa.table(chunks)),
        segment=write_parquet(store, f"segments/{name}.parquet", pa.table({"doc_id": owners})),
    )


def snapshot(store: Store, deleted: list[tuple[str, str]]) -> Manifest:
    rows = pa.Table.from_pylist([{"part": name, "doc_id": doc_id} for name, doc_id in deleted], DELETION_SCHEMA)
    return Manifest(
        collection="c",
        sequence=1,
        snapshot_id="a" * 64,
        documents_digest="d",
        space_id="s",
        encoder_id="e",
        chunking_id="k",
        recipe={},
        documents=0,
        chunks=0,
        parts=tuple(part(store, name, doc_ids) for name, doc_ids in PARTS.items()),
        deletions=write_parquet(store, "deletions.parquet", rows) if deleted else None,
        quarantine=None,
        sealed_files=(),
        provenance={},
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@pytest.mark.parametrize(("kind", "times"), [("documents", 1), ("chunks", 2)])
def test_live_rows_come_part_by_part_in_order(store: Store, kind: Kind, times: int) -> None:
    tables = list(live_rows(store, snapshot(store, DELETED), kind, ["doc_id"]))
    expected = [["a", "c"], [], ["f", "a2"], ["g"]]
    assert [table["doc_id"].to_pylist() for table in tables] == [
        [doc_id for doc_id in doc_ids for _ in range(times)] for doc_ids in expected
    ]


def test_the_columns_asked_for_are_returned_and_no_others(store: Store) -> None:
    tables = list(live_rows(store, snapshot(store, DELETED), "chunks", ["text", "chunk_id"]))
    assert [table.column_names for table in tables] == [["text", "chunk_id"]] * len(PARTS)
    assert tables[0].to_pylist() == [
        {"text": "a", "chunk_id": "a:0"},
        {"text": "a", "chunk_id": "a:1"},
        {"text": "c", "chunk_id": "c:4"},
        {"text": "c", "chunk_id": "c:5"},
    ]


def test_without_deletions_every_row_is_live(store: Store) -> None:
    manifest = snapshot(store, [])
    tables = list(live_rows(store, manifest, "documents", ["doc_id"]))
    assert [table["doc_id"].to_pylist() for table in tables] == list(PARTS.values())


def test_a_segment_is_filtered_as_the_chunks_beside_it(store: Store) -> None:
    manifest = snapshot(store, DELETED)
    parts = list(live_parts(store, manifest.parts, manifest.deletions))
    assert [one.deleted for one in parts] == [{"b"}, {"d", "e"}, {"a"}, set()]
    segments = [one.live(read_parquet(store, one.record.segment.path)) for one in parts]
    chunks = list(live_rows(store, manifest, "chunks", ["doc_id"]))
    assert [table["doc_id"].to_pylist() for table in segments] == [table["doc_id"].to_pylist() for table in chunks]


def test_a_file_without_deletions_is_read_without_the_column_of_owners(store: Store) -> None:
    write_parquet(store, "bare.parquet", pa.table({"text": ["x"]}))
    assert read_live(store, "bare.parquet", ["text"], ()).to_pylist() == [{"text": "x"}]
