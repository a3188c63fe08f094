"""What is on disk after a power loss: the calls of fsync, in their order, decide."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isospace.errors import StoreError
from isospace.storage.local_files import TEMPORARY_PREFIX, make_folder
from isospace.storage.store import Store, open_store

Write = Callable[[Store, str], object]
WRITES: dict[str, Write] = {
    "write": lambda store, path: store.write(path, b"x"),
    "create": lambda store, path: store.create(path, b"x"),
    "create if absent": lambda store, path: store.create_if_absent(path, b"x"),
    "create file": lambda store, path: store.create_file(path, Path(__file__)),
}
writes = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
PATHS = ["manifest.json", "spaces/abc/space.json", "collections/c/segments/s/p/0.parquet", "vectors/e/document/a.x"]


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every folder that is synced, relative to `tmp_path`, and `file` for a file."""
    calls: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        calls.append(os.path.relpath(path, tmp_path) if path.is_dir() else "file")
        real(descriptor)

    monkeypatch.setattr("isospace.storage.local_files.os.fsync", record)
    return calls


def expected_calls(path: str) -> list[str]:
    """Return what a first write syncs: the entry of each new folder, the file, and the file's entry."""
    parents = [str(Path("store", parent)) for parent in reversed(Path(path).parents)]
    return [".", *parents[:-1], "file", parents[-1]]


@writes
@pytest.mark.parametrize("path", PATHS)
def test_every_new_folder_is_synced_in_its_parent_before_it_holds_anything(
    tmp_path: Path, synced: list[str], write: Write, path: str
) -> None:
    (tmp_path / "other").mkdir()
    write(open_store(tmp_path / "store"), path)
    assert synced == expected_calls(path)


@writes
def test_a_folder_in_use_is_not_synced_in_its_parent_again(tmp_path: Path, synced: list[str], write: Write) -> None:
    store = open_store(tmp_path / "store")
    store.write("a/b/first", b"x")
    synced.clear()
    write(store, "a/b/second")
    assert synced == ["file", "store/a/b"]
    synced.clear()
    write(store, "a/c/third")
    assert synced == ["store/a", "file", "store/a/c"]


@writes
@pytest.mark.parametrize("left", ["", "a", "a/b", f"a/b/{TEMPORARY_PREFIX}1-2"])
def test_a_folder_that_a_killed_writer_left_is_synced_like_a_new_one(
    tmp_path: Path, synced: list[str], write: Write, left: str
) -> None:
    killed = tmp_path / "store" / left
    if TEMPORARY_PREFIX in left:
        killed.parent.mkdir(parents=True)
        killed.write_bytes(b"half")
    else:
        killed.mkdir(parents=True)
    synced.clear()
    write(open_store(tmp_path / "store"), "a/b/file")
    # A folder with a subfolder was synced before that was created; here none was.
    assert synced[-3:] == ["store/a", "file", "store/a/b"]


@pytest.mark.parametrize("path", PATHS)
def test_a_file_that_exists_is_on_disk_before_its_writer_hears_of_it(
    tmp_path: Path, synced: list[str], path: str
) -> None:
    """Its writer may have been killed before it synced the folder, and the caller commits a manifest that names it."""
    store = open_store(tmp_path / "store")
    store.write(path, b"x")
    synced.clear()
    assert not store.create_if_absent(path, b"x")
    assert synced == ["file", str(Path("store", path).parent)]


def test_nothing_is_synced_above_a_folder_in_use(tmp_path: Path, synced: list[str]) -> None:
    (tmp_path / "there").mkdir()
    make_folder(tmp_path)
    assert synced == []
    make_folder(tmp_path / "x" / "y")
    assert synced == [".", "x"]


def test_a_file_in_place_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    for path in ("a/b", "a/b/c", "a/b/c/d"):
        with pytest.raises(StoreError, match=f"{tmp_path}/a: is a file"):
            open_store(tmp_path).write(path, b"")
