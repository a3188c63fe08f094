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
    """Store vectors in float32 or float16, without fitted parameters."""

    kind: Literal["float32", "float16"]
    dimension: int

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Convert (n, k) float32 to the kind, rounding to nearest, ties to even."""
        if self.kind == "float32":
            return np.ascontiguousarray(vectors, dtype=np.float32)
        return np.clip(vectors, -_LARGEST_HALF, _LARGEST_HALF).astype(np.float16)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32."""
        return codes.astype(np.float32, copy=False)

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Return (m, n) float32 inner products."""
        vectors = self.decode(codes)
        # For one query, BLAS has a matrix-vector product, which is limited only by memory bandwidth.
        product: Float32 = (vectors @ queries[0])[None] if len(queries) == 1 else queries @ vectors.T
        return product

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components outside the range of half precision."""
        return 0 if self.kind == "float32" else int((np.abs(vectors) > _LARGEST_HALF).sum())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return no arrays, since nothing is fitted."""
        return {}
