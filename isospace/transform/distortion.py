"""Measure the error that a quantizer adds to vectors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.quantizers import Quantizer
from isospace.transform.vectors import Float32, row_cosines


@dataclass(frozen=True, slots=True)
class Distortion:
    """Errors of decoded vectors.

    Attributes
    ----------
    mse
        Mean squared error per component.
    mse_by_dimension
        The same for each of the k dimensions.
    mse_by_cluster
        The same for each cluster of the vectors: a quantizer can work well for most of a corpus and badly for one part.
    cosine_error
        Mean of 1 - cos(vector, decoded vector), which ignores scale.
    """

    mse: float
    mse_by_dimension: tuple[float, ...]
    mse_by_cluster: tuple[float, ...]
    cosine_error: float
    largest_cosine_error: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)

    def summary(self) -> dict[str, float]:
        """Return the figures for reports: the worst dimension and cluster instead of all of them."""
        return {
            "mse": self.mse,
            "mse_worst_dimension": max(self.mse_by_dimension),
            "mse_worst_cluster": max(self.mse_by_cluster),
            "cosine_error": self.cosine_error,
            "largest_cosine_error": self.largest_cosine_error,
        }


def measure_distortion(
    quantizer: Quantizer, vectors: Float32, *, clusters: npt.NDArray[np.int64] | None = None
) -> Distortion:
    """Encode and decode (n, k) float32 vectors, n >= 1, and compare.

    `clusters` holds the cluster of each vector, (n,), as `cluster` returns them; None puts all into one cluster.
    """
    exact = vectors.astype(np.float64)
    decoded = quantizer.decode(quantizer.encode(vectors)).astype(np.float64)
    squares = (decoded - exact) ** 2
    places = np.zeros(len(vectors), np.int64) if clusters is None else clusters
    errors = 1.0 - row_cosines(decoded, exact)
    by_vector = squares.mean(axis=1)
    return Distortion(
        mse=float(squares.mean()),
        mse_by_dimension=tuple(squares.mean(axis=0).tolist()),
        mse_by_cluster=tuple((np.bincount(places, by_vector) / np.maximum(np.bincount(places), 1)).tolist()),
        cosine_error=float(errors.mean()),
        largest_cosine_error=float(errors.max()),
    )


def cluster(vectors: Float32, count: int = 16, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return the cluster of each of (n, k) vectors, by k-means."""
    from sklearn.cluster import KMeans

    # k-means cannot find more clusters than there are distinct points.
    distinct = len(np.unique(vectors, axis=0))
    model = KMeans(n_clusters=min(count, distinct), n_init=1, max_iter=30, random_state=seed)
    places: npt.NDArray[np.int64] = model.fit_predict(vectors).astype(np.int64)
    return places
