"""Eight bits per dimension: element by element, round half to even.

symmetric   code = clip(rint(v / scale), -127, 127)                  v ~ code * scale
affine      code = clip(rint((v - low) / scale), 0, 255) - 128       v ~ (code + 128) * scale + low

Scales are fitted on the sample, one per dimension or one for all dimensions. Alternatively each vector has its own
scale, which precedes its codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.quantizers.arrays import require_array, require_positive
from isospace.transform.representations import Int8Spec
from isospace.transform.vectors import Float32

_SYMMETRIC, _STEPS = 127, 255
# A constant dimension has a range of zero: any positive scale encodes it exactly.
_SMALLEST_SPAN = np.finfo(np.float32).tiny * _STEPS


@dataclass(frozen=True, slots=True)
class Int8Quantizer:
    """One scale per dimension, the same for all vectors.

    Attributes
    ----------
    scale
        (k,) float32, positive.
    low
        (k,) float32, the value of code -128; None for symmetric codes.
    """

    scale: Float32
    low: Float32 | None

    @property
    def dimension(self) -> int:
        """Dimension k of the vectors."""
        return len(self.scale)

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, k) int8."""
        return _codes(vectors, self.scale, self.low)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32."""
        return _values(codes, self.scale, self.low)

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Score by folding the scales into the queries, so that codes need no decoding."""
        scaled = queries * self.scale
        scores: Float32 = scaled @ codes.T.astype(np.float32)
        if self.low is not None:
            shift = 128 * scaled.sum(axis=1) + queries @ self.low
            scores = scores + shift[:, None]
        return scores

    def count_saturated(self, vectors: Float32) -> int:
        """Count the components that are clipped."""
        steps = np.rint((vectors if self.low is None else vectors - self.low) / self.scale)
        beyond = np.abs(steps) > _SYMMETRIC if self.low is None else (steps < 0) | (steps > _STEPS)
        return int(beyond.sum())

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the scale, and the lower bound for affine codes."""
        return {"scale": self.scale} if self.low is None else {"scale": self.scale, "low": self.low}


@dataclass(frozen=True, slots=True)
class Int8VectorQuantizer:
    """One scale per vector, computed from the vector; nothing is fitted and nothing is clipped.

    A code consists of the float32 scale, for affine codes the float32 lower bound, and k bytes.
    """

    dimension: int
    is_affine: bool

    @property
    def _head(self) -> int:
        return 2 if self.is_affine else 1

    def encode(self, vectors: Float32) -> npt.NDArray[Any]:
        """Return (n, k + 4) uint8, or (n, k + 8) for affine codes."""
        if self.is_affine:
            low = vectors.min(axis=1, keepdims=True)
            scale = _scale(vectors.max(axis=1, keepdims=True) - low, _STEPS)
            head = np.concatenate([scale, low], axis=1)
            codes = _codes(vectors, scale, low)
        else:
            scale = head = _scale(np.abs(vectors).max(axis=1, keepdims=True), _SYMMETRIC)
            codes = _codes(vectors, scale, None)
        first = np.ascontiguousarray(head, dtype="<f4").view(np.uint8)
        return np.concatenate([first, codes.view(np.uint8)], axis=1)

    def decode(self, codes: npt.NDArray[Any]) -> Float32:
        """Return (n, k) float32."""
        scale, low, values = self.parts(codes)
        return _values(values, scale, low)

    def scores(self, queries: Float32, codes: npt.NDArray[Any]) -> Float32:
        """Score with the integer codes, then multiply the scores of each vector by its scale."""
        scale, low, values = self.parts(codes)
        scores: Float32 = queries @ values.T.astype(np.float32)
        if low is None:
            return scores * scale.T
        sums = queries.sum(axis=1, keepdims=True)
        affine: Float32 = (scores + 128 * sums) * scale.T + sums * low.T
        return affine

    def count_saturated(self, vectors: Float32) -> int:
        """Return 0, since nothing is clipped."""
        return 0

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return no arrays, since nothing is fitted."""
        return {}

    def parts(self, codes: npt.NDArray[Any]) -> tuple[Float32, Float32 | None, npt.NDArray[np.int8]]:
        """Return the (n, 1) float32 scales, the lower bounds of affine codes, and the (n, k) int8 codes."""
        head = np.ascontiguousarray(codes[:, : 4 * self._head]).view("<f4")
        values = np.ascontiguousarray(codes[:, 4 * self._head :]).view(np.int8)
        return head[:, :1], (head[:, 1:2] if self.is_affine else None), values


def fit_int8(spec: Int8Spec, sample: Float32) -> Int8Quantizer | Int8VectorQuantizer:
    """Fit the bounds on the (n, k) sample, at the percentile of the specification."""
    dimension = sample.shape[1]
    if spec.granularity == "vector":
        return Int8VectorQuantizer(dimension, spec.range == "affine")
    axis = 0 if spec.granularity == "dimension" else None
    if spec.range == "symmetric":
        bound = np.percentile(np.abs(sample), spec.percentile, axis=axis)
        scale = _scale(np.asarray(bound, np.float32), _SYMMETRIC)
        return Int8Quantizer(_broadcast(scale, dimension), None)
    tail = (100.0 - spec.percentile) / 2
    low, high = (np.asarray(bound, np.float32) for bound in np.percentile(sample, [tail, 100.0 - tail], axis=axis))
    return Int8Quantizer(_broadcast(_scale(high - low, _STEPS), dimension), _broadcast(low, dimension))


def load_int8(
    spec: Int8Spec, dimension: int, arrays: Mapping[str, npt.NDArray[Any]]
) -> Int8Quantizer | Int8VectorQuantizer:
    """Rebuild the quantizer from its arrays."""
    if spec.granularity == "vector":
        return Int8VectorQuantizer(dimension, spec.range == "affine")
    scale = require_positive(require_array(arrays, "scale", (dimension,), np.float32), "scale")
    low = require_array(arrays, "low", (dimension,), np.float32) if spec.range == "affine" else None
    return Int8Quantizer(scale, low)


def _scale(span: Float32, steps: int) -> Float32:
    scale: Float32 = (np.where(span < _SMALLEST_SPAN, np.float32(1.0), span) / np.float32(steps)).astype(np.float32)
    return scale


def _broadcast(values: Float32, dimension: int) -> Float32:
    return np.ascontiguousarray(np.broadcast_to(values, (dimension,)))


def _codes(vectors: Float32, scale: Float32, low: Float32 | None) -> npt.NDArray[np.int8]:
    if low is None:
        steps = np.clip(np.rint(vectors / scale), -_SYMMETRIC, _SYMMETRIC)
    else:
        steps = np.clip(np.rint((vectors - low) / scale), 0, _STEPS) - 128
    codes: npt.NDArray[np.int8] = steps.astype(np.int8)
    return codes


def _values(codes: npt.NDArray[Any], scale: Float32, low: Float32 | None) -> Float32:
    values: Float32 = codes.astype(np.float32)
    if low is None:
        return values * scale
    shifted: Float32 = (values + np.float32(128)) * scale + low
    return shifted
