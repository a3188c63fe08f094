"""Rows of a snapshot, and rows of its shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.search.shards.numbering import row_table

PARTS = [(1, 3), (0, 2), (1, 0), (2, 4), (1, 1), (0, 0), (0, 5)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12))
def test_each_row_is_in_one_shard_and_comes_back(parts: list[tuple[int, int]]) -> None:
    table = row_table(parts, 4)
    # Written down row by row: the shard, and how many rows it had before.
    expected, counts = [], [0] * 4
    for shard, count in parts:
        for _ in range(count):
            expected.append((shard, counts[shard]))
            counts[shard] += 1
    rows = np.arange(len(expected))
    assert len(table) == len(expected)
    homes, own = table.split(rows)
    assert list(zip(homes.tolist(), own.tolist(), strict=True)) == expected
    for shard in range(4):
        mine = rows[homes == shard]
        assert table.joined(shard, own[homes == shard]).tolist() == mine.tolist()
        assert table.rows_in([shard]).tolist() == mine.tolist()
    assert table.rows_in(range(4)).tolist() == rows.tolist()


@pytest.mark.parametrize("parts", [[], [(0, 0)], [(2, 0), (1, 0)]])
def test_nothing_has_no_rows(parts: list[tuple[int, int]]) -> None:
    table = row_table(parts, 3)
    assert len(table) == 0
    assert not len(table.joined(1, np.zeros(0, np.int64)))
    assert not len(table.split(np.zeros(0, np.int64))[0])


def test_rows_in_any_order_come_back_in_it() -> None:
    table = row_table(PARTS, 3)
    rows = np.random.default_rng(1).permutation(len(table))
    homes, own = table.split(rows)
    back = np.concatenate([table.joined(shard, own[homes == shard]) for shard in range(3)])
    assert back.tolist() == np.concatenate([rows[homes == shard] for shard in range(3)]).tolist()
