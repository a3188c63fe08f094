"""Local copies: what their ID covers, and when a file counts as unchanged."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.snapshot import Manifest
from isospace.search.build_local_copy import CHUNKS, DOCUMENTS
from isospace.search.lexical_record import LexicalRecord
from isospace.search.local_copy import _open, _write_record, copy_id
from isospace.search.spec import LexicalSpec
from tests.helpers.manifests import file_ref, manifest, part_record
from tests.helpers.small_space import DIMENSION, small_space


def words(postings: str = "a", spec: LexicalSpec | None = None, files: str = "f") -> LexicalRecord:
    refs = (file_ref("lexical/x", content=postings),)
    return LexicalRecord("lexical/x.json", spec or LexicalSpec(), files, {}, refs)


def test_the_id_of_a_copy_covers_every_file_that_it_is_built_from() -> None:
    others: list[tuple[Manifest, LexicalRecord | None]] = [
        (manifest(1), None),
        (manifest(1, space_id="t" * 64), None),
        (manifest(1, deletions=file_ref("deletions/x")), None),
        (manifest(1, deletions=file_ref("deletions/x", content="other")), None),
        (manifest(1, parts=(part_record("one"), part_record("two"))), None),
        (manifest(1, parts=(part_record("two"), part_record("one"))), None),
        *(
            (manifest(1, parts=(part_record("one", **{k: file_ref("x")}),)), None)
            for k in ("documents", "chunks", "segment")
        ),
        (manifest(1), words()),
        (manifest(1), words("b")),
        (manifest(1), words(spec=LexicalSpec(k1=2.0))),
        (manifest(1), words(files="e")),
        (manifest(1), LexicalRecord("lexical/x.json", LexicalSpec(), "f", {}, (), file_ref("lexical/x"))),
    ]
    assert len({copy_id(*one) for one in others}) == len(others)


def test_equal_files_are_the_same_copy_whatever_snapshot_names_them() -> None:
    assert copy_id(manifest(1), None) == copy_id(manifest(2, provenance={"run_id": "x"}), None)
    moved = part_record("one", documents=file_ref("elsewhere", content="documents/one"))
    assert copy_id(manifest(1), None) == copy_id(manifest(1, parts=(moved,)), None)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of two chunks of one document."""
    folder = tmp_path / "c-1"
    folder.mkdir()
    np.save(folder / "float32.npy", np.ones((2, DIMENSION), np.float32))
    np.save(folder / "int8.npy", np.ones((2, DIMENSION), np.int8))
    for name, column in ((CHUNKS, ["x", "y"]), (DOCUMENTS, ["d"])):
        table = pa.table({"id": column})
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    _write_record(folder, folder.name)
    return folder


def test_a_copy_that_nobody_touched_is_opened(copy: Path) -> None:
    found = _open(copy, small_space(), None, "content")
    assert found is not None
    assert (len(found), found.codes["int8"].array.tolist()) == (2, np.ones((2, DIMENSION)).tolist())


@pytest.mark.parametrize("name", ["float32.npy", "int8.npy", CHUNKS])
def test_a_file_with_another_time_is_hashed_again(copy: Path, name: str) -> None:
    os.utime(copy / name, (1, 1))
    assert _open(copy, small_space(), None, "content") is not None
    data = bytearray((copy / name).read_bytes())
    data[-3] ^= 1
    (copy / name).write_bytes(data)
    assert _open(copy, small_space(), None, "content") is None


@pytest.mark.parametrize("verify", ["content", "size"])
@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_file_of_another_size_is_never_taken(copy: Path, verify, change: bytes) -> None:
    path = copy / "int8.npy"
    path.write_bytes(path.read_bytes()[:-1] if not change else path.read_bytes() + change)
    assert _open(copy, small_space(), None, verify) is None


def test_a_copy_that_was_moved_here_is_not_the_one_that_its_name_says(copy: Path) -> None:
    other = copy.with_name("c-2")
    shutil.copytree(copy, other)
    assert _open(other, small_space(), None, "content") is None
    assert _open(copy, small_space(), None, "content") is not None
