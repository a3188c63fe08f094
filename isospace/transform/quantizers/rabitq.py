"""RaBitQ: one bit per dimension, and one factor per vector that makes scores unbiased.

With c the mean of the sample, P a random rotation, and o = P (v - c), a code holds the signs s of o and
f = sum(o**2) / sum(|o|), and v ~ c + f P^T s. The score of a query is q.c + f (P q).s, which is the estimator
<o_bar, q> / <o_bar, o> of the paper with its factors combined into one.

Source: Gao and Long, "RaBitQ: Quantizing high-dimensional vectors with a theoretical error bound for approximate
nearest neighbor search", SIGMOD 2024; here with one centroid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.affine import sum_of_squares
from isospace.transform.quantizers.arrays import require_array
from isospace.transform.quantizers.binary import load_rotation, rotation_arrays, sign_products, signs
from isospace.transform.representations import RabitqSpec
from isospace.transform.rotation import (
    GRID_BITS,
    Rotation,
    count_beyond_grid,
    grid_exponent,
    random_rotation,
    rotate,
    rotate_back,
    to_grid,
)
from isospace.transform.vectors import Float32

_LIMIT = 2.0**GRID_BITS


@dataclass(frozen=True, slots=True)
class RabitqQuantizer:
    """One sign per dimension and one factor per vector.

    Attributes
    ----------
    centre
        (k,) float32, c.
    rotation
        P.
    exponent
        Of the grid that vectors are rounded to.
    """

    centre: Float32
    rotation: Rotation
    exponent: int

    @property
    def dimension(self) -> int:
        """Dimension k of the vectors."""
        return len(self.centre)

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, ceil(k / 8) + 4) uint8: the float32 factor, then the bits."""
        grid = to_grid(vectors, self.exponent) - to_grid(self.centre, self.exponent)
        # Round to integers of 26 bits again, so that the sums below are exact in any order.
        rotated = np.clip(np.rint(rotate(self.rotation, np.clip(grid, -_LIMIT, _LIMIT))), -4 * _LIMIT, 4 * _LIMIT)
        lengths = np.abs(rotated).sum(axis=1)
        factor = sum_of_squares(rotated) / np.where(lengths == 0, 1.0, lengths)
        stored = np.ldexp(factor, -self.exponent).astype("<f4")[:, None]
        return np.concatenate([stored.view(np.uint8), np.packbits(rotated > 0, axis=1)], axis=1)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32."""
        factor, bits = self._parts(codes)
        back = rotate_back(self.rotation, signs(bits, self.dimension))
        values: Float32 = (back * factor.astype(np.float64) + self.centre).astype(np.float32)
        return values

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Score by rotating the queries, which is cheaper than rotating every decoded vector back."""
        factor, bits = self._parts(codes)
        rotated = np.ldexp(rotate(self.rotation, to_grid(queries, self.exponent)), -self.exponent).astype(np.float32)
        products = sign_products(rotated, bits)
        return products * factor.T + (queries @ self.centre)[:, None]

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components outside the grid."""
        return count_beyond_grid(vectors, self.exponent)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the center and the rotation."""
        return {"centre": self.centre, **rotation_arrays(self.rotation, self.exponent)}

    def _parts(self, codes: npt.NDArray[Any]) -> tuple[Float32, npt.NDArray[np.uint8]]:
        return np.ascontiguousarray(codes[:, :4]).view("<f4"), np.ascontiguousarray(codes[:, 4:])


def fit_rabitq(spec: RabitqSpec, sample: Float32) -> RabitqQuantizer:
    """Compute the mean of the (n, k) sample, and draw the rotation."""
    centre = sample.astype(np.float64).mean(axis=0).astype(np.float32)
    return RabitqQuantizer(centre, random_rotation(sample.shape[1], spec.seed), grid_exponent(sample))


def load_rabitq(dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> RabitqQuantizer:
    """Rebuild the quantizer from its arrays."""
    return RabitqQuantizer(require_array(arrays, "centre", (dimension,), np.float32), *load_rotation(dimension, arrays))
