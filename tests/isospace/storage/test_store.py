"""What a local folder does that cannot be written to; what every store promises is in test_contract.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.errors import ConfigError, StoreError
from isospace.storage.store import open_store


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        Path("/dev/full").write_bytes(b"x")

    open_store(tmp_path).write("a/before", b"data")
    monkeypatch.setattr("isospace.storage.local_files.os.fsync", full)
    for path in ("a/b", "c/d"):
        with pytest.raises(StoreError, match="No space left on device"):
            open_store(tmp_path).write(path, b"data")
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["before"]


def test_a_folder_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError):
        open_store(tmp_path / "file").write("a", b"")


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ConfigError, match="unknown scheme"):
        open_store("gopher://host/x")


def test_leftovers_of_killed_writes_are_never_listed(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.write("a/b", b"x")
    (tmp_path / "a" / ".tmp-1-abc").write_bytes(b"half")
    assert [stat.path for stat in store.walk("a")] == ["a/b"]
