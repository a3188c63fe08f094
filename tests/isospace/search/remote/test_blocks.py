"""Blocks are verified, and what is packed comes back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.search.remote.blocks import (
    BlockFile,
    BlockWriter,
    pack,
    pack_array,
    pack_tables,
    unpack,
    unpack_array,
    unpack_tables,
)
from isospace.storage.file_ref import FileRef


def written(path: Path, blocks: list[bytes]) -> BlockFile:
    with BlockWriter(path) as writer:
        for block in blocks:
            writer.add(block[:1], block[1:])
    arrays = writer.arrays("x")
    ref = FileRef(path="x", size=path.stat().st_size, sha256="0" * 64)
    return BlockFile(ref, "folder", arrays["x.ends"], arrays["x.checks"])


def test_blocks_lie_one_after_the_other_and_tell_each_flipped_bit(tmp_path: Path) -> None:
    blocks = [b"first", b"", b"third block"]
    file = written(tmp_path / "x", blocks)
    data = (tmp_path / "x").read_bytes()
    assert [data[slice(*file.span(number))] for number in range(len(file))] == blocks
    for number, block in enumerate(blocks):
        assert file.is_intact(number, block)
        assert not file.is_intact(number, block + b"\0")
        assert not block or not file.is_intact(number, block[:-1])
        for place in range(len(block)):
            for bit in range(8):
                changed = bytearray(block)
                changed[place] ^= 1 << bit
                assert not file.is_intact(number, bytes(changed))
    assert "block 2 (bytes 5 to 16)" in str(file.damaged(2))


@pytest.mark.parametrize("data", [b"", b"a", b"abc" * 10_000])
def test_packed_data_come_back(data: bytes) -> None:
    assert unpack(pack(data)) == data


@pytest.mark.parametrize("array", [np.zeros(0, np.int32), np.arange(-5, 5, dtype=np.int32), np.arange(9, dtype=">i4")])
def test_packed_arrays_come_back(array: np.ndarray) -> None:
    assert unpack_array(pack_array(array), np.int32).tolist() == array.tolist()


def test_packed_tables_come_back_also_empty_ones_and_slices() -> None:
    table = pa.table({"a": pa.array(["x", None, "\u202e"], pa.large_string()), "b": pa.array([1, 2, 3], pa.int32())})
    tables = [table, table.slice(0, 0), table.slice(2), pa.concat_tables([table, table])]
    assert [one.to_pylist() for one in unpack_tables(pack_tables(tables))] == [one.to_pylist() for one in tables]
