"""Figures of a snapshot that follow from those of its base are those that all of its documents give."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from isospace.collection.live_rows import live_parts
from isospace.collection.metadata_schema import read_fields
from isospace.collection.part_changes import count_chunks, count_live, fields_after, part_changes
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.operations.maintenance.compact import write_deletions
from isospace.storage.parquet import FileRef, write_parquet
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import file_ref, manifest

DECLARED = {"year": "integer", "never": "boolean"}
VALUES: list[Any] = [1, "2", 3.5, "2024-01-31", "word", True, None, "", ["a"], {"x": 1}]


def part(store: Store, name: str, documents: dict[str, dict[str, Any]], *, chunks: int = 2) -> PartRecord:
    """Write documents with their metadata, and some chunks of each."""
    texts = [json.dumps(metadata) for metadata in documents.values()]
    docs = write_parquet(store, f"documents/{name}", pa.table({"doc_id": list(documents), "metadata": texts}))
    ids = [doc_id for doc_id in documents for _ in range(chunks)]
    return PartRecord(
        name=name,
        documents=docs,
        chunks=write_parquet(store, f"chunks/{name}", pa.table({"doc_id": pa.array(ids, pa.string())})),
        segment=file_ref(f"segment/{name}"),
    )


def snapshot_of(store: Store, parts: list[PartRecord], gone: dict[str, set[str]], **declared: Any) -> Manifest:
    """Return a snapshot with the figures that all of its documents give."""
    deletions = write_deletions(store, "c", gone)
    types = declared.get("types", DECLARED)
    return manifest(
        1,
        parts=tuple(parts),
        deletions=deletions,
        chunks=total(store, parts, deletions),
        metadata=read_fields(store, parts, deletions, types),
        recipe={"documents": {"metadata_types": types}},
    )


def total(store: Store, parts: list[PartRecord], deletions: FileRef | None) -> int:
    return sum(count_live(store, one.record, one.deleted) for one in live_parts(store, parts, deletions))


@pytest.mark.parametrize("seed", range(12))
def test_figures_follow_from_those_of_the_base(tmp_path: Path, seed: int) -> None:
    chance, store = random.Random(seed), open_store(tmp_path)

    def made(number: int) -> PartRecord:
        names = [f"{number}-{n}" for n in range(chance.randrange(1, 6))]
        metadata = [{key: chance.choice(VALUES) for key in ("year", "tag") if chance.random() < 0.8} for _ in names]
        return part(store, f"p{number}", dict(zip(names, metadata, strict=True)), chunks=chance.randrange(1, 4))

    def ids(record: PartRecord) -> list[str]:
        return [f"{record.name[1:]}-{n}" for n in range(record.documents.rows or 0)]

    parts = [made(number) for number in range(6)]
    gone = {one.name: set(chance.sample(ids(one), chance.randrange(len(ids(one))))) for one in parts[:4]}
    base = snapshot_of(store, parts, {name: lost for name, lost in gone.items() if lost})
    for round_ in range(4):
        kept = [one for one in base.parts if chance.random() < 0.8]
        records = [*kept, made(100 * (round_ + 1))]
        for one in kept:
            gone.setdefault(one.name, set()).update(chance.sample(ids(one), chance.randrange(2)))
        lost = {one.name: gone[one.name] for one in kept if gone.get(one.name)}
        after = snapshot_of(store, records, lost)
        changes = part_changes(store, base, records, after.deletions)
        assert count_chunks(store, base, changes) == after.chunks
        assert fields_after(store, base, changes, DECLARED) == after.metadata
        base = after


def test_nothing_is_read_of_parts_that_stay(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    one, two = part(store, "one", {"a": {"year": 1}, "b": {}}), part(store, "two", {"c": {"year": 2}})
    base = snapshot_of(store, [one, two], {"one": {"b"}})
    new = part(store, "new", {"d": {"year": "x"}})
    for path in ("documents/one", "chunks/one", "documents/two", "chunks/two"):
        store.delete(path)
    changes = part_changes(store, base, [one, two, new], base.deletions)
    assert [change.record.name for change in changes] == ["new"]
    assert count_chunks(store, base, changes) == 6
    fields = fields_after(store, base, changes, DECLARED)
    assert fields is not None
    year = next(field for field in fields if field.name == "year")
    assert (year.values, year.odd) == (3, 1)


def test_a_part_with_other_files_is_counted_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    one = part(store, "one", {"a": {"year": 1}, "b": {}})
    base = snapshot_of(store, [one], {})
    other = part(store, "other", {"a": {"year": 1}}, chunks=5)
    moved = one.model_copy(update={"documents": other.documents, "chunks": other.chunks})
    changes = part_changes(store, base, [moved], None)
    assert [(change.before is None, change.after is None) for change in changes] == [(False, True), (True, False)]
    assert count_chunks(store, base, changes) == 5


def test_a_base_that_does_not_tell_or_is_wrong_is_not_used(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    one = part(store, "one", {"a": {"year": 1}, "b": {"year": "word"}})
    base = snapshot_of(store, [one], {})
    changes = part_changes(store, base, [], None)
    assert fields_after(store, base, changes, {}) is None
    assert fields_after(store, base.model_copy(update={"metadata": None}), changes, DECLARED) is None
    assert base.metadata is not None
    wrong = tuple(field.model_copy(update={"odd": 0}) for field in base.metadata)
    assert fields_after(store, base.model_copy(update={"metadata": wrong}), changes, DECLARED) is None
    assert fields_after(store, base, changes, DECLARED) == read_fields(store, [], None, DECLARED)
