"""Groups on disk: what names them, and when their files count as unchanged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.search.local.build import CHUNKS, DOCUMENTS
from isospace.search.local.choice import GroupPart, KnownGroup
from isospace.search.local.group import _write_record, group_kind, known_groups, open_group
from tests.helpers.manifests import manifest
from tests.helpers.small_space import DIMENSION, small_space

KIND = group_kind(manifest(1), None)
PART = GroupPart("one", ("a", "b", "c"), frozenset(), 1, 2)


def test_the_kind_covers_collection_space_and_words_but_no_snapshot() -> None:
    kinds = [
        group_kind(manifest(1), None),
        group_kind(manifest(1, space_id="t" * 64), None),
        group_kind(manifest(1, sparse_space_id="u" * 64), None),
        group_kind(manifest(1), "words"),
        group_kind(manifest(1), "others"),
        group_kind(manifest(1, collection="d"), None),
    ]
    assert len(set(kinds)) == len(kinds)
    assert group_kind(manifest(2, deletions=None, provenance={"run_id": "x"}), None) == kinds[0]


def test_the_name_covers_every_file_and_what_was_left_out() -> None:
    parts = [
        [(("a", "b", "c"), frozenset[str]())],
        [(("a", "b", "x"), frozenset[str]())],
        [(("a", "b", "c"), frozenset({"d"}))],
        [(("a", "b", "c"), frozenset[str]()), (("e", "f", "g"), frozenset[str]())],
        [(("e", "f", "g"), frozenset[str]()), (("a", "b", "c"), frozenset[str]())],
        [],
    ]
    assert len({KIND.name(one) for one in parts}) == len(parts)
    assert KIND.name([(("a",), {"y", "x"})]) == KIND.name([(("a",), {"x", "y"})])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A group of two chunks of one document."""
    folder = tmp_path / KIND.name([(PART.files, PART.deleted)])
    folder.mkdir()
    np.save(folder / "float32.npy", np.ones((2, DIMENSION), np.float32))
    np.save(folder / "int8.npy", np.ones((2, DIMENSION), np.int8))
    for name, column in ((CHUNKS, ["x", "y"]), (DOCUMENTS, ["d"])):
        table = pa.table({"id": column})
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    _write_record(folder, folder.name, KIND, [PART], 3)
    return folder


def is_whole(folder: Path, verify="content") -> bool:
    return open_group(folder.parent, KnownGroup(folder.name, (PART,), 0), small_space(), verify) is not None


def test_a_group_that_nobody_touched_is_opened(folder: Path) -> None:
    (known,) = known_groups(folder.parent, KIND)
    assert known == KnownGroup(folder.name, (PART,), 3)
    found = open_group(folder.parent, known, small_space(), "content")
    assert found is not None
    assert (len(found), found.arrays["int8"].tolist()) == (2, np.ones((2, DIMENSION)).tolist())


def test_groups_of_another_kind_or_in_another_place_are_unknown(folder: Path) -> None:
    assert list(known_groups(folder.parent, group_kind(manifest(1), "words"))) == []
    shutil.copytree(folder, folder.with_name("c-" + "0" * 32))
    assert [known.name for known in known_groups(folder.parent, KIND)] == [folder.name]
    (folder / "copy.json").write_bytes(b"{}")
    assert list(known_groups(folder.parent, KIND)) == []


@pytest.mark.parametrize("name", ["float32.npy", "int8.npy", CHUNKS])
def test_a_file_with_another_time_is_hashed_again(folder: Path, name: str) -> None:
    os.utime(folder / name, (1, 1))
    assert is_whole(folder)
    data = bytearray((folder / name).read_bytes())
    data[-3] ^= 1
    (folder / name).write_bytes(data)
    assert not is_whole(folder)


@pytest.mark.parametrize("verify", ["content", "size"])
@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_file_of_another_size_is_never_taken(folder: Path, verify, change: bytes) -> None:
    path = folder / "int8.npy"
    path.write_bytes(path.read_bytes()[:-1] if not change else path.read_bytes() + change)
    assert not is_whole(folder, verify)
