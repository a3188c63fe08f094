"""A snapshot of many parts names lists of them: it is the same snapshot, and a commit writes the lists that changed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from isospace.collection import part_lists, snapshot
from isospace.collection.origins import Origin, Origins
from isospace.collection.part_lists import divide_parts, read_part_lists, write_part_lists
from isospace.collection.part_record import PartRecord
from isospace.collection.snapshot import (
    Manifest,
    commit_manifest,
    damaged_files,
    files_digest,
    latest_manifest,
    read_manifest,
    replace_manifest,
)
from isospace.errors import IntegrityError, StoreError
from isospace.operations.maintenance.vacuum import vacuum
from isospace.storage.hashing import seal, unseal
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import file_ref, manifest, part_record, written


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of about four parts, for snapshots of more than ten."""
    monkeypatch.setattr(snapshot, "MOST_IN_MANIFEST", 10)
    monkeypatch.setattr(part_lists, "_AVERAGE", 4)
    monkeypatch.setattr(part_lists, "_KNOWN", {})


def many(names: Iterable[object], **changes: object) -> Manifest:
    records = tuple(part_record(str(name)) for name in names)
    return manifest(**{"parts": records, **changes})  # type: ignore[arg-type]


def names_in(lists: Iterable[list[PartRecord]]) -> list[list[str]]:
    return [[part.name for part in group] for group in lists]


def test_a_small_snapshot_is_written_as_earlier_versions_write_it(store: Store) -> None:
    made = written(store, many(range(10)))
    assert commit_manifest(store, made) == made
    assert store.read("collections/c/snapshots/00000001.json") == seal(made.model_dump(mode="json"))
    assert list(store.walk("collections/c/parts")) == []
    body = unseal(store.read("collections/c/snapshots/00000001.json"), name="it")
    assert (body["format"], "part_lists" in body) == (1, False)


def test_a_large_snapshot_names_lists_and_is_read_as_it_was_written(store: Store) -> None:
    made = written(store, many(range(50), parts=(*many(range(49)).parts, part_record("last", sparse=file_ref("sp")))))
    done = commit_manifest(store, made)
    read = read_manifest(store, "c", 1)
    assert read == done
    assert read.parts == made.parts
    assert (read.snapshot_id, files_digest(read)) == (made.snapshot_id, files_digest(made))
    body = unseal(store.read("collections/c/snapshots/00000001.json"), name="it")
    assert body["format"] == 2
    assert "parts" not in body
    assert [ref.rows for ref in read.part_lists] == [len(group) for group in divide_parts(made.parts)]
    assert {ref.path for ref in read.part_lists} == {stat.path for stat in store.walk("collections/c/parts")}
    assert set(read.part_lists) <= set(read.files())
    assert damaged_files(store, read) == []


def test_versions_that_do_not_know_lists_are_told_to_be_updated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit_manifest(store, written(store, many(range(11))))
    monkeypatch.setattr(snapshot, "LISTED_FORMAT", 1)
    with pytest.raises(IntegrityError, match=r"has format 2; this version of isospace reads 1.*Update isospace"):
        read_manifest(store, "c", 1)


@pytest.mark.parametrize("with_origins", [False, True])
def test_classes_of_bits_stay_with_their_parts(store: Store, with_origins: bool) -> None:
    classes = tuple(Origin(engine=f"e{n}", bits=f"{n}" * 8, batch_invariant=True) for n in range(3))
    places = {str(n): ((0,), (1,), (0, 2), (1, 2))[n % 4] for n in range(40)}
    origins = Origins(classes=classes, parts=places) if with_origins else None
    commit_manifest(store, written(store, many(range(40), origins=origins)))
    assert read_manifest(store, "c", 1).origins == origins
    # Another class before them numbers the others anew, and leaves the lists as they are.
    before = read_manifest(store, "c", 1).part_lists
    if origins is not None:
        moved = {name: tuple(n + 1 for n in numbers) for name, numbers in places.items()}
        grown = Origins(classes=(Origin(engine="a", bits="0" * 7), *classes), parts=moved)
        commit_manifest(store, written(store, many(range(40), sequence=2, origins=grown)))
        assert read_manifest(store, "c", 2).origins == grown
        assert read_manifest(store, "c", 2).part_lists == before


@pytest.mark.parametrize(
    "change",
    [
        lambda names: [*names, "new"],
        lambda names: ["new", *names],
        lambda names: [*names[:100], "new", *names[100:]],
        lambda names: [*names[:100], *names[101:]],
        lambda names: [*names[:100], "new", *names[104:]],
    ],
)
def test_a_change_leaves_all_lists_but_those_beside_it(store: Store, change) -> None:  # type: ignore[no-untyped-def]
    names = [f"p{n}" for n in range(200)]
    first = commit_manifest(store, written(store, many(names)))
    second = commit_manifest(store, written(store, many(change(names), sequence=2)))
    assert len(first.part_lists) > 30
    assert len(set(second.part_lists) - set(first.part_lists)) <= 2
    assert [part.name for part in read_manifest(store, "c", 2).parts] == change(names)


def test_lists_depend_on_the_parts_alone_and_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_lists, "_MOST", 6)
    parts = many(range(300)).parts
    groups = list(divide_parts(parts))
    assert [part for group in groups for part in group] == list(parts)
    assert max(map(len, groups)) == 6
    # From any list on, the rest is divided in the same way.
    for before, _ in pairwise(range(1, len(groups))):
        rest = [part for group in groups[before:] for part in group]
        assert names_in(divide_parts(rest)) == names_in(groups[before:])
    assert list(divide_parts(())) == []


