"""Which variant is best, and which is worse beyond chance."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from isospace.operations.compare_models.compare import Entry
from isospace.operations.compare_models.ranking import FailedVariant, ModelComparison, mark_front, rank


def entry(name: str, values: list[float] | float, *, size: int = 100, hours: float | None = 1.0) -> Entry:
    by_query = {f"q{n}": value for n, value in enumerate([values] if isinstance(values, float) else values)}
    mean = float(np.mean(list(by_query.values())))
    return Entry(name, "t", "c", "s", 8, size, mean, 0.0, 0.0, 0.0, 0.0, 1.0, hours, None, by_query=by_query)


def test_the_front_holds_what_nothing_beats() -> None:
    given = [
        entry("good", 0.9), entry("small", 0.5, size=10), entry("beaten", 0.8), entry("slow", 0.9, hours=2.0),
    ]  # fmt: skip
    marked = {one.encoder: one.on_front for one in mark_front(given)}
    assert marked == {"good": True, "small": True, "beaten": False, "slow": False}
    equal = mark_front([entry("a", 0.9), entry("b", 0.9)])
    assert [one.on_front for one in equal] == [True, True]


def noisy(mean: float, seed: int) -> list[float]:
    return np.clip(np.random.default_rng(seed).normal(mean, 0.2, 200), 0.0, 1.0).tolist()


def test_differences_are_those_of_the_same_queries() -> None:
    best = noisy(0.6, 0)
    # Far less than the spread of the queries, but the same for each of them.
    steady = [value - 0.01 for value in best]
    chance = [
        value + shift for value, shift in zip(best, np.random.default_rng(1).normal(-0.001, 0.1, 200), strict=True)
    ]
    first, *others = rank([entry("steady", steady), entry("chance", chance), entry("best", best)])
    assert (first.encoder, first.verdict, first.difference, first.interval) == ("best", "best", None, None)
    found = {one.encoder: one for one in others}
    assert found["steady"].verdict == "worse"
    assert found["steady"].difference == pytest.approx(-0.01)
    assert found["steady"].interval == pytest.approx((-0.01, -0.01))
    assert found["steady"].p < 0.01  # type: ignore[operator]
    assert found["chance"].verdict == "no difference"
    assert found["chance"].interval[0] < 0.0 < found["chance"].interval[1]  # type: ignore[index]


def test_equal_variants_are_no_difference() -> None:
    _, second = rank([entry("a", [0.5, 1.0], size=10), entry("b", [0.5, 1.0])])
    assert (second.verdict, second.difference, second.p) == ("no difference", 0.0, 1.0)


def test_the_outcome_names_what_cannot_be_told_apart_and_the_smallest_of_it() -> None:
    best = entry("a", noisy(0.6, 0))
    ranked = rank(
        [best, replace(best, encoder="b", bytes=10), entry("c", [value - 0.1 for value in best.by_query.values()])]
    )
    # Of equals, the smallest comes first.
    assert [one.encoder for one in ranked] == ["b", "a", "c"]
    said = ModelComparison(ranked, (FailedVariant("d", "t", "no such model"),)).describe()
    assert said.startswith("b with t has the highest nDCG@10 (0.6")
    assert "but there is no difference beyond chance from a with t. The other variant is worse." in said
    assert said.endswith("1 of 4 variants failed.")
    swapped = ModelComparison(
        (replace(ranked[1], verdict="best"), replace(ranked[0], verdict="no difference"), ranked[2])
    )
    assert "Of these, b with t is the smallest (10 bytes per vector). The other variant is worse." in swapped.describe()
    assert "and the other variant is worse beyond chance" in ModelComparison((ranked[0], ranked[2])).describe()
    assert "is the only variant that was measured" in ModelComparison(ranked[:1]).describe()


def test_the_figures_of_single_queries_are_not_printed() -> None:
    body = ModelComparison(rank([entry("a", [1.0]), entry("b", [0.5])])).as_dict()
    assert "by_query" not in json.dumps(body)
    assert [one["verdict"] for one in body["entries"]] == ["best", "worse"]
