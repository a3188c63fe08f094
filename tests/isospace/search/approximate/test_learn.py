"""Which rule is declared for which recall."""

from __future__ import annotations

from isospace.search.approximate.learn import declared_rules
from isospace.search.approximate.record import MeasuredRecall
from isospace.search.approximate.visits import VisitRule


def rules(*pairs: tuple[float, float], neighbors: int = 10) -> tuple[list[VisitRule], list[MeasuredRecall]]:
    """Return rules learned for a recall, each with what it reached; the number of cells tells them apart."""
    learned = [
        VisitRule(
            neighbors=neighbors,
            recall=target,
            cells=number + 1,
            most=number + 1,
            gap=0.0,
            rows=1.0,
            candidates=10,
            reach=0.0,
            error=0.0,
        )
        for number, (target, _) in enumerate(pairs)
    ]
    measured = [
        MeasuredRecall(neighbors=neighbors, declared=target, recall=reached, low=0, high=1, cells=1, rows=1)
        for target, reached in pairs
    ]
    return learned, measured


def declared(*pairs: tuple[float, float]) -> list[tuple[float, int, float]]:
    kept = declared_rules(*rules(*pairs))
    assert all(rule.recall == one.declared and rule.neighbors == one.neighbors for rule, one in kept)
    return [(rule.recall, rule.cells, one.recall) for rule, one in kept]


def test_each_recall_gets_the_rule_that_was_learned_for_it() -> None:
    assert declared((0.95, 0.951), (0.98, 0.98), (0.99, 0.995)) == [
        (0.8, 1, 0.951),
        (0.9, 1, 0.951),
        (0.95, 1, 0.951),
        (0.98, 2, 0.98),
        (0.99, 3, 0.995),
    ]


def test_where_a_rule_fails_the_next_one_that_reaches_the_recall_takes_its_place() -> None:
    found = declared((0.98, 0.981), (0.99, 0.9899), (0.995, 0.9949), (0.999, 0.9989), (0.9995, 0.9992))
    assert found[-3:] == [(0.99, 3, 0.9949), (0.995, 4, 0.9989), (0.999, 5, 0.9992)]


def test_a_rule_is_not_declared_for_more_than_it_was_learned_for() -> None:
    # It may have reached more by chance.
    assert [recall for recall, _, _ in declared((0.8, 1.0), (0.9, 0.89))] == [0.8]


def test_what_no_rule_reached_is_not_declared() -> None:
    assert declared((0.8, 0.79), (0.9, 0.7)) == []


def test_numbers_of_neighbors_are_apart() -> None:
    one, ten = rules((0.8, 0.7), neighbors=1), rules((0.9, 0.95))
    kept = declared_rules(one[0] + ten[0], one[1] + ten[1])
    assert [(rule.neighbors, rule.recall) for rule, _ in kept] == [(10, 0.8), (10, 0.9)]
