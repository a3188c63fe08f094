"""Count, mean, and scatter of vectors: streaming, mergeable, float64.

Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import Float64


@dataclass(frozen=True, slots=True)
class Moments:
    """First and second moments of n vectors of d dimensions.

    Attributes
    ----------
    count
        n.
    mean
        (d,) float64.
    scatter
        (d, d) float64, the sum of outer products of the centered vectors: n - 1 times the covariance.
    """

    count: int
    mean: Float64
    scatter: Float64

    @property
    def covariance(self) -> Float64:
        """(d, d) float64, unbiased (divided by n - 1); zeros for fewer than two vectors."""
        return self.scatter / max(self.count - 1, 1)


def empty_moments(dimension: int) -> Moments:
    """Return the moments of no vectors: the neutral element of `merge`."""
    return Moments(0, np.zeros(dimension), np.zeros((dimension, dimension)))


def moments_of(vectors: npt.NDArray[Any]) -> Moments:
    """Return the moments of (n, d) vectors of any float dtype, computed in float64."""
    block = np.asarray(vectors, dtype=np.float64)
    if not len(block):
        return empty_moments(block.shape[1])
    mean = block.mean(axis=0)
    centered = block - mean
    return Moments(len(block), mean, centered.T @ centered)


def merge(left: Moments, right: Moments) -> Moments:
    """Return the moments of the union of two disjoint sets of vectors."""
    count = left.count + right.count
    if not count:
        return left
    shift = right.mean - left.mean
    mean = left.mean + shift * (right.count / count)
    scatter = left.scatter + right.scatter + np.outer(shift, shift) * (left.count * right.count / count)
    return Moments(count, mean, scatter)


def stream_moments(vectors: npt.NDArray[Any], *, block_rows: int = 2048) -> Moments:
    """Return the moments of (n, d) vectors, with `block_rows` of them in float64 at a time.

    The sums are centered on the mean of the first block, which avoids cancellation if the mean is large compared with
    the spread.
    """
    count, dimension = vectors.shape
    if not count:
        return empty_moments(dimension)
    center = np.asarray(vectors[:block_rows], np.float64).mean(axis=0)
    # A last column of ones makes the sums part of the product. All blocks share one buffer, because allocating memory
    # for each would take half as long as the products.
    products, buffer = np.zeros((dimension + 1, dimension + 1)), np.ones((min(block_rows, count), dimension + 1))
    for start in range(0, count, block_rows):
        block = vectors[start : start + block_rows]
        centered = buffer[: len(block)]
        centered[:, :dimension] = block
        centered[:, :dimension] -= center
        products += centered.T @ centered
    sums = products[-1, :dimension]
    scatter = products[:dimension, :dimension] - np.outer(sums, sums) / count
    return Moments(count, center + sums / count, scatter)


def fourth_moment(vectors: npt.NDArray[Any], mean: Float64, *, block_rows: int = 8192) -> float:
    """Return the sum of |x - mean|^4 over (n, d) vectors, cut to the dimension of the mean."""
    total = 0.0
    for start in range(0, len(vectors), block_rows):
        block = np.asarray(vectors[start : start + block_rows, : len(mean)], dtype=np.float64) - mean
        total += float((((block * block).sum(axis=1)) ** 2).sum())
    return total
