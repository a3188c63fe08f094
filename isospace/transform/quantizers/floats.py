"""float32 and float16: the vector itself, or rounded to half precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from isospace.transform.vectors import Float32

_LARGEST_HALF = np.float32(np.finfo(np.float16).max)


@dataclass(frozen=True, slots=True)
class FloatQuantizer:
    """Nothing is fitted."""

    kind: Literal["float32", "float16"]
    dimension: int

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Round to nearest, ties to even."""
        if self.kind == "float32":
            return np.ascontiguousarray(vectors, dtype=np.float32)
        return np.clip(vectors, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Widen."""
        return codes.astype(np.float32, copy=False)

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Inner products."""
        vectors = self.decode(codes)
        # One query is a product of matrix and vector, which BLAS does otherwise than one of two matrices: as fast as
        # memory.
        product: Float32 = (vectors @ queries[0])[None] if len(queries) == 1 else queries @ vectors.T
        return product

    def saturated(self, vectors: Float32) -> int:
        """Count what half precision cannot hold."""
        return 0 if self.kind == "float32" else int((np.abs(vectors) > _LARGEST_HALF).sum())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Nothing is fitted."""
        return {}
