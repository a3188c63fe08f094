"""Cells: the coarse quantizer of an approximate index, one number for a vector.

A vector belongs to the cell whose centroid is nearest. Centroids and vectors lie on a grid of integers, and distances
are compared exactly, ties to the lowest number, so that a cell depends only on its vector: not on the batch, the number
of threads, or the library that multiplies matrices.

Exact products in float64 would take most of the time. Products in float32 therefore rule out all centroids that are
farther than the nearest one by more than rounding can explain. Only vectors with several centroids left are compared
exactly.

Source of the error bound: Higham, "Accuracy and stability of numerical algorithms", 2nd edition, 2002, section 3.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError
from isospace.transform.cells_spec import LARGEST_COUNT, CellsSpec
from isospace.transform.quantizers.arrays import require_array
from isospace.transform.vectors import Float32, Float64

Cells = npt.NDArray[np.uint16]
CELL_DTYPE = np.dtype("<u2")
# Distances of a block of rows take about 8 MB, which stay near the processor.
_BLOCK_DISTANCES = 2**21
_UNIT_ROUNDOFF = 2.0**-24
_EXACT_BITS = 50
# Fits give exponents from about -30 to 24; with these, float32 holds every number of the grid.
_LARGEST_EXPONENT = 64


@dataclass(frozen=True)
class CellQuantizer:
    """The number of the nearest centroid.

    Attributes
    ----------
    grid
        (count, k) int32, the centroids in units of 2**-exponent; no component exceeds 2**`grid_bits(k)`.
    exponent
        Of the grid that vectors are rounded to. Components beyond the grid are clipped to it.
    """

    grid: npt.NDArray[np.int32]
    exponent: int

    @property
    def count(self) -> int:
        """Number of cells."""
        return len(self.grid)

    @property
    def dimension(self) -> int:
        """Dimension k of the vectors."""
        return int(self.grid.shape[1])

    def centroids(self) -> Float32:
        """Return the (count, k) float32 centroids."""
        values: Float32 = np.ldexp(self.grid.astype(np.float64), -self.exponent).astype(np.float32)
        return values

    def encode(self, vectors: Float32) -> Cells:
        """Return the (n,) uint16 cells of (n, k) float32 vectors."""
        return self.nearest(self.to_grid(vectors))

    def to_grid(self, vectors: Float32) -> Float32:
        """Return rint(v * 2**exponent), clipped to the grid; integers that float32 holds exactly."""
        limit = 2.0 ** grid_bits(self.dimension)
        # Clipped before it is scaled, since it could overflow. Scaling by a power of two is exact.
        reach = np.float32(math.ldexp(limit, -self.exponent))
        grid: Float32 = np.rint(np.ldexp(np.clip(vectors, -reach, reach), self.exponent))
        return grid

    def nearest(self, grid: Float32) -> Cells:
        """Return the (n,) uint16 cells of (n, k) float32 vectors on the grid."""
        cells = np.empty(len(grid), CELL_DTYPE)
        rows = max(_BLOCK_DISTANCES // self.count, 64)
        for start in range(0, len(grid), rows):
            cells[start : start + rows] = self._nearest_in_block(grid[start : start + rows])
        return cells

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the centroids and the exponent of their grid."""
        return {"centroids": self.grid, "exponent": np.array([self.exponent], np.int64)}

    def _nearest_in_block(self, grid: Float32) -> Cells:
        closeness = grid @ self._factors[:-1]
        closeness += self._factors[-1]
        largest = closeness.max(axis=1)
        # A centroid that is nearest, or ties with it, is at most twice the error below the largest value.
        least = largest - 2.0 * self._errors(grid)
        least32 = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
        places = np.flatnonzero(closeness >= least32[:, None])
        rows = places // self.count
        cells = np.zeros(len(grid), CELL_DTYPE)
        cells[rows] = places - rows * self.count
        unclear = np.flatnonzero(np.bincount(rows, minlength=len(grid)) != 1)
        if len(unclear):
            cells[unclear] = self._nearest_exactly(grid[unclear])
        return cells

    def _nearest_exactly(self, grid: Float32) -> Cells:
        """Compare |c|**2 - 2 c x, which is |c - x|**2 - |x|**2.

        The components have b = `grid_bits(k)` bits, and k 2**(2 b) <= 2**50. Every partial sum of c x and of |c|**2 is
        an integer of at most 2**50, and the difference one of at most 3 * 2**50, so that float64 holds all of them.
        """
        centroids, squares = self._exact
        distances = squares - 2.0 * (grid.astype(np.float64) @ centroids.T)
        nearest: Cells = distances.argmin(axis=1).astype(CELL_DTYPE)
        return nearest

    def _errors(self, grid: Float32) -> Float64:
        """Return (n,) bounds of the errors of c x - |c|**2 / 2 in float32.

        x and c are exact in float32. A sum of k products in any order, with or without FMA, differs from the exact one
        by at most g(k) |x| |c|, where g(m) = m u / (1 - m u) and u = 2**-24 (Higham, 3.5, and Cauchy-Schwarz). |c|**2/2
        is rounded to float32, and the sum of both once more: g(k + 2) (|x| |c| + |c|**2 / 2) bounds all of it. Two more
        units cover the rounding of this bound.
        """
        terms = (self.dimension + 4) * _UNIT_ROUNDOFF
        longest = math.sqrt(float(self._exact[1].max()))
        lengths = np.sqrt(np.einsum("ij,ij->i", grid, grid, dtype=np.float64))
        errors: Float64 = terms / (1.0 - terms) * longest * (lengths + longest / 2.0)
        return errors

    @cached_property
    def _exact(self) -> tuple[Float64, Float64]:
        """The (count, k) centroids and their (count,) squares."""
        centroids = self.grid.astype(np.float64)
        return centroids, np.einsum("ij,ij->i", centroids, centroids)

    @cached_property
    def _factors(self) -> Float32:
        """The (k + 1, count) columns of c and of -|c|**2 / 2."""
        centroids, squares = self._exact
        return np.concatenate([centroids.T, -squares[None] / 2.0]).astype(np.float32)


