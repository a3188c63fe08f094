"""Blocks are read by few ranges, verified, and explained when they are damaged."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.errors import EncoderError, IntegrityError, StoreError
from isospace.search.remote.block_cache import BlockCache
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.blocks import BlockFile, BlockWriter
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import sha256
from isospace.storage.local_store import LocalStore
from isospace.storage.store import Store


class Watched:
    """A store that notes ranges, and fails if it is told to."""

    def __init__(self, store: Store) -> None:
        self.store, self.ranges, self.error = store, [], None  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        self.ranges.append((start, length))
        if self.error is not None:
            raise self.error
        return self.store.read_range(path, start, length)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(LocalStore("x", tmp_path / "store"))


def published(watched: Watched, sizes: list[int]) -> BlockFile:
    chance = np.random.default_rng(0)
    path = watched.store.root / "x.bin"  # type: ignore[operator]
    path.parent.mkdir(exist_ok=True)
    with BlockWriter(path) as writer:
        for size in sizes:
            writer.add(chance.bytes(size))
    arrays = writer.arrays("x")
    ref = FileRef(path="x.bin", size=path.stat().st_size, sha256=sha256(path.read_bytes()))
    return BlockFile(ref, "group", arrays["x.ends"], arrays["x.checks"])


def reader_of(watched: Watched, tmp_path: Path, limit: int = 10) -> BlockReader:
    return BlockReader(watched, BlockCache(tmp_path / "cache", limit))  # type: ignore[arg-type]


def content(watched: Watched, file: BlockFile, numbers: list[int]) -> list[bytes]:
    data = watched.store.read(file.ref.path)
    return [data[slice(*file.span(number))] for number in numbers]


def test_near_blocks_are_one_range_and_far_ones_are_not(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 1_000, 200_000, 1_000, 1_000, 30_000, 500])
    wanted = [6, 0, 1, 3, 0, 4]
    reader = reader_of(watched, tmp_path)
    assert reader.read([(file, number) for number in wanted]) == content(watched, file, wanted)
    # From 3 to 6 with the 30,000 bytes between, but not over the 200,000.
    assert sorted(watched.ranges) == [(0, 2_000), (202_000, 32_500)]
    assert (reader.requests, reader.fetched) == (2, 34_500)


def test_long_ranges_are_divided(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1 << 20] * 9)
    wanted = list(range(9))
    assert reader_of(watched, tmp_path).read([(file, n) for n in wanted]) == content(watched, file, wanted)
    assert sorted(length >> 20 for _, length in watched.ranges) == [1, 4, 4]


def test_what_was_read_is_kept_in_memory_and_on_disk(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 2_000])
    reader = reader_of(watched, tmp_path)
    reader.read([(file, 0), (file, 1)])
    for one in (reader, reader_of(watched, tmp_path)):
        assert one.read([(file, 1)]) == content(watched, file, [1])
    assert len(watched.ranges) == 1
    assert reader.read([]) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\1" + data[1:], lambda data: b""])
def test_a_damaged_block_on_disk_is_read_again(watched: Watched, tmp_path: Path, damage: Any) -> None:
    file = published(watched, [1_000, 2_000])
    reader_of(watched, tmp_path).read([(file, 0), (file, 1)])
    for path in (tmp_path / "cache" / "group").iterdir():
        path.write_bytes(damage(path.read_bytes()))
    assert reader_of(watched, tmp_path).read([(file, 1)]) == content(watched, file, [1])
    assert watched.ranges[1:] == [(1_000, 2_000)]
    # It was replaced.
    reader_of(watched, tmp_path).read([(file, 1)])
    assert len(watched.ranges) == 2


def test_a_damaged_block_of_the_store_is_named_and_not_kept(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 2_000])
    data = bytearray(watched.store.read("x.bin"))
    data[1_500] ^= 1
    watched.store.write("x.bin", bytes(data))
    reader = reader_of(watched, tmp_path)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=r"x\.bin: block 1 \(bytes 1000 to 3000\)"):
            reader.read([(file, 1)])
    assert reader.read([(file, 0)]) == content(watched, file, [0])


def test_missing_and_truncated_files_are_named(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 2_000])
    watched.store.write("x.bin", watched.store.read("x.bin")[:1_500])
    with pytest.raises(IntegrityError, match=r"x\.bin: has 1500 bytes, not 3000"):
        reader_of(watched, tmp_path).read([(file, 1)])
    watched.store.delete("x.bin")
    with pytest.raises(IntegrityError, match=r"x\.bin: is missing"):
        reader_of(watched, tmp_path).read([(file, 1)])


def test_a_store_that_fails_is_no_damage(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 2_000])
    watched.error = StoreError("timed out")  # type: ignore[assignment]
    with pytest.raises(StoreError, match="timed out") as caught:
        reader_of(watched, tmp_path).read([(file, 0)])
    assert not isinstance(caught.value, IntegrityError)
    watched.error = None
    assert reader_of(watched, tmp_path).read([(file, 0)]) == content(watched, file, [0])


def test_an_error_in_one_of_several_ranges_is_raised(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 100_000, 1_000, 100_000, 1_000])
    data = bytearray(watched.store.read("x.bin"))
    data[101_500] ^= 1
    watched.store.write("x.bin", bytes(data))
    with pytest.raises(IntegrityError, match="block 2"):
        reader_of(watched, tmp_path).read([(file, 0), (file, 2), (file, 4)])


def test_ranges_are_read_at_the_same_time(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000 if number % 2 else 100_000 for number in range(16)])
    together = threading.Barrier(8, timeout=20)
    plain = watched.read_range

    def meet(path: str, start: int, length: int) -> bytes:
        together.wait()
        return plain(path, start, length)

    watched.read_range = meet  # type: ignore[method-assign]
    wanted = list(range(1, 16, 2))
    assert reader_of(watched, tmp_path).read([(file, n) for n in wanted]) == content(watched, file, wanted)


def test_whole_files_are_verified_and_kept(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 2_000])
    whole = watched.store.read("x.bin")
    assert reader_of(watched, tmp_path).whole(file.ref, "group") == whole
    assert reader_of(watched, tmp_path).whole(file.ref, "group") == whole
    assert len(watched.ranges) == 1
    other = replace_digest(file.ref)
    with pytest.raises(IntegrityError, match="expected 1111"):
        reader_of(watched, tmp_path).whole(other, "group")


def replace_digest(ref: FileRef) -> FileRef:
    return ref.model_copy(update={"sha256": "1" * 64})


def test_other_objects_have_other_blocks(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000])
    reader = reader_of(watched, tmp_path)
    reader.read([(file, 0)])
    reader.read([(replace(file, ref=replace_digest(file.ref)), 0)])
    assert len(watched.ranges) == 2


def test_a_fork_reads_what_is_kept_and_refuses_the_rest(watched: Watched, tmp_path: Path) -> None:
    file = published(watched, [1_000, 2_000])
    reader = reader_of(watched, tmp_path)
    reader.read([(file, 0)])
    reader._process = os.getpid() + 1
    assert reader.read([(file, 0)]) == content(watched, file, [0])
    with pytest.raises(EncoderError, match="fork"):
        reader.read([(file, 1)])
