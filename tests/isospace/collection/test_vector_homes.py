"""The home of a hash is the first file by path that holds it, however the index came about, whoever writes beside."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.origins import Origin
from isospace.collection.raw_vectors import write_vectors
from isospace.collection.vector_files import vector_part_path, vector_parts
from isospace.collection.vector_homes import find_files, home_origins, load_homes, locate
from isospace.collection.vector_index import pending, refresh
from isospace.collection.vector_index.manifests import drop_index, old_index_files, read_index, verify_index
from isospace.collection.vector_index.pending import announce, announced
from isospace.collection.vector_index.refresh import Writer, refresh_index
from isospace.errors import IntegrityError
from isospace.storage import paths as layout
from isospace.storage.hashing import seal
from isospace.storage.scratch_duckdb import append_rows, load_columns, scratch_database
from isospace.storage.store import Store, open_store
from tests.helpers.remote_like import remote_like

ENCODER = "e" * 64
ME = Writer("c", "this run")


def key(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def write(store: Store, shard: str, names: str, engine: str = "x", **options: Any) -> None:
    vectors = np.zeros((len(names), 2), np.float32)
    provenance = {"engine": engine, "bits": engine, "batch_invariant": "true"}
    write_vectors(store, ENCODER, shard, [key(name) for name in names], vectors, provenance=provenance, **options)


def homes(
    store: Store,
    folder: Path,
    *wanted: str,
    writer: Writer | None = ME,
    names: tuple[str, ...] = (),
    are_stored: bool = False,
) -> tuple[list[list[str]], tuple[Origin, ...]]:
    """Return the homes of the hashes of each part, by the names of their files; and the origins of all."""
    with scratch_database(folder / "scratch", memory_mb=64) as connection:
        load_columns(connection, "wanted", store, [], {"chunk_hash": "BLOB"})
        for number, texts in enumerate(wanted):
            column = pa.array([key(text) for text in texts], pa.binary(32))
            append_rows(connection, "wanted", number, pa.table({"chunk_hash": column}))
        found = load_homes(
            connection,
            store,
            ENCODER,
            "wanted",
            folder / "scratch",
            writer=writer,
            names=names,
            are_stored=are_stored,
        )
        located = dict(locate(connection, "wanted", found))
        origins = home_origins(connection, found)
    stems = {number: [Path(path).stem for path in paths] for number, paths in located.items()}
    return [stems.get(number, []) for number in range(len(wanted))], origins


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two parts, which both contain the texts b and c."""
    made = open_store(tmp_path / "store")
    write(made, "1", "abc")
    write(made, "2", "bcd")
    return made


@pytest.mark.parametrize("writer", [ME, None])
@pytest.mark.parametrize(
    ("names", "expected"),
    [("ab", ["1"]), ("d", ["2"]), ("bc", ["1"]), ("ad", ["1", "2"]), ("cd", ["1", "2"]), ("x", []), ("", [])],
)
def test_texts_are_located_in_the_first_part_with_each(
    store: Store, tmp_path: Path, names: str, expected: list[str], writer: Writer | None
) -> None:
    assert homes(store, tmp_path, names, writer=writer)[0] == [expected]
    assert find_files(store, ENCODER, [key(n) for n in names]) == [vector_part_path(ENCODER, n) for n in expected]


@pytest.mark.parametrize("remote", [False, True])
def test_homes_are_those_of_all_files_read_in_order_however_they_came_into_the_index(
    tmp_path: Path, remote: bool
) -> None:
    store = remote_like(tmp_path / "store")[0] if remote else open_store(tmp_path / "store")
    generator = np.random.default_rng(5)
    letters = "abcdefghijklmnopqrstuvwxyz"
    files: dict[str, str] = {}
    for _ in range(30):
        name = f"{generator.integers(0, 10**6):06d}"
        files[name] = "".join(generator.permutation(list(letters))[: generator.integers(1, 9)])
        write(store, name, files[name], engine=str(generator.integers(3)))
        first = {text: next((n for n in sorted(files) if text in files[n]), None) for text in letters}
        expected = [[first[text]] if first[text] else [] for text in letters]
        assert homes(store, tmp_path, *letters)[0] == expected
        if generator.random() < 0.2:
            gone = str(generator.choice(sorted(files)))
            store.delete(vector_part_path(ENCODER, gone))
            del files[gone]
    index = read_index(store, ENCODER)
    assert index is not None
    assert 1 < len(index.levels) < 12
    assert verify_index(store, ENCODER) == 1 + len(index.levels)


