"""One bit per dimension: 1 above the threshold, packed big-endian, eight to a byte.

A bit decodes to threshold +- 1/sqrt(k), which gives a vector of unit length if the threshold is zero. With a rotation
P, the bits are those of P v, and decoded vectors are rotated back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.quantizers.arrays import require_array
from isospace.transform.representations import BinarySpec
from isospace.transform.rotation import (
    Rotation,
    count_beyond_grid,
    grid_exponent,
    random_rotation,
    rotate,
    rotate_back,
    to_grid,
)
from isospace.transform.vectors import Float32


@dataclass(frozen=True, slots=True)
class BinaryQuantizer:
    """One bit per dimension.

    Attributes
    ----------
    threshold
        (k,) float32, in rotated coordinates if there is a rotation.
    rotation
        Applied before the comparison with the threshold.
    exponent
        Of the grid that vectors are rounded to before they are rotated.
    """

    threshold: Float32
    rotation: Rotation | None
    exponent: int

    @property
    def dimension(self) -> int:
        """Dimension k of the vectors."""
        return len(self.threshold)

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, ceil(k / 8)) uint8."""
        return np.packbits(self._rotated(vectors) > self.threshold, axis=1)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32."""
        values = self.threshold.astype(np.float64) + self._signs(codes) / np.sqrt(self.dimension)
        if self.rotation is not None:
            values = np.ldexp(rotate_back(self.rotation, to_grid(values, self.exponent)), -self.exponent)
        decoded: Float32 = values.astype(np.float32)
        return decoded

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Score by rotating the queries, which is cheaper than rotating every decoded vector back."""
        rotated = self._rotated(queries).astype(np.float32)
        scores: Float32 = sign_products(rotated, codes) / np.sqrt(np.float32(self.dimension))
        return np.asarray(scores + (rotated @ self.threshold)[:, None], np.float32)

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components outside the grid of the rotation, if there is one."""
        return 0 if self.rotation is None else count_beyond_grid(vectors, self.exponent)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the threshold, and the rotation if there is one."""
        return {"threshold": self.threshold, **rotation_arrays(self.rotation, self.exponent)}

    def _rotated(self, vectors: Float32) -> npt.NDArray[Any]:
        if self.rotation is None:
            return vectors
        return np.ldexp(rotate(self.rotation, to_grid(vectors, self.exponent)), -self.exponent)

    def _signs(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return signs(codes, self.dimension)


def fit_binary(spec: BinarySpec, sample: Float32) -> BinaryQuantizer:
    """Fit the thresholds on the (n, k) sample."""
    dimension = sample.shape[1]
    exponent = grid_exponent(sample) if spec.rotation else 0
    rotation = random_rotation(dimension, spec.seed) if spec.rotation else None
    quantizer = BinaryQuantizer(np.zeros(dimension, np.float32), rotation, exponent)
    if spec.threshold == "zero":
        return quantizer
    average = np.median if spec.threshold == "median" else np.mean
    threshold = np.asarray(average(quantizer._rotated(sample).astype(np.float64), axis=0), np.float32)
    return BinaryQuantizer(threshold, rotation, exponent)


def load_binary(spec: BinarySpec, dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> BinaryQuantizer:
    """Rebuild the quantizer from its arrays."""
    threshold = require_array(arrays, "threshold", (dimension,), np.float32)
    if not spec.rotation:
        return BinaryQuantizer(threshold, None, 0)
    return BinaryQuantizer(threshold, *load_rotation(dimension, arrays))


def signs(codes: npt.NDArray[Any], dimension: int) -> npt.NDArray[np.float64]:
    """Return packed bits as (n, k) float64 values +1 and -1."""
    return 2.0 * np.unpackbits(codes, axis=1, count=dimension).astype(np.float64) - 1.0


def sign_products(queries: Float32, codes: npt.NDArray[Any]) -> Float32:
    """Return (m, n) float32 products of (m, k) queries with the signs of packed bits: 2 q.b - sum(q)."""
    bits = np.unpackbits(codes, axis=1, count=queries.shape[1]).astype(np.float32)
    products: Float32 = 2 * (queries @ bits.T) - queries.sum(axis=1, keepdims=True)
    return products


def rotation_arrays(rotation: Rotation | None, exponent: int) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays that store a rotation."""
    if rotation is None:
        return {}
    return {"rotation": rotation.matrix, "rotation_bits": np.array([rotation.bits, exponent], np.int64)}


def load_rotation(dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> tuple[Rotation, int]:
    """Rebuild a rotation; return it and the exponent of its grid."""
    bits, exponent = (int(value) for value in require_array(arrays, "rotation_bits", (2,), np.int64))
    return Rotation(require_array(arrays, "rotation", (dimension, dimension), np.int32), bits), exponent
