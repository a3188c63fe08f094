"""Fused scores, by their formulas."""

from __future__ import annotations

import pytest

from isospace.search.fusion import reciprocal_rank_fusion, weighted_fusion

NEAR, WORDS = [(7, 0.9), (3, 0.8), (5, 0.5)], [(3, 12.0), (9, 4.0)]


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5), (0.0, 1.0)])
def test_reciprocal_ranks_count_from_one_and_add_sixty(weights: tuple[float, float]) -> None:
    a, b = weights
    expected = {7: a / 61, 3: a / 62 + b / 61, 5: a / 63, 9: b / 62}
    assert reciprocal_rank_fusion([NEAR, WORDS], weights) == pytest.approx(expected)


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.5), (0.0, 1.0)])
def test_weighted_scores_run_from_zero_to_one_in_each_list(weights: tuple[float, float]) -> None:
    a, b = weights
    assert weighted_fusion([NEAR, WORDS], weights) == pytest.approx({7: a, 3: 0.75 * a + b, 5: 0.0, 9: 0.0})


@pytest.mark.parametrize("rows", [[(4, 0.3)], [(4, 0.3), (6, 0.3)], [(4, -2.0), (6, -2.0), (8, -2.0)]])
def test_rows_of_equal_scores_are_all_the_best_of_their_list(rows: list[tuple[int, float]]) -> None:
    assert weighted_fusion([rows, []], (0.5, 1.0)) == {row: 0.5 for row, _ in rows}


def test_nothing_fuses_to_nothing() -> None:
    assert reciprocal_rank_fusion([[], []], (1.0, 1.0)) == weighted_fusion([[], []], (1.0, 1.0)) == {}
