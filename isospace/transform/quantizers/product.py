"""Product quantization: m sub-vectors, each replaced by the nearest of 256 centroids, one byte each.

faiss trains the codebooks. They are then rounded to a grid and stored as plain arrays, so faiss is not needed again.
Sub-vectors are assigned by exact squared distances on that grid, ties to the lowest index, so a code depends only on
its vector.

Sources: Jegou, Douze and Schmid, "Product quantization for nearest neighbor search", 2011; Ge, He, Ke and Sun,
"Optimized product quantization", 2013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError, install_command
from isospace.transform.quantizers.arrays import require_array
from isospace.transform.quantizers.binary import load_rotation, rotation_arrays
from isospace.transform.representations import PqSpec
from isospace.transform.rotation import (
    GRID_BITS,
    Rotation,
    count_beyond_grid,
    grid_exponent,
    rotate,
    rotate_back,
    round_rotation,
    to_grid,
)
from isospace.transform.vectors import Float32

CENTROIDS = 256
_BLOCK_ROWS = 2048


@dataclass(frozen=True, slots=True)
class ProductQuantizer:
    """One byte per sub-vector.

    Attributes
    ----------
    codebooks
        (m, 256, k / m) int32 in units of 2**-exponent.
    rotation, rotation_exponent
        For OPQ: the rotation that is applied first, and the exponent of its grid.
    """

    codebooks: npt.NDArray[np.int32]
    exponent: int
    rotation: Rotation | None = None
    rotation_exponent: int = 0

    @property
    def dimension(self) -> int:
        """Dimension k of the vectors."""
        return int(self.codebooks.shape[0] * self.codebooks.shape[2])

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, m) uint8."""
        codes = np.empty((len(vectors), len(self.codebooks)), np.uint8)
        books = self.codebooks.astype(np.float64)
        halves = (books * books).sum(axis=2) / 2
        for start in range(0, len(vectors), _BLOCK_ROWS):
            grid = self._grid(self._rotated(vectors[start : start + _BLOCK_ROWS]))
            parts = grid.reshape(len(grid), *self.codebooks.shape[::2]).transpose(1, 0, 2)
            for number, part in enumerate(parts):
                distances = halves[number] - np.ascontiguousarray(part) @ books[number].T
                codes[start : start + len(grid), number] = distances.argmin(axis=1)
        return codes

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32."""
        values = self._centroids(codes)
        if self.rotation is not None:
            values = rotate_back(self.rotation, values)
        decoded: Float32 = np.ldexp(values, -self.exponent).astype(np.float32)
        return decoded

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Score by rotating the queries, which is cheaper than rotating every decoded vector back."""
        rotated = self._rotated(queries).astype(np.float32)
        scores: Float32 = rotated @ np.ldexp(self._centroids(codes), -self.exponent).astype(np.float32).T
        return scores

    def lookup(self, queries: Float32) -> tuple[Float32, Float32]:
        """Return (m, 256, k / m) centroids and (q, k) rotated queries, for tables of inner products."""
        centroids: Float32 = np.ldexp(self.codebooks.astype(np.float64), -self.exponent).astype(np.float32)
        return np.ascontiguousarray(centroids), np.ascontiguousarray(self._rotated(queries), dtype=np.float32)

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components outside the grids."""
        limit = 2.0 ** _bits(self.codebooks.shape[2])
        outside = int((np.abs(self._rotated(vectors).astype(np.float64)) * 2.0**self.exponent > limit).sum())
        before = 0 if self.rotation is None else count_beyond_grid(vectors, self.rotation_exponent)
        return max(outside, before)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the codebooks, and the rotation if there is one."""
        grid: dict[str, npt.NDArray[Any]] = {
            "codebooks": self.codebooks,
            "codebook_exponent": np.array([self.exponent], np.int64),
        }
        return grid | rotation_arrays(self.rotation, self.rotation_exponent)

    def _rotated(self, vectors: Float32) -> npt.NDArray[Any]:
        if self.rotation is None:
            return vectors
        grid = to_grid(vectors, self.rotation_exponent)
        return np.ldexp(rotate(self.rotation, grid), -self.rotation_exponent)

    def _grid(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        limit = 2.0 ** _bits(self.codebooks.shape[2])
        grid: npt.NDArray[np.float64] = np.clip(np.rint(vectors.astype(np.float64) * 2.0**self.exponent), -limit, limit)
        return grid

    def _centroids(self, codes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        chosen = self.codebooks[np.arange(codes.shape[1]), codes]
        values: npt.NDArray[np.float64] = chosen.reshape(len(codes), self.dimension).astype(np.float64)
        return values


def require_training_sample(spec: PqSpec, count: int) -> None:
    """Raise FitError if a sample of `count` vectors is too small to train codebooks."""
    if count < CENTROIDS:
        raise FitError(
            f"representation {spec.name}: the sample has {count} vectors, and a codebook of {CENTROIDS} centroids "
            f"needs at least as many (preferably {39 * CENTROIDS}). Embed more text, or use int8 or rabitq."
        )


def fit_product(spec: PqSpec, sample: Float32) -> ProductQuantizer:
    """Train codebooks on the (n, k) sample.

    Raises
    ------
    FitError
        If the sample has fewer vectors than a codebook has centroids, or faiss is missing.
    """
    count, dimension = sample.shape
    require_training_sample(spec, count)
    try:
        import faiss
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise FitError(f"representation {spec.name}: training needs faiss. Run: {install_command('pq')}") from error
    rotation, rotation_exponent = None, grid_exponent(sample)
    vectors = np.ascontiguousarray(sample)
    if spec.kind == "opq":
        trained = faiss.OPQMatrix(dimension, spec.subvectors)
        trained.pq = _trainer(dimension, spec)
        # With several threads the last bits of the rotation vary, and the space with them.
        with threadpool_limits(limits=1):
            trained.train(vectors)
        rotation = round_rotation(faiss.vector_to_array(trained.A).reshape(dimension, dimension).astype(np.float64))
        rotated = rotate(rotation, to_grid(vectors, rotation_exponent))
        vectors = np.ldexp(rotated, -rotation_exponent).astype(np.float32)
    trainer = _trainer(dimension, spec)
    trainer.train(vectors)
    width = dimension // spec.subvectors
    books = faiss.vector_to_array(trainer.centroids).reshape(spec.subvectors, CENTROIDS, width)
    exponent = grid_exponent(sample) - GRID_BITS + _bits(width)
    limit = 2.0 ** _bits(width)
    fixed = np.clip(np.rint(books.astype(np.float64) * 2.0**exponent), -limit, limit).astype(np.int32)
    return ProductQuantizer(fixed, exponent, rotation, rotation_exponent if rotation else 0)


def _trainer(dimension: int, spec: PqSpec) -> Any:
    import faiss

    trainer = faiss.ProductQuantizer(dimension, spec.subvectors, 8)
    trainer.cp.seed = spec.seed + 1
    # Small corpora are allowed. Without this, faiss would print a warning for every codebook.
    trainer.cp.min_points_per_centroid = 1
    return trainer


def load_product(spec: PqSpec, dimension: int, arrays: Mapping[str, npt.NDArray[Any]]) -> ProductQuantizer:
    """Rebuild the quantizer from its arrays."""
    shape = (spec.subvectors, CENTROIDS, dimension // spec.subvectors)
    books = require_array(arrays, "codebooks", shape, np.int32)
    exponent = int(require_array(arrays, "codebook_exponent", (1,), np.int64)[0])
    return ProductQuantizer(books, exponent, *(load_rotation(dimension, arrays) if spec.kind == "opq" else (None, 0)))


def _bits(width: int) -> int:
    """Return the bits per factor for which distances in `width` dimensions stay below 2**53."""
    return (52 - math.ceil(math.log2(max(width, 2)))) // 2
