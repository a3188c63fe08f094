"""A few dimensions of a vector, at full precision: the first ones, or its leading principal components.

What a tiered search goes by first. Components are those of the uncentred second moment, whose leading d dimensions keep
most of an inner product (Eckart and Young, 1936); `leading` takes the vector's own first dimensions, for models and
fits
that put the most into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.quantizers.binary import load_rotation, rotation_arrays
from isospace.transform.representations import ShortSpec
from isospace.transform.rotation import Rotation, beyond_grid, fix_rotation, grid_exponent, rotate, rotate_back, to_grid
from isospace.transform.vectors import Float32


@dataclass(frozen=True, slots=True)
class ShortQuantizer:
    """The first `kept` dimensions, rotated before if there is a rotation.

    Attributes
    ----------
    dimension
        Of the vectors, k.
    kept
        d'.
    rotation, exponent
        Principal axes as rows, and the exponent of the grid that vectors are put on before; None for the vector's own.
    """

    dimension: int
    kept: int
    rotation: Rotation | None
    exponent: int

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, d') float32."""
        return np.ascontiguousarray(self._rotated(vectors)[:, : self.kept], dtype=np.float32)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32: what was cut off is zero."""
        whole = np.zeros((len(codes), self.dimension), np.float32)
        whole[:, : self.kept] = codes
        if self.rotation is None:
            return whole
        back: Float32 = np.ldexp(rotate_back(self.rotation, to_grid(whole, self.exponent)), -self.exponent).astype(
            "<f4"
        )
        return back

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Rotate the queries instead of every vector back."""
        product: Float32 = self.encode(queries) @ codes.T
        return product

    def saturated(self, vectors: Float32) -> int:
        """Count the components beyond the grid of the rotation, if there is one."""
        return 0 if self.rotation is None else beyond_grid(vectors, self.exponent)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the rotation if there is one."""
        return rotation_arrays(self.rotation, self.exponent)

    def _rotated(self, vectors: Float32) -> npt.NDArray[Any]:
        if self.rotation is None:
            return vectors
        return np.ldexp(rotate(self.rotation, to_grid(vectors, self.exponent)), -self.exponent)


def fit_short(spec: ShortSpec, sample: Float32) -> ShortQuantizer:
    """Find the principal axes of the (n, k) sample."""
    dimension = sample.shape[1]
    if spec.basis == "leading":
        return ShortQuantizer(dimension, spec.dimensions, None, 0)
    wide = sample.astype(np.float64)
    _, axes = np.linalg.eigh(wide.T @ wide / len(wide))
    rows = axes.T[::-1]
    # An axis has no sign of its own.
    largest = rows[np.arange(dimension), np.abs(rows).argmax(axis=1)]
    return ShortQuantizer(
        dimension, spec.dimensions, fix_rotation(rows * np.sign(largest)[:, None]), grid_exponent(sample)
    )


def load_short(spec: ShortSpec, dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> ShortQuantizer:
    """Rebuild from arrays."""
    loaded = load_rotation(dimension, arrays) if spec.basis == "pca" else (None, 0)
    return ShortQuantizer(dimension, spec.dimensions, *loaded)
