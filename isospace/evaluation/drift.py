"""Whether two samples of vectors come from one distribution, dimension by dimension and as a whole.

    PSI    sum over ten bins of (q - p) ln(q / p)         bins of equal share of the reference; p, q shares of a bin
    KS     largest distance of two empirical distributions
    C2ST   a classifier is taught to tell the samples apart, and judged on what it has not seen

Sources: Yurdakul, "Statistical properties of population stability index", 2018; Lopez-Paz and Oquab, "Revisiting
classifier two-sample tests", 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import Float64

_BINS = 10
_FOLDS = 5
FEWEST, FEWEST_DOCUMENTS = 50, 20
# Below, the statistics of two samples of one distribution are as large as those of a shift: PSI is about 9 (1/n + 1/m).
FEWEST_SHIFTED = 200
_FEWEST_VARYING = 20


@dataclass(frozen=True, slots=True)
class Shifts:
    """How each of k dimensions has moved.

    Attributes
    ----------
    psi, ks
        (k,) population stability index, and Kolmogorov-Smirnov statistic.
    spread
        (k,) standard deviation now over that of the reference; 1 where neither varies.
    low, high, mean, deviation
        (k,) smallest, largest, mean and standard deviation now.
    """

    psi: Float64
    ks: Float64
    spread: Float64
    low: Float64
    high: Float64
    mean: Float64
    deviation: Float64


def measure_shifts(reference: npt.NDArray[np.float32], current: npt.NDArray[np.float32]) -> Shifts:
    """Compare (n, k) reference vectors with (m, k) current ones, dimension by dimension."""
    before, after = reference.astype(np.float64), current.astype(np.float64)
    width = before.shape[1]
    if not len(before) or not len(after):
        nothing = np.zeros(width)
        return Shifts(nothing, nothing, np.ones(width), nothing, nothing, nothing, nothing)
    old, new = before.std(axis=0), after.std(axis=0)
    # Dimensions that never varied hold rounding noise, which shifts as it likes.
    dead = old <= 1e-6 * max(float(old.max()), 1e-30)
    still_dead = dead & (new <= 1e-6 * max(float(new.max()), 1e-30))
    # A bit that hardly ever flips may not flip in another sample.
    varying = (np.abs(before - np.median(before, axis=0)) > 1e-6).sum(axis=0)
    rare = ~dead & (varying < min(_FEWEST_VARYING, len(before) / 2))
    psi, ks = np.zeros(width), np.zeros(width)
    for dimension in np.flatnonzero(~still_dead & ~rare):
        psi[dimension] = _psi(before[:, dimension], after[:, dimension])
        ks[dimension] = _ks(before[:, dimension], after[:, dimension])
    spread = np.where(still_dead | rare, 1.0, new / np.where(dead, 1e-30, old))
    return Shifts(psi, ks, spread, after.min(axis=0), after.max(axis=0), after.mean(axis=0), new)


def _psi(before: Float64, after: Float64) -> float:
    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    shares = []
    for values in (before, after):
        counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
        # Half a count where there is none: the logarithm of an empty bin is none.
        shares.append(np.maximum(counts, 0.5) / len(values))
    p, q = shares
    return float(((q - p) * np.log(q / p)).sum())


def _ks(before: Float64, after: Float64) -> float:
    merged = np.sort(np.concatenate([before, after]))
    one, other = (np.searchsorted(np.sort(values), merged, side="right") / len(values) for values in (before, after))
    return float(np.abs(one - other).max())


@dataclass(frozen=True, slots=True)
class Drift:
    """How well a classifier tells current vectors from the reference.

    Attributes
    ----------
    auc
        Area under the curve on held-out vectors: 0.5 for chance, 1 for certainty.
    p
        Of the rank sum test that it is chance.
    reference, current
        How many vectors.
    most
        Names of what drifted most, with the classifier's certainty, at most ten.
    """

    auc: float
    p: float
    reference: int
    current: int
    most: tuple[tuple[str, float], ...]


def classify(
    reference: npt.NDArray[np.float32],
    current: npt.NDArray[np.float32],
    names: Sequence[str],
    *,
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Drift | None:
    """Teach a classifier to tell two samples apart.

    Parameters
    ----------
    reference, current
        (n, k) and (m, k) vectors.
    names
        m names of the current ones; those of one name are never on both sides of a split, or their likeness would
        count.
    groups
        n names of the reference's; each its own if not given.
    seed
        Of the splits.

    Returns
    -------
    Drift or None
        None if either sample has fewer than fifty vectors, or is of fewer than twenty names.
    """
    own = groups or [f"r{n}" for n in range(len(reference))]
    few = min(len(set(own)), len(set(names))) < FEWEST_DOCUMENTS
    if min(len(reference), len(current)) < FEWEST or few:
        return None
    from scipy.stats import mannwhitneyu
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    vectors = np.concatenate([reference, current]).astype(np.float64)
    vectors = (vectors - vectors.mean(axis=0)) / np.maximum(vectors.std(axis=0), 1e-12)
    labels = np.repeat([0, 1], [len(reference), len(current)])
    parties = np.unique(
        np.array([*(f"r:{name}" for name in own), *(f"c:{name}" for name in names)]), return_inverse=True
    )[1]
    scores = np.zeros(len(labels))
    for taught, held in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(vectors, labels, parties):
        # A strong penalty: there may be more dimensions than vectors.
        model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=200)
        scores[held] = model.fit(vectors[taught], labels[taught]).decision_function(vectors[held])
    old, new = scores[labels == 0], scores[labels == 1]
    statistic, p = mannwhitneyu(new, old, alternative="greater")
    return Drift(
        auc=float(statistic) / (len(old) * len(new)),
        p=float(p),
        reference=len(old),
        current=len(new),
        most=_most(new, names),
    )


def _most(scores: Float64, names: Sequence[str], count: int = 10) -> tuple[tuple[str, float], ...]:
    sums: dict[str, list[float]] = {}
    for name, score in zip(names, 1.0 / (1.0 + np.exp(-scores)), strict=True):
        sums.setdefault(name, []).append(float(score))
    means = {name: float(np.mean(values)) for name, values in sums.items()}
    return tuple(sorted(means.items(), key=lambda item: (-item[1], item[0]))[:count])
