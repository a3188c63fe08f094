"""How evenly vectors fill their space.

The mean cosine and the score built on it come from the practitioners' rule of thumb; a cloud in a few
dimensions passes that score, so an eigenvalue-based one stands beside it:

    score      (1 - |mean cos| + min(var cos / (1/d), 1)) / 2           over pairs of different vectors
    evenness   participation ratio / d = (sum L)**2 / (d * sum L**2)    L: eigenvalues of the second moments

The participation ratio counts the dimensions that carry weight: a cloud in r of d dimensions has an
evenness of at most r / d. (Gao et al., "A theory of multineuronal dimensionality", 2017.)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import unit


@dataclass(frozen=True, slots=True)
class Isotropy:
    """Figures of a sample of vectors.

    Attributes
    ----------
    n, d
        Size of the sample.
    mean_cosine, cosine_variance
        Over all pairs of different vectors.
    score, evenness
        As in the module's formulae, between 0 and 1.
    top_64, top_128
        Share of the variance in the first principal components.
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
        """Return the figures by name."""
        return asdict(self)


def measure_isotropy(vectors: npt.NDArray[Any]) -> Isotropy:
    """Measure (n, d) vectors, n of a few thousand; zero vectors count as orthogonal to all."""
    block = np.asarray(vectors, dtype=np.float64)
    n, d = block.shape
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