@pytest.mark.parametrize("damage", ["missing", "changed", "shorter"])
def test_a_damaged_list_is_named(store: Store, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = commit_manifest(store, written(store, many(range(30)))).part_lists[1]
    data = store.read(ref.path)
    store.delete(ref.path)
    if damage != "missing":
        store.write(ref.path, data[:-1] if damage == "shorter" else data.replace(b"documents/", b"documents_"))
    monkeypatch.setattr(part_lists, "_KNOWN", {})
    with pytest.raises(IntegrityError, match=ref.path):
        read_manifest(store, "c", 1)


@pytest.mark.parametrize(
    ("key", "value"), [("format", 2), ("parts", [["name"]]), ("classes", ["unknown"]), ("parts", "junk")]
)
def test_a_list_with_other_content_than_a_list_is_refused(store: Store, key: str, value: object) -> None:
    origins = Origins(classes=(Origin(bits="b"),), parts={str(n): (0,) for n in range(3)})
    (ref,) = write_part_lists(store, "c", many(range(3)).parts[:1], origins)
    data = json.dumps({**json.loads(store.read(ref.path)), key: value}).encode()
    store.write(ref.path, data)
    forged = ref.model_copy(update={"size": len(data), "sha256": snapshot_sha(data)})
    with pytest.raises(IntegrityError, match=ref.path):
        read_part_lists(store, [forged], Origins(classes=origins.classes, parts={}))


def snapshot_sha(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def test_a_list_that_a_killed_run_left_damaged_is_written_again(store: Store) -> None:
    made = written(store, many(range(30)))
    refs = write_part_lists(store, "c", made.parts, None)
    store.write(refs[0].path, b"half of it")
    assert commit_manifest(store, made).part_lists == refs
    assert read_manifest(store, "c", 1).parts == made.parts


def test_a_snapshot_that_is_replaced_names_other_lists(store: Store) -> None:
    old = commit_manifest(store, written(store, many(range(30))))
    new = written(store, old.model_copy(update={"parts": many(range(1, 30)).parts}))
    replace_manifest(store, old, new)
    read = read_manifest(store, "c", 1)
    assert len(read.parts) == 29
    assert read.part_lists[1:] == old.part_lists[1:]
    few = old.model_copy(update={"parts": read.parts[:3]})
    replace_manifest(store, read, few)
    assert (read_manifest(store, "c", 1).format, read_manifest(store, "c", 1).part_lists) == (1, ())


def test_a_vacuum_keeps_the_lists_of_snapshots_that_it_keeps_and_removes_others(store: Store, tmp_path: Path) -> None:
    first = commit_manifest(store, written(store, many(range(60))))
    second = commit_manifest(store, written(store, many(range(10, 70), sequence=2)))
    killed = write_part_lists(store, "c", many(range(100, 130)).parts, None)
    shared, own = set(first.part_lists) & set(second.part_lists), set(first.part_lists) - set(second.part_lists)
    assert shared
    assert own
    stats = {stat.path for stat in store.walk("collections/c/parts")}
    assert stats == {ref.path for ref in (*first.part_lists, *second.part_lists, *killed)}
    assert not vacuum(store, tmp_path / "scratch", retention_days=1.0).removals
    found = vacuum(store, tmp_path / "scratch", retention_days=0.0)
    assert {stat.path for stat in store.walk("collections/c/parts")} == {ref.path for ref in second.part_lists}
    assert {ref.path for ref in (*own, *killed)} <= {removal.path for removal in found.removals}
    part_lists._KNOWN.clear()
    latest = latest_manifest(store, "c")
    assert latest == second
    assert damaged_files(store, second) == []


def test_a_commit_whose_list_a_vacuum_takes_at_the_same_time_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = commit_manifest(store, written(store, many(range(30))))
    made = written(store, many(range(31), sequence=2))
    real = type(store).create

    def create(self: Store, path: str, data: bytes) -> None:
        real(self, path, data)
        if path == "collections/c/snapshots/00000002.json":
            self.delete(taken)

    taken = write_part_lists(store, "c", made.parts, None)[-1].path
    assert taken not in {ref.path for ref in base.part_lists}
    monkeypatch.setattr(type(store), "create", create)
    with pytest.raises(StoreError, match=taken):
        commit_manifest(store, made, base=base)
    assert [stat.path for stat in store.walk("collections/c/snapshots")] == ["collections/c/snapshots/00000001.json"]


@pytest.mark.parametrize("gone", ["documents/30", "documents/3", "the base"])
def test_a_commit_looks_for_what_is_new_and_for_its_base(
    store: Store, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    base = commit_manifest(store, written(store, many(range(30))))
    made = written(store, many(range(31), sequence=2))
    walked: list[str] = []
    monkeypatch.setattr(snapshot, "damaged_files", lambda *_: walked.append("all") or [])
    path = "collections/c/snapshots/00000001.json" if gone == "the base" else gone
    store.delete(path)
    if gone == "documents/3":
        # The base named it: whoever removes it removes the base first.
        commit_manifest(store, made, base=base)
    else:
        with pytest.raises(StoreError, match=f"{path}: is gone"):
            commit_manifest(store, made, base=base)
    assert walked == []


def test_many_new_files_are_looked_for_in_their_folders(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "_MOST_BY_NAME", 20)
    base = commit_manifest(store, written(store, many(range(30))))
    made = written(store, many(range(40), sequence=2))
    store.delete("documents/35")
    monkeypatch.setattr(snapshot, "_size", None)
    with pytest.raises(StoreError, match="documents/35: is gone"):
        commit_manifest(store, made, base=base)
