from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from isospace.evaluation.comparison import difference
from isospace.evaluation.significance import bootstrap_interval, randomization_p

NOT_FINITE = [[math.nan] * 50, [0.1] * 49 + [math.nan], [math.inf, *[0.1] * 49], [math.inf, -math.inf] * 25]


@pytest.mark.parametrize("values", NOT_FINITE)
@pytest.mark.parametrize("two_sided", [True, False])
def test_numbers_that_are_not_finite_prove_nothing(values: list[float], two_sided: bool) -> None:
    p = randomization_p(np.array(values), two_sided=two_sided, rounds=200)
    assert math.isnan(p)
    assert not p < 1.0
    assert all(math.isnan(end) for end in bootstrap_interval(np.array(values), rounds=200))


@pytest.mark.parametrize("values", NOT_FINITE[:3])
def test_a_difference_of_them_is_not_significant(values: list[float]) -> None:
    before = {str(n): 0.0 for n in range(50)}
    found = difference(before, {str(n): value for n, value in enumerate(values)})
    assert not found.p < 1.0


@pytest.mark.parametrize("rounds", [50, 999])
def test_the_smallest_p_is_that_of_the_observed_assignment_alone(rounds: int) -> None:
    assert randomization_p(np.full(40, 0.1), rounds=rounds) == pytest.approx(1 / (rounds + 1))
    assert randomization_p(np.full(40, -0.1), rounds=rounds) == 1.0


@pytest.mark.parametrize("count", [1, 10, 100])
def test_no_difference_at_all_is_no_evidence(count: int) -> None:
    assert randomization_p(np.zeros(count), rounds=200) == 1.0
    assert randomization_p(np.zeros(count), rounds=200, two_sided=True) == 1.0


@pytest.mark.parametrize("values", [[0.1] * 3, [0.1, 0.2, 0.3], [0.7, 0.1, -0.2, 0.4]])
def test_p_is_near_the_share_of_all_assignments_that_reach_the_observed_mean(values: list[float]) -> None:
    every = [
        sum(sign * value for sign, value in zip(signs, values, strict=True))
        for signs in product((1, -1), repeat=len(values))
    ]
    one = np.mean([total >= sum(values) - 1e-9 for total in every])
    two = np.mean([abs(total) >= abs(sum(values)) - 1e-9 for total in every])
    given = np.array(values)
    assert randomization_p(given, rounds=4000) == pytest.approx(one, abs=0.03)
    assert randomization_p(given, rounds=4000, two_sided=True) == pytest.approx(two, abs=0.03)
    assert randomization_p(-given, rounds=4000, two_sided=True) == pytest.approx(two, abs=0.03)
