"""Test whether a difference of two systems, measured on the same queries, is more than chance.

Sources: Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
evaluation", 2007; Efron and Tibshirani, "An introduction to the bootstrap", 1993.
"""

from __future__ import annotations

import numpy as np

from isospace.transform.vectors import Float64

ROUNDS = 10_000
_BLOCK = 500


def randomization_p(differences: Float64, *, seed: int = 0, rounds: int = ROUNDS, two_sided: bool = False) -> float:
    """Return the p-value of a paired randomization test, one-sided by default.

    Parameters
    ----------
    differences
        (n,) values of one system minus those of the other, for each query.
    seed
        Seed of the sign flips.
    rounds
        Number of random flips; the smallest p-value is 1 / (rounds + 1).
    two_sided
        Whether means that are as far below zero count too.

    Returns
    -------
    float
        Share of random sign flips whose mean is at least the observed mean; NaN if a difference is not finite.
    """
    if not np.isfinite(differences).all():
        # Every comparison with NaN is false: it would count as a mean that no flip reaches.
        return float("nan")
    generator, observed = np.random.default_rng(seed), float(differences.sum())
    observed = abs(observed) if two_sided else observed
    at_least = 0
    for start in range(0, rounds, _BLOCK):
        flips = generator.integers(0, 2, (min(_BLOCK, rounds - start), len(differences)), dtype=np.int8) * 2.0 - 1.0
        # With a tolerance, since sums of the same numbers in another order may differ by rounding.
        sums = np.abs(flips @ differences) if two_sided else flips @ differences
        at_least += int((sums >= observed - 1e-12 * max(abs(observed), 1.0)).sum())
    return (at_least + 1) / (rounds + 1)


def bootstrap_interval(
    differences: Float64, *, seed: int = 0, rounds: int = ROUNDS, share: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of (n,) differences; NaN if one is not finite."""
    if not np.isfinite(differences).all():
        return float("nan"), float("nan")
    generator, count = np.random.default_rng(seed), len(differences)
    if not count:
        return 0.0, 0.0
    means = [
        differences[generator.integers(0, count, (min(_BLOCK, rounds - start), count))].mean(axis=1)
        for start in range(0, rounds, _BLOCK)
    ]
    tail = (1.0 - share) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)
