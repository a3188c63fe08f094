"""A few dimensions at full precision: the first ones, or the leading principal components.

Used for the first stage of a coarse-to-fine search. The components are those of the uncentered second moment; its
leading dimensions preserve inner products best (Eckart and Young, 1936). `leading` uses the vector's own first
dimensions, for models and fits that put most of the information there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.quantizers.binary import load_rotation, rotation_arrays
from isospace.transform.representations import ShortSpec
from isospace.transform.rotation import (
    Rotation,
    count_beyond_grid,
    grid_exponent,
    rotate,
    rotate_back,
    round_rotation,
    to_grid,
)
from isospace.transform.vectors import Float32


@dataclass(frozen=True, slots=True)
class ShortQuantizer:
    """The first d' dimensions, after a rotation if there is one.

    Attributes
    ----------
    dimension
        k, of the vectors.
    short_dimension
        d', of the codes.
    rotation, exponent
        Principal axes as rows (None for the vector's own dimensions), and the exponent of the grid that vectors are
        rounded to before they are rotated.
    """

    dimension: int
    short_dimension: int
    rotation: Rotation | None
    exponent: int

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, d') float32."""
        return np.ascontiguousarray(self._rotated(vectors)[:, : self.short_dimension], dtype=np.float32)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32, with zeros for the dimensions that were cut off."""
        padded = np.zeros((len(codes), self.dimension), np.float32)
        padded[:, : self.short_dimension] = codes
        if self.rotation is None:
            return padded
        back: Float32 = np.ldexp(rotate_back(self.rotation, to_grid(padded, self.exponent)), -self.exponent).astype(
            "<f4"
        )
        return back

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Score by rotating the queries, which is cheaper than rotating every decoded vector back."""
        product: Float32 = self.encode(queries) @ codes.T
        return product

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components outside the grid of the rotation, if there is one."""
        return 0 if self.rotation is None else count_beyond_grid(vectors, self.exponent)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the rotation, if there is one."""
        return rotation_arrays(self.rotation, self.exponent)

    def _rotated(self, vectors: Float32) -> npt.NDArray[Any]:
        if self.rotation is None:
            return vectors
        return np.ldexp(rotate(self.rotation, to_grid(vectors, self.exponent)), -self.exponent)


def fit_short(spec: ShortSpec, sample: Float32) -> ShortQuantizer:
    """Compute the principal axes of the (n, k) sample."""
    dimension = sample.shape[1]
    if spec.basis == "leading":
        return ShortQuantizer(dimension, spec.dimensions, None, 0)
    wide = sample.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide / len(wide))
    rows = axes.T[::-1]
    # The sign of an axis is arbitrary: make its largest entry positive.
    largest = rows[np.arange(dimension), np.abs(rows).argmax(axis=1)]
    return ShortQuantizer(
        dimension, spec.dimensions, round_rotation(rows * np.sign(largest)[:, None]), grid_exponent(sample)
    )


def load_short(spec: ShortSpec, dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> ShortQuantizer:
    """Rebuild the quantizer from its arrays."""
    loaded = load_rotation(dimension, arrays) if spec.basis == "pca" else (None, 0)
    return ShortQuantizer(dimension, spec.dimensions, *loaded)
