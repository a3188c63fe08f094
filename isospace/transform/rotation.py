"""Rotations on integer grids: the same bits in any batch, in both directions.

The matrix is P = N / 2**b with one exponent b for all entries. The products of N with a vector on a grid of 24 bits sum
to integers below 2**53, which float64 adds exactly in any order (see `isospace.transform.affine`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError, IntegrityError
from isospace.transform.vectors import Float64

GRID_BITS = 24
_EXACT_BITS = 53
# The grid is no finer than for unit vectors. Shorter than this, a vector has fewer than eight of its bits.
_SHORTEST = 2.0**-15


@dataclass(frozen=True, slots=True)
class Rotation:
    """An orthogonal matrix on a grid.

    Attributes
    ----------
    matrix
        (k, k) int32, P * 2**bits rounded; P is orthogonal except for this rounding.
    bits
        b.
    """

    matrix: npt.NDArray[np.int32]
    bits: int

    def __post_init__(self) -> None:
        rows, columns = self.matrix.shape
        sums = np.abs(self.matrix.astype(np.float64))
        largest = max(float(sums.sum(axis=0).max(initial=0.0)), float(sums.sum(axis=1).max(initial=0.0)))
        if rows != columns or largest * 2**GRID_BITS >= 2**_EXACT_BITS:
            raise IntegrityError(
                f"rotation: shape {self.matrix.shape}, largest row sum {largest:g}; expected a square matrix with sums "
                f"below 2**{_EXACT_BITS - GRID_BITS}. The space is damaged: restore it, or refit it."
            )


def round_rotation(matrix: Float64) -> Rotation:
    """Round a (k, k) orthogonal matrix to the finest grid on which sums stay exact."""
    sums = max(np.abs(matrix).sum(axis=0).max(), np.abs(matrix).sum(axis=1).max())
    bits = _EXACT_BITS - GRID_BITS - 1 - math.ceil(math.log2(sums))
    return Rotation(np.rint(np.ldexp(matrix, bits)).astype(np.int32), bits)


def random_rotation(dimension: int, seed: int) -> Rotation:
    """Draw a uniformly distributed rotation: the Q of a Gaussian matrix, with signs set by R.

    Source: Mezzadri, "How to generate random matrices from the classical compact groups", 2007.
    """
    gaussian = np.random.default_rng(seed).standard_normal((dimension, dimension))
    q, r = np.linalg.qr(gaussian)
    return round_rotation(q * np.sign(np.diagonal(r)))


def to_grid(vectors: npt.NDArray[Any], exponent: int) -> Float64:
    """Return rint(v * 2**exponent) as float64, clipped to the grid's 24 bits."""
    limit = 2.0**GRID_BITS
    grid: Float64 = np.clip(np.rint(vectors.astype(np.float64) * 2.0**exponent), -limit, limit)
    return grid


def count_beyond_grid(vectors: npt.NDArray[Any], exponent: int) -> int:
    """Count the components that `to_grid` clips."""
    return int((np.abs(vectors.astype(np.float64)) * 2.0**exponent > 2.0**GRID_BITS).sum())


def rotate(rotation: Rotation, grid: Float64) -> Float64:
    """Return P x for (n, k) vectors on a grid of at most 24 bits, exactly and in units of that grid."""
    exact = grid @ rotation.matrix.T.astype(np.float64)
    result: Float64 = np.ldexp(exact, -rotation.bits)
    return result


def rotate_back(rotation: Rotation, grid: Float64) -> Float64:
    """Return P^T y for (n, k) vectors on a grid of at most 24 bits, exactly and in units of that grid."""
    result: Float64 = np.ldexp(grid @ rotation.matrix.astype(np.float64), -rotation.bits)
    return result


def grid_exponent(sample: npt.NDArray[Any]) -> int:
    """Return the exponent of a 24-bit grid that holds twice the longest vector of the sample.

    Raises
    ------
    FitError
        If all vectors are so short that they would become zero.
    """
    longest = float(np.linalg.norm(sample.astype(np.float64), axis=1).max(initial=0.0))
    if 0.0 < longest < _SHORTEST:
        raise FitError(
            f"the longest transformed vector of the sample has length {longest:.3g}; a quantizer with a rotation or "
            f"codebooks needs {_SHORTEST:.3g} or more. Use recipe.transform.normalization=l2, or int8."
        )
    return GRID_BITS - 1 - math.ceil(math.log2(max(longest, 1.0)) - 1e-3)