def grid_bits(dimension: int) -> int:
    """Return b, the bits of a component for which k 2**(2 b) is at most 2**50; at most 24, as float32 holds."""
    return (_EXACT_BITS - math.ceil(math.log2(max(dimension, 2)))) // 2


def imbalance_factor(sizes: npt.NDArray[Any]) -> float:
    """Return count * sum(sizes**2) / sum(sizes)**2: 1 if all cells are equally large, `count` if one holds everything.

    It is how many times as many vectors a search visits in one cell as with equal cells, if queries are distributed
    like the vectors. 0 without vectors. Source: `imbalance_factor` in faiss.
    """
    wide = sizes.astype(np.float64)
    total = float(wide.sum())
    return len(sizes) * float(wide @ wide) / total**2 if total else 0.0


def load_cells(spec: CellsSpec, dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> CellQuantizer:
    """Rebuild the quantizer from its arrays.

    Raises
    ------
    IntegrityError
        If an array is missing, or does not match the specification and the dimension.
    """
    stored = arrays.get("centroids")
    found = len(stored) if stored is not None and stored.ndim else 0
    count = spec.count or found
    grid = require_array(arrays, "centroids", (count, dimension), np.int32)
    exponent = int(require_array(arrays, "exponent", (1,), np.int64)[0])
    limit, largest = 2 ** grid_bits(dimension), int(np.abs(grid.astype(np.int64)).max(initial=0))
    if not 1 < count <= LARGEST_COUNT or largest > limit or abs(exponent) > _LARGEST_EXPONENT:
        raise IntegrityError(
            f"params.safetensors: {count} centroids of cells with components of up to {largest} and exponent "
            f"{exponent}; expected 2 to {LARGEST_COUNT} centroids, components of at most {limit}, and exponents of at "
            f"most {_LARGEST_EXPONENT}. The space is damaged: restore it, or refit with runtime.refit=true."
        )
    return CellQuantizer(grid, exponent)
