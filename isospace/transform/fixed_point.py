"""Put a fitted affine map on integer grids; the fit and its sample decide how fine each grid is (see `affine`)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError
from isospace.transform.affine import EXACT_BITS, LIMB_BITS, OUTPUT_BITS, AffineMap, bits_at_once
from isospace.transform.vectors import Float64

# A float32 has 24; a steep map carries the rounding of its input further than its own, and wants more of them.
_INPUT_BITS = range(20, 33)
# Beyond this cosine error of a typical vector two limbs are worth their second product.
_MOST_COSINE_ERROR = 1e-12
_SEEN = 2048
# Room above the longest vector of the sample, for the rest of the corpus and for queries.
_HEADROOM = 2.0
# How far beyond the sample's largest output the grid reaches at most: five of its 26 bits.
_MOST_BEYOND_SAMPLE = 32.0


def fix_point(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> AffineMap:
    """Round a fitted affine map to integer grids.

    Parameters
    ----------
    matrix
        (k, d) float64, A.
    offsets
        (2, k) float64, b by role in the order of `ROLES`.
    sample
        (n, d) raw vectors of the fit. Their lengths bound |x|, and with the map |y|.

    Returns
    -------
    AffineMap

    Raises
    ------
    FitError
        If the sample is empty or all zero, or the map is not finite.
    """
    if not (np.isfinite(matrix).all() and np.isfinite(offsets).all()):
        raise FitError(
            "the fitted map has NaN or infinite entries; expected finite ones. Raise recipe.transform.fit.epsilon."
        )
    # The length bounds every component, also those that a small or uniform sample happens not to have.
    lengths = row_lengths(sample)
    input_bound = float(lengths.max(initial=0.0))
    if not (0.0 < input_bound < math.inf):
        raise FitError(
            f"the sample of {len(sample)} raw vectors has the bound {input_bound} on |x|; expected a positive finite "
            "one. Embed a corpus with readable text first."
        )
    whole = _bits(input_bound * _HEADROOM)
    typical = float(np.sqrt((lengths**2).mean()))
    bits = min(_INPUT_BITS, key=lambda t: _rounding(matrix, offsets, t, t - whole, typical))
    limbs = 1
    if _rounding(matrix, offsets, bits, bits - whole, typical) > 2 * _MOST_COSINE_ERROR * _squared_length(
        matrix, offsets, sample
    ):
        bits, limbs = 2 * LIMB_BITS, 2
    exponents, integers, fixed_offsets = _fix_rows(matrix, offsets, bits, bits - whole, limbs)
    # Cauchy-Schwarz: what any vector of that length can reach, also where a uniform sample reached little. A steep map
    # makes it far too wide, and a wide grid is a coarse one: hence the cap.
    reach = float(np.linalg.norm(matrix, axis=1).max()) * input_bound + float(np.abs(offsets).max())
    output_bound = min(reach, _MOST_BEYOND_SAMPLE * _largest_output(matrix, offsets, sample))
    return AffineMap(integers, exponents, fixed_offsets, bits - whole, OUTPUT_BITS - _bits(output_bound), bits, limbs)


def row_lengths(vectors: npt.NDArray[Any], *, block_rows: int = 8192) -> Float64:
    """Return the (n,) float64 Euclidean lengths of the rows of (n, d) vectors."""
    blocks = [
        np.linalg.norm(np.asarray(vectors[start : start + block_rows], np.float64), axis=1)
        for start in range(0, len(vectors), block_rows)
    ]
    return np.concatenate([np.zeros(0), *blocks])


def _bits(bound: float) -> int:
    """Bits before the point that hold `bound`; a length of 1.0000001 is one that was rounded, not one above 1."""
    return math.ceil(math.log2(bound) - 1e-3)


def _row_exponents(
    matrix: Float64, offsets: Float64, bits: int, input_exponent: int, limbs: int = 1
) -> npt.NDArray[np.int64]:
    """Return the largest exponent of each row with which its exact sums stay below 2**53."""
    seen = bits_at_once(bits, limbs)
    reach = np.abs(matrix).sum(axis=1) * 2.0**seen + np.abs(offsets).max(axis=0) * 2.0 ** (input_exponent - bits + seen)
    # One bit is kept for what rounding each of the d integers up can add.
    spare = EXACT_BITS - 2 - np.ceil(np.log2(np.maximum(reach, 2.0**-200)))
    exponents: npt.NDArray[np.int64] = np.clip(spare, -200, 60).astype(np.int64)
    return exponents


def _rounding(matrix: Float64, offsets: Float64, bits: int, input_exponent: int, length: float) -> float:
    """Return the variance that rounding X and N adds to a result, for a vector of that length."""
    exponents = _row_exponents(matrix, offsets, bits, input_exponent)
    by_input = float((matrix**2).sum()) * 4.0**-input_exponent
    by_rows = float((4.0 ** -exponents.astype(np.float64)).sum()) * length**2
    return (by_input + by_rows) / 12.0


def _squared_length(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> float:
    """Return the smallest squared length of a result, of 99 per cent of a part of the sample."""
    results = np.asarray(sample[:_SEEN], np.float64) @ matrix.T + offsets[0]
    return float(np.quantile((results**2).sum(axis=1), 0.01))


def _fix_rows(
    matrix: Float64, offsets: Float64, bits: int, input_exponent: int, limbs: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    exponents = _row_exponents(matrix, offsets, bits, input_exponent, limbs)
    integers = np.rint(np.ldexp(matrix, exponents[:, None])).astype(np.int64)
    unit = input_exponent - bits + bits_at_once(bits, limbs)
    fixed_offsets = np.rint(np.ldexp(offsets, unit + exponents)).astype(np.int64)
    return exponents, integers, fixed_offsets


def _largest_output(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> float:
    """Return the largest |y| of the sample in either role; FitError if it is zero for documents: all have one vector."""
    largest, scale = np.zeros(len(offsets)), 0.0
    for start in range(0, len(sample), 8192):
        block = np.asarray(sample[start : start + 8192], dtype=np.float64)
        results = block @ matrix.T
        largest = np.maximum(largest, [np.abs(results + offset).max() for offset in offsets])
        scale = max(scale, float(np.abs(block).max() * np.abs(matrix).max()))
    if largest[0] > 1e-6 * scale:
        return float(largest.max())
    raise FitError(
        f"the fitted map sends all {len(sample)} vectors of the sample to zero: every text has the same vector. Embed "
        "a more varied corpus, or use fit kind none."
    )
