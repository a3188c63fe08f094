from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.search.vector.topk import TooManyRowsError, top_rows


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("block", [64, 100, 300])
def test_a_row_exactly_at_the_slack_is_taken_and_the_next_one_is_not(dtype: type, block: int) -> None:
    """Three rows of 10, one of 8, one of 6, and many of 5 and of 0."""
    scores = np.zeros((2, 300), dtype)
    scores[:, [5, 150, 290]], scores[:, 77], scores[:, 222], scores[:, 230:250] = 10, 8, 6, 5
    for slack, expected in ((2.0, {5, 150, 290, 77}), (4.0, {5, 150, 290, 77, 222}), (1.0, {5, 150, 290})):
        blocks = ((n, scores[:, n : n + block]) for n in range(0, 300, block))
        assert [set(rows.tolist()) for rows in top_rows(blocks, 2, 3, np.full(2, slack))] == [expected] * 2


@pytest.mark.parametrize("slack", [0.1, 1 / 3, 2.5, 1e-9])
def test_whole_scores_within_a_slack_that_is_not_whole_are_taken(slack: float) -> None:
    scores = np.arange(200, dtype=np.int32)[None]
    (found,) = top_rows(((n, scores[:, n : n + 50]) for n in range(0, 200, 50)), 1, 5, np.array([slack]))
    assert found.tolist() == list(range(199, 194 - int(slack), -1))


@pytest.mark.parametrize("count", [1, 3, 10])
def test_no_more_than_the_count_are_taken_without_slack_and_too_many_within_it_are_refused(count: int) -> None:
    scores = np.array([[5, 5, 4, 4, 4, 3, 2, 1, 0, 0, 0, 0]], np.float32)
    assert [len(rows) for rows in top_rows([(0, scores)], 1, count)] == [count]
    assert len(top_rows([(0, scores)], 1, 3, np.array([0.5]), most=5)[0]) == 5
    with pytest.raises(TooManyRowsError):
        top_rows([(0, scores)], 1, 3, np.array([0.5]), most=4)
