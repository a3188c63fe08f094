"""A lexical index holds the postings of each part, which are written once, and is used for no other files."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from isospace.collection.live_rows import live_parts
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError, MismatchError, QueryError, StoreError
from isospace.search import lexical_files as module
from isospace.search.bm25 import LexicalIndex
from isospace.search.lexical_files import LexicalBuild, build_lexical, live_postings, verify_lexical
from isospace.search.lexical_record import (
    LexicalRecord,
    carry_absence,
    lexical_files,
    lexical_record_path,
    posting_paths,
    read_lexical_record,
    word_versions,
)
from isospace.search.postings import Postings, build_postings, merge_postings
from isospace.search.spec import LexicalSpec
from isospace.storage.hashing import seal, sha256, unseal
from isospace.storage.local_store import LocalStore
from isospace.storage.parquet import FileRef, write_parquet
from isospace.storage.store import Store, open_store
from tests.helpers.earlier_lexical import write_earlier_lexical
from tests.helpers.manifests import file_ref, manifest

ONE, TWO = ["the gene of the cell", "a protein", "the cell"], ["a membrane", "the cell wall"]
SPEC = LexicalSpec()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def part(store: Store, name: str, texts: Sequence[str], prefix: str = "") -> PartRecord:
    rows = [{"doc_id": f"{name}{n}", "prefix": prefix, "text": text} for n, text in enumerate(texts)]
    schema = pa.schema([("doc_id", pa.string()), ("prefix", pa.string()), ("text", pa.string())])
    chunks = write_parquet(store, f"chunks/{name}.parquet", pa.Table.from_pylist(rows, schema))
    return PartRecord(name=name, documents=file_ref("x"), chunks=chunks, segment=file_ref("x"))


def deletions(store: Store, *pairs: tuple[str, str]) -> FileRef:
    table = pa.table({"part": [name for name, _ in pairs], "doc_id": [doc for _, doc in pairs]})
    return write_parquet(store, f"deletions/{len(pairs)}.parquet", table)


def snapshot(store: Store, *parts: PartRecord, number: int = 1, **changes: Any) -> Manifest:
    given = parts or (part(store, "one", ONE), part(store, "two", TWO))
    return manifest(number, parts=given, recipe={"lexical": {"kind": "bm25"}}, **changes)


def read_lexical(store: Store, made: Manifest, record: LexicalRecord) -> dict[str, Any]:
    """Return the postings of all live chunks as one group."""
    return live_postings(store, made, record, list(live_parts(store, made.parts, made.deletions))).arrays()


def opened(store: Store, made: Manifest) -> LexicalIndex:
    record = read_lexical_record(store, made)
    assert record is not None
    return LexicalIndex(record.spec, (Postings(**read_lexical(store, made, record)),))


def found(store: Store, made: Manifest, query: str) -> list[int]:
    return [int(row) for row in opened(store, made).best(query, 100)[0]]


def files(store: Store) -> dict[str, bytes]:
    return {stat.path: store.read(stat.path) for stat in store.walk("collections/c/lexical")}


def test_every_part_gets_postings_once_and_rows_follow_each_other(store: Store) -> None:
    made = snapshot(store)
    assert build_lexical(store, made, SPEC) == LexicalBuild(2, 0)
    assert build_lexical(store, made, SPEC) is None
    assert set(files(store)) == set(lexical_files(store, made))
    assert found(store, made, "cell") == [0, 2, 4]
    assert found(store, made, "xylophone") == []
    verify_lexical(store, made)


def test_postings_are_those_of_all_texts(store: Store) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    record = read_lexical_record(store, made)
    assert record is not None
    expected = build_postings([ONE, TWO], SPEC).arrays()
    assert {name: array.tolist() for name, array in read_lexical(store, made, record).items()} == {
        name: array.tolist() for name, array in expected.items()
    }


def test_a_new_part_alone_is_written(store: Store) -> None:
    first = snapshot(store)
    build_lexical(store, first, SPEC)
    before = files(store)
    grown = snapshot(store, *first.parts, part(store, "three", ["a new cell"]), number=2)
    assert build_lexical(store, grown, SPEC) == LexicalBuild(1, 2)
    after = files(store)
    assert {path: after[path] for path in before} == before
    assert len(after) == len(before) + 2
    assert found(store, grown, "cell") == [0, 2, 4, 5]
    assert found(store, first, "cell") == [0, 2, 4]


def test_files_that_a_record_names_are_not_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = snapshot(store)
    build_lexical(store, first, SPEC)
    read: list[str] = []
    original = LocalStore.read
    monkeypatch.setattr(LocalStore, "read", lambda self, path: (read.append(path), original(self, path))[1])
    grown = snapshot(store, *first.parts, part(store, "three", ["a new cell"]), number=2)
    assert build_lexical(store, grown, SPEC) == LexicalBuild(1, 2)
    assert not [path for path in read if path.endswith(".safetensors")]


def test_deleted_documents_do_not_count_and_the_postings_stay(store: Store) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    shrunk = snapshot(store, *made.parts, number=2, deletions=deletions(store, ("one", "one0"), ("two", "two1")))
    assert build_lexical(store, shrunk, SPEC) == LexicalBuild(0, 2)
    left = LexicalIndex(SPEC, [build_postings([["a protein", "the cell", "a membrane"]], SPEC)])
    rows, scores = opened(store, shrunk).best("the cell", 9)
    assert (rows.tolist(), scores.tolist()) == ([1], left.best("the cell", 9)[1].tolist())
    assert opened(store, shrunk).share("cell") == pytest.approx(1 / 3)
    verify_lexical(store, shrunk)


def test_titles_are_indexed_where_they_are_encoded(store: Store) -> None:
    made = snapshot(store, part(store, "one", ["a protein", "b"], prefix="alpha "))
    build_lexical(store, made, SPEC)
    assert found(store, made, "alpha") == [0, 1]
    verify_lexical(store, made)


@pytest.mark.parametrize("spec", [LexicalSpec(k1=2.0), LexicalSpec(b=0.1)])
def test_k1_and_b_change_the_record_alone(store: Store, spec: LexicalSpec) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    before = opened(store, made)
    assert build_lexical(store, made, spec) == LexicalBuild(0, 2)
    assert opened(store, made).spec == spec
    assert opened(store, made).best("gene", 9)[1].tolist() != before.best("gene", 9)[1].tolist()


@pytest.mark.parametrize(
    "spec",
    [
        LexicalSpec(stopwords="english"),
        LexicalSpec(stemmer="english"),
        LexicalSpec(pattern=r"[a-z]{3,}"),
        LexicalSpec(tokenizer=2),
    ],
)
def test_other_words_are_other_files(store: Store, spec: LexicalSpec) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    before = set(lexical_files(store, made))
    assert build_lexical(store, made, spec) == LexicalBuild(2, 0)
    assert set(lexical_files(store, made)) & before == {lexical_record_path(made)}
    assert opened(store, made).spec == spec


def test_names_of_postings_cover_all_that_decides_words_and_nothing_else(store: Store) -> None:
    base = manifest(1, parts=(part(store, "one", ONE),))
    other = manifest(1, parts=(part(store, "one2", TWO),)).parts[0]

    def path(spec: LexicalSpec = SPEC, versions: dict[str, str] | None = None, made: Manifest = base) -> str:
        return posting_paths(made, spec, versions or word_versions(spec))[0]

    assert path(LexicalSpec(k1=0.0, b=0.0)) == path()
    changed = [
        path(),
        path(LexicalSpec(tokenizer=1)),
        path(LexicalSpec(tokenizer=2)),
        path(LexicalSpec(pattern="x")),
        path(LexicalSpec(stemmer="german")),
        path(LexicalSpec(stopwords="german")),
        path(versions={"unicode": "1"}),
        path(made=manifest(1, parts=(other.model_copy(update={"name": "one"}),))),
        path(made=manifest(1, parts=(base.parts[0].model_copy(update={"name": "two"}),))),
    ]
    assert len(set(changed)) == len(changed)


def test_libraries_count_where_they_decide_words() -> None:
    assert set(word_versions(LexicalSpec())) == {"regex", "unicode"}
    assert set(word_versions(LexicalSpec(tokenizer=1))) == {"unicode"}
    everything = LexicalSpec(stemmer="english", stopwords="english")
    assert set(word_versions(everything)) == {"regex", "unicode", "PyStemmer", "bm25s"}


def test_none_is_built_if_none_is_wanted(store: Store) -> None:
    made = snapshot(store)
    assert build_lexical(store, made, LexicalSpec(kind="none")) is None
    assert files(store) == {}
    with pytest.raises(IntegrityError, match="is missing, but the recipe asks for a lexical index"):
        verify_lexical(store, made)
    verify_lexical(store, made.model_copy(update={"recipe": {}}))


def test_without_a_library_that_finds_words_nothing_is_written(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "missing_for_words", lambda spec: "Stemmer")
    with pytest.raises(QueryError, match="the package Stemmer is not installed"):
        build_lexical(store, snapshot(store), SPEC)
    assert files(store) == {}


@pytest.mark.parametrize("parts", [[], [[]], [[], ["a cell"]], [["!?"], ["a cell"]]])
def test_parts_may_be_empty(store: Store, parts: list[list[str]]) -> None:
    made = manifest(1, parts=tuple(part(store, f"p{n}", texts) for n, texts in enumerate(parts)))
    build_lexical(store, made, SPEC)
    assert build_lexical(store, made, SPEC) is None
    assert len(found(store, made, "cell")) == (["a cell"] in parts)
    verify_lexical(store, made)


def test_an_index_of_other_files_is_refused_and_built_again(store: Store) -> None:
    made, other = snapshot(store), snapshot(store, part(store, "other", ["something else"]), number=2)
    for one in (made, other):
        build_lexical(store, one, SPEC)
    store.write(lexical_record_path(made), store.read(lexical_record_path(other)))
    record = read_lexical_record(store, made)
    assert record is not None
    for check in (lambda: read_lexical(store, made, record), lambda: verify_lexical(store, made)):
        with pytest.raises(MismatchError, match="was built from other files than those of snapshot 1"):
            check()
    # What it names is not the snapshot's: an erasure must not keep it.
    assert lexical_files(store, made) == (lexical_record_path(made),)
    assert build_lexical(store, made, SPEC) == LexicalBuild(0, 2)
    assert found(store, made, "cell") == [0, 2, 4]


def test_a_record_cannot_name_the_postings_of_other_chunks(store: Store) -> None:
    made, other = snapshot(store), snapshot(store, part(store, "other", ["x"]), part(store, "more", ["y"]), number=2)
    for one in (made, other):
        build_lexical(store, one, SPEC)
    mine, theirs = (unseal(store.read(lexical_record_path(one)), name="x") for one in (made, other))
    store.write(lexical_record_path(made), seal({**mine, "parts": theirs["parts"]}))
    with pytest.raises(MismatchError, match="was built from other files"):
        opened(store, made)
    assert lexical_files(store, made) == (lexical_record_path(made),)


def test_a_record_of_other_deletions_is_refused(store: Store) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    body = unseal(store.read(lexical_record_path(made)), name="x")
    store.write(lexical_record_path(made), seal({**body, "files": "0" * 64}))
    with pytest.raises(MismatchError, match="was built from other files"):
        opened(store, made)


@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
@pytest.mark.parametrize("again", ["the same", "another snapshot"])
def test_a_damaged_file_is_refused_and_written_again(store: Store, damage: str, again: str) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    path = lexical_files(store, made)[2]
    good = store.read(path)
    bad = {"flip": good[:-1] + bytes([good[-1] ^ 1]), "cut": good[:-1], "empty": b""}
    store.delete(path) if damage == "remove" else store.write(path, bad[damage])
    for check in (lambda: verify_lexical(store, made), lambda: opened(store, made)):
        with pytest.raises(IntegrityError, match=r"has SHA-256 .*, expected|is missing, but the record"):
            check()
    if again == "the same":
        assert build_lexical(store, made, SPEC) == LexicalBuild(1, 1)
    elif damage != "flip":
        # A file that earlier snapshots name is compared by size; `verify` reads it.
        assert build_lexical(store, made.model_copy(update={"sequence": 2, "snapshot_id": "2" * 64}), SPEC) is not None
    if damage != "flip" or again == "the same":
        assert store.read(path) == good
        verify_lexical(store, made)


@pytest.mark.parametrize("damage", [b"", b"{}", seal({"spec": 3}), seal({"format": 2, "spec": {}, "files": "x"})])
def test_a_damaged_record_is_refused_and_written_again(store: Store, damage: bytes) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    store.write(lexical_record_path(made), damage)
    with pytest.raises(IntegrityError):
        read_lexical_record(store, made)
    assert lexical_files(store, made) == (lexical_record_path(made),)
    assert build_lexical(store, made, SPEC) == LexicalBuild(0, 2)
    verify_lexical(store, made)


def test_a_record_of_a_later_version_is_refused_with_the_remedy(store: Store) -> None:
    made = snapshot(store)
    store.write(lexical_record_path(made), seal({"format": 3}))
    with pytest.raises(IntegrityError, match=r"has format 3; this version of isospace reads 2.*Update isospace"):
        read_lexical_record(store, made)


def test_a_run_that_was_killed_is_continued(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshot(store)
    original = LocalStore.write

    def killed(self: LocalStore, path: str, data: bytes, *, sync: bool = True) -> None:
        if path == posting_paths(made, SPEC, word_versions(SPEC))[1]:
            raise KeyboardInterrupt
        original(self, path, data, sync=sync)

    monkeypatch.setattr(LocalStore, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        build_lexical(store, made, SPEC)
    assert read_lexical_record(store, made) is None
    monkeypatch.undo()
    assert build_lexical(store, made, SPEC) == LexicalBuild(1, 1)
    verify_lexical(store, made)


def test_a_file_that_is_removed_meanwhile_is_named_by_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshot(store)
    original = module.write_lexical_record

    def suspended(store: Store, *rest: Any) -> None:
        store.delete(posting_paths(made, SPEC, word_versions(SPEC))[0])
        original(store, *rest)

    monkeypatch.setattr(module, "write_lexical_record", suspended)
    with pytest.raises(StoreError, match=r"is gone, and the lexical index of snapshot 1 would name it \(1 such"):
        build_lexical(store, made, SPEC)
    assert read_lexical_record(store, made) is None
    monkeypatch.undo()
    assert build_lexical(store, made, SPEC) == LexicalBuild(1, 1)


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100])
def test_a_damaged_file_without_a_record_is_written_again(store: Store, content: bytes) -> None:
    made = snapshot(store)
    store.write(posting_paths(made, SPEC, word_versions(SPEC))[0], content)
    assert build_lexical(store, made, SPEC) == LexicalBuild(2, 0)
    verify_lexical(store, made)


def test_a_full_disk_leaves_no_record(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    made = snapshot(store)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError):
        build_lexical(store, made, SPEC)
    monkeypatch.undo()
    assert files(store) == {}
    assert build_lexical(store, made, SPEC) == LexicalBuild(2, 0)


def test_postings_are_compared_with_their_chunks(store: Store) -> None:
    made = snapshot(store)
    build_lexical(store, made, SPEC)
    body = unseal(store.read(lexical_record_path(made)), name="x")
    ref = body["parts"][0]

    def forge(texts: list[str]) -> None:
        data = module.safetensors.numpy.save(build_postings([texts], SPEC).arrays())
        store.write(ref["path"], data)
        forged = {**ref, "size": len(data), "sha256": sha256(data)}
        store.write(lexical_record_path(made), seal({**body, "parts": [forged, *body["parts"][1:]]}))

    forge(["the gene of the cell", "another protein", "the cell"])
    with pytest.raises(IntegrityError, match=r"has other words than the chunks of chunks/one\.parquet"):
        verify_lexical(store, made)
    forge(ONE[:2])
    for check in (lambda: verify_lexical(store, made), lambda: opened(store, made)):
        with pytest.raises(IntegrityError, match=r"has 2 rows, expected 3, those of chunks/one\.parquet"):
            check()


def test_words_of_other_versions_are_not_compared(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = snapshot(store)
    monkeypatch.setattr(module, "word_versions", lambda spec: {"unicode": "1"})
    build_lexical(store, made, SPEC)
    monkeypatch.undo()
    monkeypatch.setattr(module, "build_postings", lambda *_: pytest.fail("compared"))
    verify_lexical(store, made)


def test_an_index_of_the_first_format_is_searched_and_replaced_by_the_next_run(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    made = snapshot(store)
    gone = snapshot(store, *made.parts, deletions=deletions(store, ("one", "one0")))
    path = write_earlier_lexical(store, gone, LexicalSpec(k1=0.3, tokenizer=1))
    with caplog.at_level(logging.INFO):
        index = opened(store, gone)
    assert "snapshot 1 has a lexical index of an earlier version" in caplog.text
    assert (index.spec.k1, index.spec.tokenizer) == (0.3, 1)
    assert [int(row) for row in index.best("cell", 9)[0]] == [1, 3]
    verify_lexical(store, gone)
    assert set(lexical_files(store, gone)) == {lexical_record_path(gone), path}
    # The next run writes the postings of all rows.
    assert build_lexical(store, gone, index.spec) == LexicalBuild(2, 0)
    newer = opened(store, gone)
    assert [one.tolist() for one in newer.best("the cell", 9)] == [one.tolist() for one in index.best("the cell", 9)]
    assert path not in lexical_files(store, gone)
    assert build_lexical(store, gone, index.spec) is None


def test_a_damaged_file_of_the_first_format_is_reported(store: Store) -> None:
    made = snapshot(store)
    store.write(write_earlier_lexical(store, made, SPEC), b"scared")
    with pytest.raises(IntegrityError, match="is missing or was changed"):
        verify_lexical(store, made)
    assert found(store, made, "cell") == [0, 2, 4]


def test_two_copies_of_the_settings_have_different_digests(store: Store) -> None:
    made = snapshot(store)
    digests = set()
    for spec in (SPEC, LexicalSpec(k1=2.0), LexicalSpec(stemmer="english")):
        build_lexical(store, made, spec)
        record = read_lexical_record(store, made)
        assert record is not None
        digests.add(record.digest)
    assert len(digests) == 3


def test_why_an_earlier_version_built_no_index_is_kept(store: Store) -> None:
    old, new, other = manifest(1), manifest(2), manifest(3)
    store.write(lexical_record_path(old), seal({"left_out": "too many"}))
    carry_absence(store, old, new)
    carry_absence(store, other, manifest(4))
    assert json.loads(store.read(lexical_record_path(new)))["left_out"] == "too many"
    assert not store.exists(lexical_record_path(manifest(4)))
    assert read_lexical_record(store, new) is None
    verify_lexical(store, new.model_copy(update={"recipe": {"lexical": {"kind": "bm25"}}}))


def test_only_recent_records_are_read_to_find_files(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part(store, f"p{n}", [f"cell {n}"]) for n in range(6)]
    for number in range(1, 6):
        made = snapshot(store, *parts[: number + 1], number=number)
        assert build_lexical(store, made, SPEC) == LexicalBuild(2 if number == 1 else 1, number if number > 1 else 0)
    read: list[str] = []
    original = module.parse_record
    monkeypatch.setattr(module, "parse_record", lambda body, path: (read.append(path), original(body, path))[1])
    # Files that no recent record names are read once.
    assert build_lexical(store, snapshot(store, *parts, number=9), SPEC) == LexicalBuild(0, 6)
    assert len(read) == 3
    merged = merge_postings([(build_postings([[f"cell {n}"]], SPEC), None) for n in range(6)])
    assert opened(store, snapshot(store, *parts, number=9)).groups[0].rows.tolist() == merged.rows.tolist()
