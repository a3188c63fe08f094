"""Whether a difference of two systems, measured on the same queries, is more than chance.

Sources: Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
evaluation", 2007; Efron and Tibshirani, "An introduction to the bootstrap", 1993.
"""

from __future__ import annotations

import numpy as np

from isospace.transform.vectors import Float64

ROUNDS = 10_000
_BLOCK = 500


def randomization_p(differences: Float64, *, seed: int = 0, rounds: int = ROUNDS, two_sided: bool = False) -> float:
    """Return the p-value of a paired randomization test, one-sided unless told otherwise.

    Parameters
    ----------
    differences
        (n,) figures of one system minus those of the other, query by query.
    seed
        Of the sign flips.
    rounds
        How many; the smallest p-value is 1 / (rounds + 1).
    two_sided
        Whether a mean that is as far below zero counts too.

    Returns
    -------
    float
        How often the mean of randomly flipped differences is at least the mean that was seen.
    """
    chance, observed = np.random.default_rng(seed), float(differences.sum())
    observed = abs(observed) if two_sided else observed
    at_least = 0
    for start in range(0, rounds, _BLOCK):
        flips = chance.integers(0, 2, (min(_BLOCK, rounds - start), len(differences)), dtype=np.int8) * 2.0 - 1.0
        # A hair's breadth below: equal sums in another order are equal.
        sums = np.abs(flips @ differences) if two_sided else flips @ differences
        at_least += int((sums >= observed - 1e-12 * max(abs(observed), 1.0)).sum())
    return (at_least + 1) / (rounds + 1)


def bootstrap_interval(
    differences: Float64, *, seed: int = 0, rounds: int = ROUNDS, share: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of (n,) differences."""
    chance, count = np.random.default_rng(seed), len(differences)
    if not count:
        return 0.0, 0.0
    means = [
        differences[chance.integers(0, count, (min(_BLOCK, rounds - start), count))].mean(axis=1)
        for start in range(0, rounds, _BLOCK)
    ]
    tail = (1.0 - share) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1.0 - tail])
    return float(low), float(high)
