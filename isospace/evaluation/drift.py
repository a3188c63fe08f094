"""Test whether two samples of vectors come from one distribution, by dimension and as a whole.

    PSI    sum over ten bins of (q - p) ln(q / p)         bins of equal share of the reference; p, q shares of a bin
    KS     largest distance of two empirical distribution functions
    C2ST   a classifier is trained to tell the samples apart, and evaluated on held-out vectors

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
# With fewer, samples of one distribution already differ as much as a shift: their PSI is about 9 (1/n + 1/m).
FEWEST_SHIFTED = 200
_FEWEST_VARYING = 20


@dataclass(frozen=True, slots=True)
class Shifts:
    """How each of k dimensions has shifted.

    Attributes
    ----------
    psi, ks
        (k,) population stability index, and Kolmogorov-Smirnov statistic.
    spread
        (k,) current standard deviation over that of the reference; 1 if neither varies.
    low, high, mean, deviation
        (k,) current minimum, maximum, mean, and standard deviation.
    """

    psi: Float64
    ks: Float64
    spread: Float64
    low: Float64
    high: Float64
    mean: Float64
    deviation: Float64


def measure_shifts(reference: npt.NDArray[np.float32], current: npt.NDArray[np.float32]) -> Shifts:
    """Compare (n, k) reference vectors with (m, k) current ones in each dimension."""
    before, after = reference.astype(np.float64), current.astype(np.float64)
    width = before.shape[1]
    if not len(before) or not len(after):
        nothing = np.zeros(width)
        return Shifts(nothing, nothing, np.ones(width), nothing, nothing, nothing, nothing)
    old, new = before.std(axis=0), after.std(axis=0)
    # Dimensions that never varied hold rounding noise, whose shifts mean nothing.
    dead = old <= 1e-6 * max(float(old.max()), 1e-30)
    still_dead = dead & (new <= 1e-6 * max(float(new.max()), 1e-30))
    # A bit that rarely flips may not flip at all in another sample.
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
        # An empty bin counts half, since the logarithm of zero is undefined.
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
        Area under the ROC curve on held-out vectors: 0.5 is chance, 1 perfect separation.
    p
        P-value of a rank-sum test against chance.
    reference, current
        Numbers of vectors.
    most
        At most ten names that drifted most, with the classifier's probability.
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
    """Train a classifier to tell two samples apart.

    Parameters
    ----------
    reference, current
        (n, k) and (m, k) vectors.
    names
        m names of the current vectors, such as their documents. Vectors with the same name are never on both sides of a
        split, since they resemble each other.
    groups
        n names of the reference vectors; by default, each has its own.
    seed
        Seed of the splits.

    Returns
    -------
    Drift or None
        None if either sample has fewer than 50 vectors, or fewer than 20 names.
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
    for train, test in StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(vectors, labels, parties):
        # Strong regularization: there may be more dimensions than vectors.
        model = LogisticRegression(C=0.01, class_weight="balanced", max_iter=200)
        scores[test] = model.fit(vectors[train], labels[train]).decision_function(vectors[test])
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
