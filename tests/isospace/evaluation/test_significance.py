from __future__ import annotations

import math

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
