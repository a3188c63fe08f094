"""Which cells are visited: enough for the recall that was declared, and no more."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.search.approximate.visits import (
    VisitRule,
    cells_within_reach,
    learn_reach,
    learn_rule,
    rule_for,
    visited_cells,
)


def rule(neighbors: int = 10, recall: float = 0.9, cells: int = 1, gap: float = 0.0, most: int = 99) -> VisitRule:
    return VisitRule(
        neighbors=neighbors,
        recall=recall,
        cells=cells,
        most=most,
        gap=gap,
        rows=1.0,
        candidates=1,
        reach=0.2,
        error=0.1,
    )


PRODUCTS = np.array([0.1, 0.9, 0.5, 0.5, 0.8, -0.3], np.float32)
ONES = np.ones(6, np.int64)


@pytest.mark.parametrize(
    ("cells", "gap", "expected"),
    [
        (1, 0.0, [1]),
        (2, 0.0, [1, 4]),
        # Cells 2 and 3 tie: the lower one comes first.
        (3, 0.0, [1, 4, 2]),
        (1, 0.15, [1, 4]),
        (1, 0.45, [1, 4, 2, 3]),
        (3, 0.15, [1, 4, 2]),
        (99, 0.0, [1, 4, 2, 3, 0, 5]),
    ],
)
def test_cells_come_by_their_product_up_to_a_number_or_a_gap(cells: int, gap: float, expected: list[int]) -> None:
    assert visited_cells(rule(cells=cells, gap=gap), PRODUCTS, ONES, wanted=0.0).tolist() == expected


def test_no_query_visits_more_than_the_most() -> None:
    assert visited_cells(rule(gap=0.45, most=3), PRODUCTS, ONES, wanted=0.0).tolist() == [1, 4, 2]
    assert visited_cells(rule(gap=0.45, most=1), PRODUCTS, ONES, wanted=0.0).tolist() == [1]


def test_cells_are_added_until_enough_rows_are_in_them() -> None:
    passing = np.array([7, 0, 2, 1, 1, 5], np.int64)

    def chosen(wanted: float, cells: int = 1) -> list[int]:
        return visited_cells(rule(cells=cells), PRODUCTS, passing, wanted=wanted).tolist()

    # Cell 1 is the nearest, and has no such row.
    assert chosen(0.0) == [1]
    assert chosen(1.0) == [1, 4]
    assert chosen(1.5) == [1, 4, 2]
    assert chosen(3.0) == [1, 4, 2]
    assert chosen(4.5) == [1, 4, 2, 3, 0]
    assert chosen(1e9) == [1, 4, 2, 3, 0, 5]
    assert chosen(0.0, cells=4) == [1, 4, 2, 3]
    assert chosen(4.5, cells=6) == [1, 4, 2, 3, 0, 5]


def test_cells_within_reach_of_the_last_hit_are_visited_too() -> None:
    passing = np.array([7, 0, 2, 1, 1, 5], np.int64)

    def chosen(lowest: float) -> list[int]:
        return cells_within_reach(rule(), PRODUCTS, passing, lowest, np.array([4])).tolist()

    assert chosen(0.9) == []
    assert chosen(0.7) == [2, 3]
    assert chosen(0.3) == [0, 2, 3]
    assert chosen(-np.inf) == [0, 2, 3, 5]


def test_the_reach_covers_enough_neighbors() -> None:
    chance = np.random.default_rng(3)
    products = chance.random((90, 20)).astype(np.float32)
    homes = chance.integers(0, 20, (90, 10))
    scores = np.take_along_axis(products, homes, axis=1) + chance.random((90, 10))
    reach = learn_reach(products, homes, scores, recall=0.9)
    beyond = scores - np.take_along_axis(products, homes, axis=1) > reach
    assert 0.0 < beyond.mean() <= 0.1
    assert learn_reach(products, homes, scores, recall=0.5) < reach


def test_the_rule_is_one_for_at_least_what_is_asked() -> None:
    rules = [rule(n, r) for n in (1, 10, 100) for r in (0.9, 0.99)]
    assert rule_for(rules, 0.9, 10) == rules[2]
    assert rule_for(rules, 0.91, 2) == rules[3]
    assert rule_for(rules, 0.99, 11) == rules[5]
    assert rule_for(rules, 0.995, 1) is None
    assert rule_for(rules, 0.9, 101) is None


def reached(products: np.ndarray, homes: np.ndarray, made: tuple[int, int, float, float], sizes: np.ndarray) -> float:
    cells, most, gap, rows = made
    chosen = [visited_cells(rule(cells=cells, gap=gap, most=most), line, sizes, wanted=0.0) for line in products]
    assert rows == pytest.approx(np.mean([sizes[one].sum() for one in chosen]))
    shares = np.array([np.isin(own, one).mean() for own, one in zip(homes, chosen, strict=True)])
    # Learned from a sample, a rule has a standard error to spare.
    return float(shares.mean() - shares.std(ddof=1) / np.sqrt(len(shares)))


@pytest.mark.parametrize("recall", [0.5, 0.8, 0.95, 0.999])
@pytest.mark.parametrize("seed", range(5))
def test_a_learned_rule_reaches_its_recall_on_what_it_was_learned_from(recall: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    products = chance.random((80, 40)).astype(np.float32)
    # Neighbors are in near cells, mostly.
    order = np.argsort(-products, axis=1)
    places = np.minimum(chance.geometric(0.2, (80, 10)) - 1, 39)
    homes = np.take_along_axis(order, places, axis=1)
    sizes = chance.integers(1, 50, 40)
    made = learn_rule(products, homes, sizes, recall=recall)
    assert reached(products, homes, made, sizes) >= recall
    # One cell fewer for every query is not enough, unless a gap was better.
    if made[2] == 0.0 and made[0] > 1:
        fewer = [visited_cells(rule(cells=made[0] - 1), line, sizes, wanted=0.0) for line in products]
        found = np.array([np.isin(own, one).mean() for own, one in zip(homes, fewer, strict=True)])
        assert found.mean() - found.std(ddof=1) / np.sqrt(80) < recall


def test_a_gap_is_chosen_where_queries_differ_in_how_many_cells_they_need() -> None:
    chance = np.random.default_rng(0)
    easy = np.zeros((50, 30), np.float32)
    easy[:, 0] = 1.0
    hard = 0.9 + 0.01 * chance.random((50, 30), dtype=np.float32)
    homes = np.concatenate([np.zeros((50, 5), np.int64), chance.integers(0, 30, (50, 5))])
    cells, most, gap, rows = learn_rule(np.concatenate([easy, hard]), homes, np.full(30, 10), recall=0.99)
    assert (cells, gap > 0.0) == (1, True)
    assert most >= 30
    assert rows < 200


def test_equal_products_count_as_nearer_so_that_ties_do_not_flatter() -> None:
    products = np.zeros((60, 4), np.float32)
    homes = np.zeros((60, 3), np.int64)
    # All cells tie: which of them is visited first is chance, so that all have to be.
    assert learn_rule(products, homes, np.full(4, 5), recall=0.9)[3] == 20.0
