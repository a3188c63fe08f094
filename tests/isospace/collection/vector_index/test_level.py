"""Levels: every hash is found in every file that holds it, and a damaged byte is noticed by whoever reads it."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from isospace.collection.origins import Origin
from isospace.collection.vector_index.level import ENTRY, Entries, Hashes, LevelReader, sorted_entries, write_level
from isospace.errors import IntegrityError
from isospace.storage.store import Store, open_store
from tests.helpers.remote_like import remote_like

CLASSES = (Origin(engine="a", bits="1"), Origin(engine="b", bits="2"))
SIZES = [0, 1, 255, 256, 257, 1_000]


def hashes_of(count: int, *, first: int = 0) -> Hashes:
    joined = b"".join(hashlib.sha256(b"%d" % number).digest() for number in range(first, first + count))
    return np.frombuffer(joined, np.uint8).reshape(count, 32)


def entries_of(hashes: Hashes, files: object) -> Entries:
    entries = np.zeros(len(hashes), ENTRY)
    entries["hash"], entries["file"] = hashes, files
    return entries


def level_in(store: Store, entries: Entries, files: int) -> LevelReader:
    local = open_store(store.url)
    assert local.root is not None
    local.root.mkdir(parents=True, exist_ok=True)
    names = [f"{number:03d}" + "x" * (number % 7) for number in range(files)]
    batches = np.array_split(sorted_entries(entries), 3)
    origins = [number % 2 for number in range(files)]
    return LevelReader(store, "l.bin", write_level(local.root / "l.bin", batches, names, origins, CLASSES))


def found_in(reader: LevelReader, hashes: Hashes) -> set[tuple[bytes, int]]:
    ordered = hashes[np.argsort([row.tobytes() for row in hashes])] if len(hashes) else hashes
    places, files = reader.find(ordered)
    return {(ordered[place].tobytes(), file) for place, file in zip(places.tolist(), files.tolist(), strict=True)}


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("count", SIZES)
def test_exactly_the_hashes_of_a_level_are_found(tmp_path: Path, count: int, remote: bool) -> None:
    store = remote_like(tmp_path)[0] if remote else open_store(tmp_path)
    hashes = hashes_of(count)
    files = np.arange(count) % 5
    reader = level_in(store, entries_of(hashes, files), 5)
    expected = {(row.tobytes(), int(file)) for row, file in zip(hashes, files, strict=True)}
    assert found_in(reader, hashes_of(count + 50)) == expected
    assert found_in(reader, hashes_of(50, first=count)) == set()
    for number in range(0, count, 37):
        assert found_in(reader, hashes[number : number + 1]) == {(hashes[number].tobytes(), number % 5)}


@pytest.mark.parametrize("before", [0, 200, 255, 256])
def test_hashes_with_one_key_are_found_across_blocks_and_told_apart(tmp_path: Path, before: int) -> None:
    """600 hashes have the same first eight bytes, and fill two blocks and parts of others."""
    same = hashes_of(600).copy()
    same[:, :8] = 128
    lower = hashes_of(before).copy()
    lower[:, 0] = 1
    rows = np.concatenate([lower, same])
    reader = level_in(open_store(tmp_path), entries_of(rows, np.arange(len(rows)) % 3), 3)
    assert len(found_in(reader, rows)) == len(rows)
    for number in (0, 299, 599):
        assert found_in(reader, same[number : number + 1]) == {(same[number].tobytes(), (before + number) % 3)}
    absent = same[:1].copy()
    absent[0, 31] ^= 1
    assert found_in(reader, absent) == set()


def test_a_hash_in_several_files_is_found_in_each_once(tmp_path: Path) -> None:
    hashes = hashes_of(300)
    twice = np.concatenate([entries_of(hashes, file) for file in (2, 0, 2, 1)])
    reader = level_in(open_store(tmp_path), twice, 3)
    assert reader.level.entries == 900
    assert found_in(reader, hashes[7:8]) == {(hashes[7].tobytes(), file) for file in (0, 1, 2)}


@pytest.mark.parametrize("steps", [1, 2, 7, 1_000])
@pytest.mark.parametrize("count", SIZES)
def test_ranges_of_keys_have_every_entry_once(tmp_path: Path, count: int, steps: int) -> None:
    hashes = hashes_of(count).copy()
    # A key that is itself a bound.
    hashes[: count // 2, :8] = [128, 0, 0, 0, 0, 0, 0, 0]
    reader = level_in(open_store(tmp_path), entries_of(hashes, 0), 1)
    bounds = [(step << 64) // steps for step in range(steps + 1)]
    ranges = [reader.entries(low, high) for low, high in pairwise(bounds)]
    assert np.array_equal(np.concatenate(ranges), sorted_entries(entries_of(hashes, 0)))


@pytest.mark.parametrize("numbers", [[0], [127, 128], [299], [3, 130, 260, 299], list(range(300))])
def test_files_have_their_names_and_origins(tmp_path: Path, numbers: list[int]) -> None:
    reader = level_in(open_store(tmp_path), entries_of(hashes_of(10), 0), 300)
    names, origins = reader.files(np.array(numbers))
    assert names == [f"{number:03d}" + "x" * (number % 7) for number in numbers]
    assert origins.tolist() == [number % 2 for number in numbers]


def test_a_damaged_byte_is_noticed_by_whoever_reads_its_block(tmp_path: Path) -> None:
    store, hashes = open_store(tmp_path), hashes_of(1_000)
    reader = level_in(store, entries_of(hashes, 0), 300)
    whole = store.read("l.bin")
    first, last = sorted(row.tobytes() for row in hashes)[:: len(hashes) - 1]
    rows = {name: np.frombuffer(row, np.uint8).reshape(1, 32) for name, row in (("first", first), ("last", last))}
    store.write("l.bin", bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(IntegrityError, match="block 0 has CRC-32"):
        reader.find(rows["first"])
    assert found_in(reader, rows["last"]) == {(last, 0)}
    record = ENTRY.itemsize * len(hashes) + 1
    store.write("l.bin", whole[:record] + bytes([whole[record] ^ 1]) + whole[record + 1 :])
    with pytest.raises(IntegrityError, match="block 0 has CRC-32"):
        reader.files(np.array([5]))
    assert reader.files(np.array([299]))[0] == ["299" + "x" * 5]


@pytest.mark.parametrize("change", ["directory", "shorter", "longer"])
def test_a_level_with_another_directory_or_size_is_refused(tmp_path: Path, change: str) -> None:
    store = open_store(tmp_path)
    level = level_in(store, entries_of(hashes_of(1_000), 0), 3).level
    data = store.read("l.bin")
    changed = {"directory": data[:-1] + bytes([data[-1] ^ 1]), "shorter": data[:-1], "longer": data + b"x"}[change]
    store.write("l.bin", changed)
    with pytest.raises(IntegrityError, match="its directory has" if change == "directory" else "its manifest says"):
        LevelReader(store, "l.bin", level)


def test_a_lookup_of_few_hashes_reads_little_of_an_object(tmp_path: Path) -> None:
    store, counted = remote_like(tmp_path)
    hashes = hashes_of(200_000)
    reader = level_in(store, entries_of(hashes, 0), 3)
    counted.requests.clear()
    counted.read_bytes = 0
    assert len(found_in(reader, hashes[1_000:1_004])) == 4
    assert counted.requests["read"] == 0
    assert counted.requests["read_range"] <= 4
    assert counted.read_bytes < 4 * 1_200_000 < reader.level.size
