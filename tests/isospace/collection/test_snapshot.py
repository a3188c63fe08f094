"""Snapshots: what their identity covers, and which commit is whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.snapshot import (
    commit_manifest,
    documents_digest,
    files_digest,
    read_manifest,
    replace_manifest,
    sequences,
    snapshot_id,
)
from isospace.collection.tombstones import write_tombstone
from isospace.errors import ConflictError, IntegrityError, StoreError
from isospace.storage.local_store import LocalStore
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import file_ref, manifest, part_record, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


@pytest.mark.parametrize("changed", ["space_id", "chunking_id", "documents_digest"])
def test_each_part_of_the_content_changes_the_identity(changed: str) -> None:
    given = {"space_id": "s", "chunking_id": "k", "documents_digest": "d"}
    assert snapshot_id(**given) == snapshot_id(**dict(reversed(given.items())))
    assert snapshot_id(**given) != snapshot_id(**{**given, changed: "other"})


@pytest.mark.parametrize("column", [0, 1, 2])
def test_the_digest_of_documents_covers_id_content_and_location(column: int) -> None:
    rows = [("a", "hash a", "uri a"), ("b", "hash b", "uri b")]
    changed = [rows[0], tuple("x" if n == column else value for n, value in enumerate(rows[1]))]
    assert documents_digest(rows) == documents_digest(list(rows))
    assert documents_digest(rows) != documents_digest(changed)  # type: ignore[arg-type]


def test_the_digest_of_files_covers_parts_and_deletions_by_content() -> None:
    plain = manifest(1)
    deletions = manifest(1, deletions=file_ref("deletions/x"))
    others = [
        deletions,
        manifest(1, deletions=file_ref("deletions/x", content="other")),
        *(
            manifest(1, parts=(part_record("one", **{kind: file_ref("x")}),))
            for kind in ("documents", "chunks", "segment")
        ),
    ]
    assert files_digest(plain) == files_digest(manifest(2))
    assert len({files_digest(one) for one in (plain, *others)}) == len(others) + 1


def test_every_file_that_a_snapshot_needs_is_listed() -> None:
    lists = {"deletions": file_ref("deletions/x"), "quarantine": file_ref("quarantine/x")}
    found = manifest(1, sealed_files=(file_ref("space.json"),), **lists).files()
    expected = {"space.json", "documents/one", "chunks/one", "segment/one", "deletions/x", "quarantine/x"}
    assert {ref.path for ref in found} == expected
    assert len(manifest(1).files()) == 3


def test_a_manifest_comes_back_and_under_another_number_or_collection_it_is_refused(store: Store) -> None:
    first = written(store, manifest(1))
    assert commit_manifest(store, first) == first == read_manifest(store, "c", 1)
    data = store.read(first.paths.snapshot(1))
    for path in (first.paths.snapshot(2), manifest(1, collection="other").paths.snapshot(1)):
        store.write(path, data)
    for collection, number in (("c", 2), ("other", 1)):
        with pytest.raises(IntegrityError, match="does not match its path"):
            read_manifest(store, collection, number)


@pytest.mark.parametrize("is_same_content", [True, False])
def test_a_number_that_another_run_took_is_a_conflict_whatever_it_holds(store: Store, is_same_content: bool) -> None:
    commit_manifest(store, written(store, manifest(1, provenance={"run_id": "first"})))
    content = {} if is_same_content else {"snapshot_id": "f" * 64}
    with pytest.raises(ConflictError, match="run first committed snapshot"):
        commit_manifest(store, manifest(1, provenance={"run_id": "second"}, **content))


def test_a_commit_whose_answer_was_lost_is_found_again(store: Store) -> None:
    first = commit_manifest(store, written(store, manifest(1, provenance={"run_id": "mine", "committed_at": "09:00"})))
    assert commit_manifest(store, manifest(1, provenance={"run_id": "mine", "committed_at": "09:01"})) == first


@pytest.mark.parametrize("path", ["documents/one", "chunks/one", "segment/one"])
@pytest.mark.parametrize("content", [None, b"", b"longer"])
def test_a_file_that_is_missing_or_of_another_size_is_not_committed(
    store: Store, path: str, content: bytes | None
) -> None:
    made = written(store, manifest(1))
    store.delete(path)
    if content is not None:
        store.write(path, content)
    with pytest.raises(StoreError, match=f"{path}: is gone or has another size"):
        commit_manifest(store, made)
    assert sequences(store, "c") == []


@pytest.mark.parametrize("path", ["documents/one", "chunks/one", "segment/one"])
def test_a_commit_is_undone_if_a_file_vanishes_just_before_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    made = written(store, manifest(1))
    real = LocalStore.create

    def create(self: LocalStore, name: str, data: bytes) -> None:
        real(self, name, data)
        self.delete(path)

    monkeypatch.setattr(LocalStore, "create", create)
    with pytest.raises(StoreError, match=path):
        commit_manifest(store, made)
    assert sequences(store, "c") == []


@pytest.mark.parametrize("known", [0, 1, 2])
def test_nothing_is_committed_after_documents_were_forgotten(store: Store, known: int) -> None:
    for _ in range(2):
        write_tombstone(store, "c", "forget", (f"d{known}",), "asked for")
        write_tombstone(store, "c", "allow", (f"d{known}",), "a mistake")
    made = written(store, manifest(1))
    with pytest.raises(ConflictError, match="documents were forgotten"):
        commit_manifest(store, made, tombstones=known)
    assert commit_manifest(store, made, tombstones=4) == made


def test_a_snapshot_is_replaced_in_place_only_by_who_has_read_it(store: Store) -> None:
    first = commit_manifest(store, written(store, manifest(1)))
    second = first.model_copy(update={"snapshot_id": "b" * 64, "documents": 0})
    third = first.model_copy(update={"snapshot_id": "c" * 64, "documents": 7})
    replace_manifest(store, first, second)
    assert read_manifest(store, "c", 1) == second
    with pytest.raises(ConflictError, match="was replaced by another command"):
        replace_manifest(store, first, third)
    assert read_manifest(store, "c", 1) == second


@pytest.mark.parametrize("vanishes", ["before", "after"])
def test_a_snapshot_is_not_replaced_by_one_whose_files_are_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch, vanishes: str
) -> None:
    first = commit_manifest(store, written(store, manifest(1)))
    second = written(store, first.model_copy(update={"parts": (part_record("two"),), "snapshot_id": "b" * 64}))
    real = LocalStore.write

    def write(self: LocalStore, path: str, data: bytes, **options: bool) -> None:
        real(self, path, data, **options)
        self.delete("chunks/two")

    if vanishes == "before":
        store.delete("chunks/two")
    else:
        monkeypatch.setattr(LocalStore, "write", write)
    with pytest.raises(StoreError, match="chunks/two"):
        replace_manifest(store, first, second)
    assert read_manifest(store, "c", 1) == first
