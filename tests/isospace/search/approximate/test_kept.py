"""What is kept of filters that are asked for again."""

from __future__ import annotations

import numpy as np

from isospace.search.approximate.kept import KeptByRows
from isospace.search.vector.topk import Rows


class Counting:
    """Counts how often something is derived."""

    def __init__(self) -> None:
        self.kept, self.times = KeptByRows[int](), 0

    def derive(self, rows: Rows) -> int:
        self.times += 1
        return int(rows.sum())

    def ask(self, rows: Rows, *, keep: bool) -> int:
        before = self.times
        assert self.kept.get(rows, self.derive, keep=keep) == rows.sum()
        return self.times - before


def rows(number: int) -> Rows:
    return np.arange(number, number + 3, dtype=np.int64)


def test_the_same_array_is_derived_from_once_if_it_is_kept() -> None:
    counting, one = Counting(), rows(1)
    assert [counting.ask(one, keep=True) for _ in range(3)] == [1, 0, 0]
    # Equal, but another array: to compare them would take as long.
    assert counting.ask(rows(1), keep=True) == 1


def test_rows_of_one_search_are_not_kept_and_displace_nothing() -> None:
    counting, one = Counting(), rows(1)
    counting.ask(one, keep=True)
    others = [rows(number) for number in range(2, 30)]
    assert [counting.ask(other, keep=False) for other in others] == [1] * 28
    assert counting.ask(others[-1], keep=False) == 1
    assert counting.ask(one, keep=False) == 0


def test_sixteen_are_kept_and_the_one_asked_for_longest_ago_goes() -> None:
    counting, all_rows = Counting(), [rows(number) for number in range(17)]
    for one in all_rows[:16]:
        counting.ask(one, keep=True)
    assert counting.ask(all_rows[0], keep=True) == 0
    counting.ask(all_rows[16], keep=True)
    assert counting.ask(all_rows[0], keep=True) == 0
    assert counting.ask(all_rows[1], keep=True) == 1
