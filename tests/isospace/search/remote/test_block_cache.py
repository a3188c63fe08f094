"""The disk cache: bounded, shared, and harmless when it fails."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isospace.errors import ConfigError
from isospace.search.remote.block_cache import TEMPORARY, BlockCache, shrink

WRITER = """
import os, sys
from pathlib import Path
from isospace.search.remote.block_cache import BlockCache
cache = BlockCache(Path(sys.argv[1]), 1)
print("ready", flush=True)
for number in range(int(sys.argv[2])):
    cache.store(("group", f"{sys.argv[3]}-{number % 400}"), bytes([number % 251]) * 20_000)
"""


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_blocks_come_back_as_they_were_written(tmp_path: Path) -> None:
    BlockCache(tmp_path / "cache").store(("g", "a"), b"data")
    cache = BlockCache(tmp_path / "cache")
    assert cache.stored(("g", "a")) == b"data"
    assert cache.stored(("g", "b")) is None
    assert cache.stored(("h", "a")) is None
    cache.discard(("g", "a"))
    cache.discard(("g", "a"))
    assert cache.stored(("g", "a")) is None


def test_the_folder_stays_within_its_limit_also_from_one_process_to_the_next(tmp_path: Path) -> None:
    for process in range(3):
        cache = BlockCache(tmp_path, 1)
        for number in range(150):
            cache.store(("g", f"{process}-{number}"), bytes(20_000))
            assert size_of(tmp_path) <= 1_000_000 * 1.05
    assert size_of(tmp_path) > 500_000


def test_what_an_earlier_process_left_counts_from_the_first_block_on(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    for number in range(100):
        (tmp_path / "g" / f"old-{number}").write_bytes(bytes(20_000))
    BlockCache(tmp_path, 1).store(("g", "new"), bytes(100))
    assert size_of(tmp_path) <= 1_000_000
    assert (tmp_path / "g" / "new").exists()


def test_what_was_used_least_recently_goes_first(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1)
    for number in range(10):
        cache.store(("g", str(number)), bytes(100_000))
        os.utime(tmp_path / "g" / str(number), (1_000.0 + number, 1_000.0 + number))
    # Read: from now on it counts as used just now.
    assert cache.stored(("g", "0")) is not None
    shrink(tmp_path, 500_000)
    assert sorted(path.name for path in (tmp_path / "g").iterdir()) == ["0", "7", "8", "9"]


def test_a_limit_of_zero_keeps_nothing_on_disk(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path / "cache", 0)
    cache.store(("g", "a"), b"data")
    assert cache.stored(("g", "a")) is None
    assert not (tmp_path / "cache").exists()


def test_a_block_larger_than_the_cache_is_not_kept(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1)
    cache.store(("g", "small"), bytes(10))
    cache.store(("g", "a"), bytes(2_000_000))
    assert cache.stored(("g", "a")) is None
    assert cache.stored(("g", "small")) is not None


@pytest.mark.parametrize("limit", [-1, 1.5, True, "1"])
def test_other_limits_are_refused(tmp_path: Path, limit: int) -> None:
    with pytest.raises(ConfigError, match="whole number of megabytes"):
        BlockCache(tmp_path, limit)


def test_memory_keeps_the_latest_blocks_within_its_limit(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, memory_bytes=100)
    for name in "abc":
        cache.remember(("g", name), bytes(40))
        cache.recent(("g", "a"))
    assert [name for name in "abc" if cache.recent(("g", name)) is not None] == ["a", "c"]
    cache.remember(("g", "large"), bytes(101))
    assert cache.recent(("g", "large")) is None


def test_a_full_disk_only_warns_and_is_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache = BlockCache(tmp_path)

    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        cache.store(("g", "a"), b"data")
        cache.store(("g", "b"), b"data")
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    assert list((tmp_path / "g").iterdir()) == []
    cache.store(("g", "a"), b"data")
    assert cache.stored(("g", "a")) is None
    cache._idle_until = 0.0
    cache.store(("g", "a"), b"data")
    assert cache.stored(("g", "a")) == b"data"


def test_a_file_in_place_of_the_folder_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").write_text("")
    cache = BlockCache(tmp_path / "cache")
    cache.store(("g", "a"), b"data")
    assert cache.stored(("g", "a")) is None
    assert "cannot be cached" in caplog.text


def test_two_processes_share_a_folder_within_the_limit(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path), "600"]
    writers = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in "ab"]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert 0 < size_of(tmp_path) <= 1_000_000 * 1.10
    cache = BlockCache(tmp_path, 1)
    found = [cache.stored(("group", f"{name}-{number}")) for name in "ab" for number in range(400)]
    assert all(data is None or (len(data) == 20_000 and len(set(data)) == 1) for data in found)
    assert any(data is not None for data in found)


def test_a_killed_process_leaves_whole_blocks_and_what_it_leaves_is_removed(tmp_path: Path) -> None:
    for attempt in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), "1000000", str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.05 * attempt)
            writer.send_signal(signal.SIGKILL)
        cache = BlockCache(tmp_path, 1)
        found = [cache.stored(("group", f"{attempt}-{number}")) for number in range(400)]
        assert all(data is None or (len(data) == 20_000 and len(set(data)) == 1) for data in found)
    left = tmp_path / "group" / f"{TEMPORARY}left"
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(bytes(900_000))
    os.utime(left, (1.0, 1.0))
    for number in range(30):
        cache.store(("group", f"new-{number}"), bytes(20_000))
    assert not left.exists()
