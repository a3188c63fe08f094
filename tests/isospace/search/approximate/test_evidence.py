"""The evidence against a declared recall: it rises only if the recall is lower, however long one watches."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isospace.search.approximate.evidence import ALARM, RecallEvidence


def watched(declared: float, recalls: np.ndarray) -> tuple[RecallEvidence, float]:
    """Return the evidence at the end, and the largest on the way."""
    evidence, largest = RecallEvidence(declared), 0.0
    for recall in recalls:
        evidence.add(float(recall))
        largest = max(largest, evidence.wealth)
    return evidence, largest


def drawn(chance: np.random.Generator, mean: float, count: int) -> np.ndarray:
    return chance.binomial(10, mean, count) / 10


@pytest.mark.parametrize("declared", [0.8, 0.95, 0.99])
def test_a_recall_that_holds_raises_no_alarm_more_often_than_promised(declared: float) -> None:
    chance = np.random.default_rng(1)
    alarms = sum(watched(declared, drawn(chance, declared, 1_500))[1] >= ALARM for _ in range(120))
    assert alarms <= 6


@pytest.mark.parametrize(("declared", "actual", "within"), [(0.99, 0.96, 600), (0.95, 0.85, 200), (0.9, 0.0, 12)])
def test_a_recall_that_is_lower_is_noticed(declared: float, actual: float, within: int) -> None:
    chance = np.random.default_rng(2)
    noticed = [watched(declared, drawn(chance, actual, within))[1] >= ALARM for _ in range(20)]
    assert sum(noticed) >= 19


def test_it_counts_and_starts_at_one() -> None:
    evidence = RecallEvidence(0.9)
    assert (evidence.count, evidence.wealth) == (0, 1.0)
    assert math.isnan(evidence.mean)
    evidence.add(1.0)
    assert evidence.wealth < 1.0
    evidence.add(0.5)
    assert (evidence.count, evidence.mean) == (2, 0.75)


def test_it_neither_overflows_nor_sinks_below_zero() -> None:
    low, _ = watched(0.99, np.zeros(5_000))
    assert math.isfinite(low.wealth)
    high, _ = watched(0.99, np.ones(5_000))
    assert 0.0 <= high.wealth < 1.0
