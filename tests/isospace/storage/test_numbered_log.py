"""Numbered logs: every number is written once, whoever else writes at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pydantic import BaseModel

from isospace.errors import ConflictError, IntegrityError
from isospace.storage.numbered_log import ATTEMPTS, append, entry_paths, read_all
from isospace.storage.paths import numbered
from isospace.storage.store import Store, open_store

FOLDER = "logs/one"


class Note(BaseModel):
    number: int
    text: str


def write(store: Store, text: str) -> Note:
    return append(store, FOLDER, lambda number: Note(number=number, text=text))


def taken_each_time(store: Store, calls: list[int]) -> Note:
    """Append while another writer takes every number first."""

    def make(number: int) -> Note:
        calls.append(number)
        store.write(numbered(FOLDER, number), b"another writer's")
        return Note(number=number, text="late")

    return append(store, FOLDER, make)


def test_entries_are_numbered_from_one_and_read_in_order(store: Store) -> None:
    assert read_all(store, FOLDER, Note) == []
    written = [write(store, text) for text in "abcdefghijkl"]
    assert [note.number for note in written] == list(range(1, 13))
    assert read_all(store, FOLDER, Note) == written
    assert [stat.path for stat in store.walk(FOLDER)] == [f"{FOLDER}/{number:08d}.json" for number in range(1, 13)]


@pytest.mark.parametrize(("last", "expected"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])])
def test_the_last_entries_alone_are_read(tmp_path: Path, last: int, expected: list[str]) -> None:
    store = open_store(tmp_path)
    for text in "abc":
        write(store, text)
    assert [note.text for note in read_all(store, FOLDER, Note, last=last)] == expected


def test_racing_appends_take_distinct_consecutive_numbers(store: Store) -> None:
    start = threading.Barrier(ATTEMPTS)

    def race(writer: int) -> list[int]:
        start.wait(30)
        return [write(store, str(writer)).number]

    # Of as many writers as there are attempts each loses at most to all others, so that none gives up.
    for rounds in range(1, 4):
        with ThreadPoolExecutor(ATTEMPTS) as pool:
            numbers = [number for won in pool.map(race, range(ATTEMPTS)) for number in won]
        assert sorted(numbers) == list(range((rounds - 1) * ATTEMPTS + 1, rounds * ATTEMPTS + 1))
    notes = read_all(store, FOLDER, Note)
    assert [note.number for note in notes] == list(range(1, 3 * ATTEMPTS + 1))
    assert sorted(note.text for note in notes) == sorted(3 * [str(writer) for writer in range(ATTEMPTS)])


def test_an_append_gives_up_after_a_bounded_number_of_attempts(store: Store) -> None:
    calls: list[int] = []
    with pytest.raises(ConflictError, match=f"{FOLDER}: others took the next number {ATTEMPTS} times"):
        taken_each_time(store, calls)
    assert calls == list(range(1, ATTEMPTS + 1))
    assert all(store.read(path) == b"another writer's" for path in entry_paths(store, FOLDER).values())


def test_an_entry_is_made_again_for_the_number_after_one_that_was_taken(tmp_path: Path) -> None:
    store, seen = open_store(tmp_path), list[list[str]]()

    def make(number: int) -> Note:
        seen.append([note.text for note in read_all(store, FOLDER, Note)])
        if number == 1:
            write(store, "first")
        return Note(number=number, text="second")

    assert append(store, FOLDER, make) == Note(number=2, text="second")
    assert seen == [[], ["first"]]


def test_nothing_is_written_where_nothing_is_made(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert append(store, FOLDER, lambda number: None) is None
    assert list(store.walk("")) == []


def test_only_numbered_files_of_the_folder_itself_are_entries(store: Store) -> None:
    note = write(store, "a")
    others = [
        "notes.txt", "1.json", "000000002.json", "0000002.json", "x00000003.json", "00000004.json.bak",
        "00000005.parquet",
        "receipts/00000006.json", "٠٠٠٠٠٠٠٧.json",
    ]  # fmt: skip
    for name in others:
        store.write(f"{FOLDER}/{name}", b"not an entry")
    assert entry_paths(store, FOLDER) == {1: f"{FOLDER}/00000001.json"}
    assert read_all(store, FOLDER, Note) == [note]
    assert write(store, "b").number == 2


def test_a_gap_is_never_filled(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for text in "abc":
        write(store, text)
    store.delete(numbered(FOLDER, 2))
    assert write(store, "d").number == 4
    assert [note.number for note in read_all(store, FOLDER, Note)] == [1, 3, 4]


def test_a_changed_entry_is_refused_by_name(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write(store, "a")
    path = numbered(FOLDER, 1)
    store.write(path, store.read(path).replace(b'"a"', b'"b"'))
    with pytest.raises(IntegrityError, match=path):
        read_all(store, FOLDER, Note)