def test_paths_count_and_not_names(store: Store, tmp_path: Path) -> None:
    """A dash comes before the dot of the suffix."""
    write(store, "1-0", "a")
    assert homes(store, tmp_path, "a")[0] == [["1-0"]]


def test_origins_are_those_of_the_homes_alone(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    write(store, "1", "ab", engine="first")
    write(store, "2", "bc", engine="second")
    for wanted, expected in (("ab", {"first"}), ("b", {"first"}), ("c", {"second"}), ("ac", {"first", "second"})):
        assert {origin.engine for origin in homes(store, tmp_path, wanted)[1]} == expected
    assert homes(store, tmp_path, "x")[1] == ()


def test_a_deleted_part_is_no_home_and_the_next_one_is(store: Store, tmp_path: Path) -> None:
    assert homes(store, tmp_path, "a", "b")[0] == [["1"], ["1"]]
    store.delete(vector_part_path(ENCODER, "1"))
    assert homes(store, tmp_path, "a", "b")[0] == [[], ["2"]]
    write(store, "1", "ba")
    assert homes(store, tmp_path, "a", "b")[0] == [["1"], ["1"]]


def test_what_a_killed_run_wrote_is_found_by_name_and_the_folder_is_not_listed(tmp_path: Path) -> None:
    store, counted = remote_like(tmp_path / "store")
    homes(store, tmp_path, "a")
    announce(store, ENCODER, ["3", "4", "5"], collection="c", run_id="killed")
    write(store, "4", "xy", announced=True)
    counted.walked.clear()
    assert homes(store, tmp_path, "x")[0] == [["4"]]
    assert layout.vectors_folder(ENCODER, "document") not in counted.walked
    # Nobody writes the others any more.
    assert announced(store, ENCODER) == []


def test_an_object_store_is_asked_for_few_names_and_lists_instead_of_many(tmp_path: Path) -> None:
    store, counted = remote_like(tmp_path / "store")
    for number in range(40):
        write(store, f"{number:02d}", chr(97 + number))
    homes(store, tmp_path, "a")
    for wanted, listed in (("abc", False), ([chr(97 + number) for number in range(40)], True)):
        counted.walked.clear()
        assert homes(store, tmp_path, *wanted)[0] == [[f"{number:02d}"] for number in range(len(wanted))]
        assert (layout.vectors_folder(ENCODER, "document") in counted.walked) is listed


def test_a_part_that_nobody_announced_is_found_by_its_name_alone(store: Store, tmp_path: Path) -> None:
    homes(store, tmp_path, "a")
    write(store, "0", "a", announced=True)
    assert homes(store, tmp_path, "a")[0] == [["1"]]
    assert homes(store, tmp_path, "a", names=("0", "absent"))[0] == [["0"]]
    assert homes(store, tmp_path, "a")[0] == [["0"]]


@pytest.mark.parametrize("writer", [ME, None])
def test_parts_that_the_index_lacks_are_found_where_a_vector_should_be_stored(
    store: Store, tmp_path: Path, writer: Writer | None
) -> None:
    """As after a run of an earlier version, or one that was suspended for longer than its lease."""
    homes(store, tmp_path, "a")
    write(store, "8", "xy", announced=True)
    write(store, "9", "z", announced=True)
    assert homes(store, tmp_path, "ax", writer=writer)[0] == [["1"]]
    assert homes(store, tmp_path, "ax", writer=writer, are_stored=True)[0] == [["1", "8"]]
    assert [Path(path).stem for path in find_files(store, ENCODER, [key("z"), key("a")], writer=writer)] == ["1", "9"]
    # What should be stored and is not, is not.
    assert homes(store, tmp_path, "a?", writer=writer, are_stored=True)[0] == [["1"]]
    # Whoever may write has taken both in.
    assert homes(store, tmp_path, "xz")[0] == [["8", "9"] if writer else []]


def test_whoever_may_not_write_leaves_the_store_as_it_is(store: Store, tmp_path: Path) -> None:
    before = {stat.path: store.read(stat.path) for stat in store.walk("")}
    assert homes(store, tmp_path, "d", writer=None)[0] == [["2"]]
    assert {stat.path: store.read(stat.path) for stat in store.walk("")} == before
    homes(store, tmp_path, "d")
    write(store, "0", "d")
    before = {stat.path: store.read(stat.path) for stat in store.walk("")}
    assert homes(store, tmp_path, "d", writer=None)[0] == [["0"]]
    assert {stat.path: store.read(stat.path) for stat in store.walk("")} == before


@pytest.mark.parametrize(
    ("collection", "run_id", "written", "left"),
    [
        ("c", "killed", "", []),  # another run of this collection, which holds the lease now
        ("c", "this run", "", ["3", "4"]),
        ("c", "this run", "3", ["4"]),
        ("other", "killed", "", ["3", "4"]),
        ("other", "killed", "4", ["3"]),
        ("other", "killed", "34", []),
        ("", "", "", ["3", "4"]),
    ],
)
def test_a_list_is_kept_while_its_parts_may_still_be_written(
    store: Store, tmp_path: Path, collection: str, run_id: str, written: str, left: list[str]
) -> None:
    homes(store, tmp_path, "a")
    announce(store, ENCODER, ["3", "4"], collection=collection, run_id=run_id)
    for name in written:
        write(store, name, name, announced=True)
    assert homes(store, tmp_path, *written)[0] == [[name] for name in written]
    assert [name for one in announced(store, ENCODER) for name in one.names] == left
    assert all((one.collection, one.run_id) == (collection, run_id) for one in announced(store, ENCODER))
    # Written late.
    for name in left:
        write(store, name, name, announced=True)
    assert homes(store, tmp_path, *left)[0] == [[name] for name in left]
    assert announced(store, ENCODER) == []


def test_lists_of_runs_that_never_ended_are_dropped_after_a_month(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes(store, tmp_path, "a")
    announce(store, ENCODER, ["3"], collection="other", run_id="killed")
    now = time.time()
    for days, left in ((29, 1), (31, 0)):
        monkeypatch.setattr(pending.time, "time", lambda days=days: now + days * 86_400)
        homes(store, tmp_path, "a")
        assert len(announced(store, ENCODER)) == left


def test_long_lists_are_divided(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "_NAMES_PER_LIST", 2)
    names = [str(number) for number in range(5)]
    assert len(announce(store, ENCODER, names)) == 3
    assert set(names) <= {name for one in announced(store, ENCODER) for name in one.names}
    assert announce(store, ENCODER, []) == []


def test_a_damaged_list_is_dropped(store: Store, tmp_path: Path) -> None:
    homes(store, tmp_path, "a")
    for number, data in enumerate((b"", b"{}", seal({"names": 5, "collection": "c", "run_id": ""}), seal({"a": 1}))):
        store.write(f"{layout.vector_index_pending(ENCODER)}/{number}.json", data)
    assert homes(store, tmp_path, "a")[0] == [["1"]]
    assert announced(store, ENCODER) == []


@pytest.mark.parametrize("what", ["manifest", "its format", "level", "no level", "no levels at all"])
def test_a_damaged_index_is_made_again_with_a_warning(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    homes(store, tmp_path, "a")
    write(store, "3", "e")
    homes(store, tmp_path, "a")
    manifest = max(stat.path for stat in store.walk(layout.vector_index_manifests(ENCODER)))
    levels = [stat.path for stat in store.walk(layout.vector_index_levels(ENCODER))]
    for path in levels if what == "no levels at all" else levels[:1] if what == "no level" else ():
        store.delete(path)
    if what == "level":
        for path in levels:
            data = store.read(path)
            store.write(path, bytes([data[0] ^ 1]) + data[1:])
    if what in ("manifest", "its format"):
        store.write(manifest, b"damaged" if what == "manifest" else seal({"format": 2, "levels": []}))
    if what != "its format":
        with pytest.raises(IntegrityError):
            verify_index(store, ENCODER)
    with caplog.at_level(logging.WARNING):
        assert homes(store, tmp_path, "a", "d", "e", writer=None)[0] == [["1"], ["2"], ["3"]]
        assert homes(store, tmp_path, "a", "d", "e")[0] == [["1"], ["2"], ["3"]]
    assert caplog.text.count("is damaged, and is made again") == 2
    caplog.clear()
    assert homes(store, tmp_path, "a", "d", "e")[0] == [["1"], ["2"], ["3"]]
    assert caplog.text == ""
    verify_index(store, ENCODER)


def test_a_damaged_part_that_is_new_is_an_error_that_names_it(store: Store, tmp_path: Path) -> None:
    homes(store, tmp_path, "a")
    write(store, "3", "e")
    store.write(vector_part_path(ENCODER, "3"), b"PAR1 and nothing else")
    with pytest.raises(IntegrityError, match=r"document/3\.parquet: damaged"):
        homes(store, tmp_path, "a")


@pytest.mark.parametrize("step", ["publish_level", "write_index", "_drop_lists"])
def test_a_run_that_is_killed_while_it_writes_the_index_loses_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    homes(store, tmp_path, "a")
    write(store, "3", "e")

    def killed(*given: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(refresh, step, killed)
        with pytest.raises(KeyboardInterrupt):
            homes(store, tmp_path, "e")
    assert homes(store, tmp_path, "a", "e")[0] == [["1"], ["3"]]
    assert announced(store, ENCODER) == []


@pytest.mark.parametrize("first", [True, False])
def test_two_runs_at_once_lose_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    """Another run takes in its parts, and merges levels, while this one is about to append a manifest."""
    if not first:
        homes(store, tmp_path, "a")
    for number in range(3, 9):
        write(store, str(number), chr(98 + number))
    append, others = refresh.write_index, iter(range(1))

    def interrupted(*given: Any) -> Any:
        for _ in others:
            for number in range(4):
                write(store, f"x{number}", "wxyz"[number])
                homes(store, tmp_path, "w")
        return append(*given)

    monkeypatch.setattr(refresh, "write_index", interrupted)
    wanted, expected = "adefghijwxyz", ["1", "2", "3", "4", "5", "6", "7", "8", "x0", "x1", "x2", "x3"]
    assert homes(store, tmp_path, *wanted[:8])[0] == [[name] for name in expected[:8]]
    listed = layout.vectors_folder(ENCODER, "document")
    assert len(list(store.walk(listed))) == 12
    assert homes(store, tmp_path, *wanted)[0] == [[name] for name in expected]
    verify_index(store, ENCODER)


def test_a_level_that_another_run_has_removed_is_looked_up_in_the_one_that_replaced_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "345":
        homes(store, tmp_path, "a")
        write(store, name, name)
    opened = refresh_index(store, ENCODER, tmp_path / "scratch", writer=None)
    homes(store, tmp_path, "a")
    index = read_index(store, ENCODER)
    assert index is not None
    merged = {layout.vector_index_level(ENCODER, level.sha256) for level in index.levels}
    gone = {reader.path for reader in opened.readers if reader.store is store} - merged
    assert len(gone) == 3
    for path in gone:
        store.delete(path)
    monkeypatch.setattr("isospace.collection.vector_homes.refresh_index", _first(opened, refresh_index))
    assert homes(store, tmp_path, "a", "5")[0] == [["1"], ["5"]]
    assert caplog.text == ""


def _first(opened: Any, then: Any) -> Any:
    results = iter([lambda *given, **named: opened])
    return lambda *given, **named: next(results, then)(*given, **named)


def test_old_files_of_the_index_are_removed_after_a_day_but_what_counts_stays(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "34567":
        homes(store, tmp_path, "a")
        write(store, name, name)
    assert old_index_files(store, ENCODER) == []
    assert store.root is not None
    for stat in store.walk(layout.vector_index(ENCODER)):
        os.utime(store.root / stat.path, (1, 1))
    homes(store, tmp_path, "a")
    index = read_index(store, ENCODER)
    assert index is not None
    left = {stat.path for stat in store.walk(layout.vector_index(ENCODER))}
    named = {layout.vector_index_level(ENCODER, level.sha256) for level in index.levels}
    assert {path for path in left if path.endswith(".bin")} == named
    assert len(left) == len(named) + 1
    assert homes(store, tmp_path, "a", "7")[0] == [["1"], ["7"]]


def test_an_index_that_was_dropped_is_made_again_without_a_warning(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    homes(store, tmp_path, "a")
    announce(store, ENCODER, ["3"])
    assert len(drop_index(store, ENCODER)) == 3
    assert list(store.walk(layout.vector_index(ENCODER))) == []
    assert homes(store, tmp_path, "a", "d")[0] == [["1"], ["2"]]
    assert caplog.text == ""


def test_parts_are_those_with_vectors_and_not_the_index(store: Store, tmp_path: Path) -> None:
    homes(store, tmp_path, "a")
    assert vector_parts(store, ENCODER) == [vector_part_path(ENCODER, name) for name in "12"]
