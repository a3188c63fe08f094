"""Files that are removed in a way that can be undone, on a local folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.errors import BusyError, StoreError
from isospace.storage.local_store import LocalStore
from isospace.storage.paths import removal_order
from isospace.storage.store import Store, open_store
from isospace.storage.trash import recover_trash, remove_files

MANIFEST = "collections/c/snapshots/00000001.json"
RECORD = "collections/c/lexical/x.json"
SEGMENT = "collections/c/segments/s/p.parquet"
DOCUMENTS = "collections/c/documents/p.parquet"
FILES = (DOCUMENTS, SEGMENT, RECORD, MANIFEST)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = open_store(tmp_path)
    for path in FILES:
        made.write(path, path.encode())
    return made


def contents(store: Store) -> dict[str, bytes]:
    return {stat.path: store.read(stat.path) for stat in store.walk("")}


def nothing() -> None:
    pass


def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the targets of all later moves, in their order."""
    real, seen = LocalStore.move, list[str]()

    def move(self: LocalStore, path: str, target: str) -> None:
        seen.append(target)
        real(self, path, target)

    monkeypatch.setattr(LocalStore, "move", move)
    return seen


def test_snapshots_go_before_what_they_name_and_come_back_after_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = moves(monkeypatch)
    before = contents(store)

    def refuse() -> None:
        raise BusyError("a snapshot names one")

    with pytest.raises(BusyError):
        remove_files(store, "t", FILES, proceed=nothing, check=refuse)
    away = [f"trash/t/{path}" for path in (MANIFEST, RECORD, SEGMENT, DOCUMENTS)]
    assert seen == [*away, DOCUMENTS, SEGMENT, RECORD, MANIFEST]
    assert contents(store) == before
    assert sorted(FILES, key=removal_order) == [MANIFEST, RECORD, SEGMENT, DOCUMENTS]


def test_what_is_removed_is_gone_and_what_does_not_exist_is_no_error(store: Store) -> None:
    remove_files(store, "t", [*FILES, "reports/gone.json"], proceed=nothing, check=nothing)
    assert contents(store) == {}
    assert store.folders("trash") == []


def test_a_file_that_was_written_again_meanwhile_stays_as_it_was_written(store: Store) -> None:
    store.move(SEGMENT, f"trash/dead/{SEGMENT}")
    store.write(SEGMENT, b"written again")
    recover_trash(store, "mine", dead=store.folders("trash"))
    assert store.read(SEGMENT) == b"written again"
    assert store.folders("trash") == []


def test_the_trash_of_a_command_at_work_is_left_alone(store: Store) -> None:
    store.move(SEGMENT, f"trash/other/{SEGMENT}")
    store.move(RECORD, f"trash/mine/{RECORD}")
    store.move(MANIFEST, f"trash/dead/{MANIFEST}")
    recover_trash(store, "mine", dead=["dead"])
    assert not store.exists(SEGMENT)
    assert {path for path in FILES if store.exists(path)} >= {DOCUMENTS, MANIFEST}


def test_a_command_taken_for_dead_that_goes_on_loses_no_file(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While its files are being put back, it moves one away once more."""
    store.move(SEGMENT, f"trash/dead/{SEGMENT}")
    store.write(SEGMENT, b"written again")
    real = LocalStore.exists

    def exists(self: LocalStore, path: str) -> bool:
        found = real(self, path)
        if path == SEGMENT and found:
            self.move(SEGMENT, f"trash/dead/{SEGMENT}")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "exists", exists)
        recover_trash(store, "mine", dead=store.folders("trash"))
    recover_trash(store, "mine", dead=store.folders("trash"))
    assert store.read(SEGMENT) == b"written again"


@pytest.mark.parametrize("at", [1, 2, 4])
def test_one_file_that_cannot_be_put_back_keeps_no_other_away(
    store: Store, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    for path in FILES:
        store.move(path, f"trash/dead/{path}")
    real, calls = LocalStore.move, list[str]()

    def move(self: LocalStore, path: str, target: str) -> None:
        if not target.startswith("trash/"):
            calls.append(target)
            if len(calls) == at:
                raise StoreError("the disk is full")
        real(self, path, target)

    with monkeypatch.context() as patched:
        patched.setattr(LocalStore, "move", move)
        with pytest.raises(StoreError, match="disk is full"):
            recover_trash(store, "mine", dead=store.folders("trash"))
    assert sum(store.exists(path) for path in FILES) == 3
    recover_trash(store, "next", dead=store.folders("trash"))
    assert set(contents(store)) == set(FILES)
