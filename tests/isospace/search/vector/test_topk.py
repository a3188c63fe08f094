from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.search.vector.topk import top_rows


@given(
    st.integers(1, 4),
    st.integers(1, 60),
    st.integers(1, 12),
    st.integers(1, 17),
    st.integers(0, 2**31),
    st.sampled_from([np.float32, np.float64, np.int32]),
)
def test_the_best_rows_of_blocks_are_those_of_a_whole_sort(queries, rows, count, block, seed, dtype) -> None:
    # Few values, so that ties are common.
    scores = np.random.default_rng(seed).integers(-3, 4, (queries, rows)).astype(dtype)
    found = top_rows(((n, scores[:, n : n + block]) for n in range(0, rows, block)), queries, count)
    assert len(found) == queries
    for query, best in enumerate(found):
        assert best.tolist() == sorted(range(rows), key=lambda row: (-scores[query, row], row))[:count]


@given(st.integers(0, 2**31), st.floats(0.01, 0.5))
def test_slack_takes_everything_that_is_near_the_last(seed: int, slack: float) -> None:
    scores = np.random.default_rng(seed).random((3, 200)).astype(np.float32)
    found = top_rows(((n, scores[:, n : n + 16]) for n in range(0, 200, 16)), 3, 5, np.full(3, slack))
    assert len(found) == 3
    for query, best in enumerate(found):
        last = np.sort(scores[query])[-5]
        near = set(np.flatnonzero(scores[query].astype(np.float64) >= float(last) - slack * 0.999))
        assert near <= set(best.tolist())
        assert scores[query, best].min() >= last - slack - 1e-6


def test_equal_scores_of_everything_are_bounded_by_the_count_without_slack() -> None:
    scores = np.zeros((2, 100_000), np.float32)
    found = top_rows(((n, scores[:, n : n + 4096]) for n in range(0, 100_000, 4096)), 2, 7)
    assert [best.tolist() for best in found] == [list(range(7))] * 2


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_rows_than_asked_for_are_all_of_them(rows: int) -> None:
    assert [len(best) for best in top_rows([(0, np.zeros((2, rows), np.float32))], 2, 5)] == [rows, rows]
