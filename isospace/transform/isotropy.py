"""Measure how evenly vectors fill their space.

The score, which is built on the mean cosine, is a common rule of thumb. Vectors that lie in a few dimensions can still
get a high score, so there is also a measure based on eigenvalues:

    score      (1 - |mean cos| + min(var cos / (1/d), 1)) / 2           over pairs of different vectors
    evenness   participation ratio / d = (sum L)**2 / (d * sum L**2)    L: eigenvalues of the second moments

The participation ratio is the effective number of dimensions: vectors that lie in r of d dimensions have an evenness of
at most r / d. (Gao et al., "A theory of multineuronal dimensionality", 2017.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import unit


@dataclass(frozen=True, slots=True)
class Isotropy:
    """Isotropy of (n, d) vectors.

    Attributes
    ----------
    mean_cosine, cosine_variance
        Over all pairs of different vectors.
    score, evenness
        From 0 to 1, as defined at the top of this module.
    top_64, top_128
        Share of the variance in the first 64 and 128 principal components.
    """

    n: int
    d: int
    mean_cosine: float
    cosine_variance: float
    score: float
    evenness: float
    top_64: float
    top_128: float

    def as_dict(self) -> dict[str, float]:
        """Return the fields by name."""
        return asdict(self)


def measure_isotropy(vectors: npt.NDArray[Any]) -> Isotropy:
    """Measure (n, d) vectors, n up to a few thousand; zero vectors count as orthogonal to all others.

    Every figure is NaN if a vector holds NaN or infinity.
    """
    block = np.asarray(vectors, dtype=np.float64)
    n, d = block.shape
    if not np.isfinite(block).all():
        return Isotropy(n, d, *[float("nan")] * 6)
    directions = unit(block)
    pairs = pair_cosines(block)
    mean, variance = (float(pairs.mean()), float(pairs.var())) if n > 1 else (0.0, 0.0)
    score = (1.0 - abs(mean) + min(variance * d, 1.0)) / 2.0
    moments = np.maximum(np.linalg.eigvalsh(directions.T @ directions / max(n, 1)), 0.0)
    evenness = float(moments.sum() ** 2 / (d * (moments**2).sum())) if moments.any() else 0.0
    covariance = np.cov(directions.T, ddof=0).reshape(d, d) if n > 1 else np.zeros((d, d))
    spectrum = np.maximum(np.linalg.eigvalsh(covariance), 0.0)[::-1]
    shares = np.cumsum(spectrum) / spectrum.sum() if spectrum.any() else np.ones(d)
    return Isotropy(n, d, mean, variance, score, evenness, float(shares[:64][-1]), float(shares[:128][-1]))


def pair_cosines(vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the cosines of all pairs of different vectors of (n, d), each pair twice; n of a few thousand."""
    directions = unit(np.asarray(vectors, dtype=np.float64))
    gram = directions @ directions.T
    found: npt.NDArray[np.float64] = gram[~np.eye(len(directions), dtype=bool)]
    return found
