"""Levels are made from files and from levels, in portions that fit in memory, and merged before there are many."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.collection.raw_vectors import write_vectors
from isospace.collection.vector_files import vector_parts
from isospace.collection.vector_index import merge
from isospace.collection.vector_index.level import Hashes
from isospace.collection.vector_index.merge import level_of_files, levels_to_merge, merged_level, publish_level
from isospace.storage import paths as layout
from isospace.storage.store import Store, open_store
from tests.helpers.remote_like import remote_like
from tests.isospace.collection.vector_index.test_level import found_in, hashes_of

ENCODER = "e" * 64


@pytest.fixture(params=[1 << 20, 100])
def memory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Entries in memory: all, or fewer than there are, so that levels are merged to make one."""
    monkeypatch.setattr(merge, "_ENTRIES_IN_MEMORY", request.param)
    return int(request.param)


def write(store: Store, name: str, hashes: Hashes, engine: str = "x") -> None:
    keys = [row.tobytes() for row in hashes]
    write_vectors(store, ENCODER, name, keys, np.zeros((len(keys), 2), np.float32), provenance={"engine": engine})


@pytest.mark.parametrize("remote", [False, True])
def test_a_level_of_files_has_the_hashes_of_each_file_once(tmp_path: Path, memory: int, remote: bool) -> None:
    store = remote_like(tmp_path / "s")[0] if remote else open_store(tmp_path / "s")
    expected = set()
    for number, name in enumerate(["d", "b", "trial-1", "a", "c"]):
        # Files share half of their hashes with the next one, and come from two engines.
        hashes = hashes_of(90, first=45 * number)
        write(store, name, hashes, engine=str(number % 2))
        expected |= {(row.tobytes(), name, str(number % 2)) for row in hashes}
    made = level_of_files(store, ENCODER, vector_parts(store, ENCODER), tmp_path / "scratch")
    assert made is not None
    reader = made.reader()
    names, kinds = reader.files(np.arange(5))
    engines = [reader.level.origins[kind].engine for kind in kinds.tolist()]
    assert names == sorted(names)
    assert {(key, names[n], engines[n]) for key, n in found_in(reader, hashes_of(300))} == expected
    assert reader.level.entries == 450
    # What it was made of is removed.
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == [made.path.name]


def test_no_files_make_no_level(tmp_path: Path) -> None:
    assert level_of_files(open_store(tmp_path), ENCODER, [], tmp_path / "scratch") is None


def test_the_same_files_make_the_same_level_in_one_portion_or_in_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path / "s")
    for number in range(6):
        write(store, f"{number}", hashes_of(90, first=45 * number))
    levels = []
    for most in (1 << 20, 100):
        monkeypatch.setattr(merge, "_ENTRIES_IN_MEMORY", most)
        made = level_of_files(store, ENCODER, vector_parts(store, ENCODER)[:: 1 if most == 100 else -1], tmp_path / "x")
        assert made is not None
        levels.append(made.level)
    assert levels[0] == levels[1]


def test_an_entry_in_several_levels_counts_once(tmp_path: Path, memory: int) -> None:
    store = open_store(tmp_path / "s")
    for number in range(4):
        write(store, f"{number}", hashes_of(90, first=45 * number))
    paths = vector_parts(store, ENCODER)
    parts = [level_of_files(store, ENCODER, some, tmp_path / "x") for some in (paths[:3], paths[1:], paths[2:3])]
    merged = merged_level([part.reader() for part in parts if part is not None], tmp_path / "x")
    whole = level_of_files(store, ENCODER, paths, tmp_path / "x")
    assert whole is not None
    assert merged.level == whole.level


def test_a_damaged_level_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    store = open_store(tmp_path / "s")
    write(store, "a", hashes_of(9))
    for _ in range(2):
        made = level_of_files(store, ENCODER, vector_parts(store, ENCODER), tmp_path / "x")
        assert made is not None
        level = publish_level(store, ENCODER, made)
        path = layout.vector_index_level(ENCODER, level.sha256)
        assert store.digest(path) == level.sha256
        store.write(path, b"damaged")


@pytest.mark.parametrize("added", [1, 100, 10_000, 3_000_000])
def test_many_runs_leave_few_levels_and_merge_each_entry_few_times(added: int) -> None:
    levels: list[int] = []
    copied = 0
    for _ in range(400):
        levels.append(added)
        if chosen := levels_to_merge(levels, added):
            total = sum(levels[place] for place in chosen)
            assert total <= max(merge._MERGED, merge._MERGED_SHARE * added) or len(levels) > merge._MOST_LEVELS
            copied += total
            levels = [*(size for place, size in enumerate(levels) if place not in chosen), total]
        assert len(levels) <= merge._MOST_LEVELS
    assert sum(levels) == 400 * added
    assert copied <= 400 * max(30 * added, merge._SMALLEST)


def test_one_large_level_is_left_alone() -> None:
    assert levels_to_merge([100_000_000, 5, 5, 5], 5) == []
    assert levels_to_merge([100_000_000, 5, 5, 5, 5], 5) == [1, 2, 3, 4]
    assert levels_to_merge([20_000, 20_000, 5, 20_000, 20_000], 5) == [0, 1, 2, 3, 4]
    assert levels_to_merge([9_000_000] * 4, 5) == []
