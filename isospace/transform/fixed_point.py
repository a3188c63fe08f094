"""Round a fitted affine map to integer grids.

The fit and its sample decide how fine each grid is (see `isospace.transform.affine`).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError
from isospace.transform.affine import EXACT_BITS, LIMB_BITS, OUTPUT_BITS, AffineMap, apply_affine, bits_per_product
from isospace.transform.sample_checks import require_usable
from isospace.transform.vectors import Float64

# A float32 has 24 bits. A steep map amplifies the rounding of its input, and needs more.
_INPUT_BITS = range(20, 33)
# Above this cosine error of a typical vector, two limbs are worth the second matrix product.
_MAX_COSINE_ERROR = 1e-12
_MEASURED_ROWS = 2048
# Room above the longest vector of the sample, for the rest of the corpus and for queries.
_HEADROOM = 2.0
# A vector may be off by this share of its length, which is far beyond what any usable sample needs.
_MAX_RELATIVE_ERROR = 0.01
_NEGLIGIBLE = 1e-6
# The output grid reaches at most this far beyond the sample's largest output: five of its 26 bits.
_MAX_OUTPUT_HEADROOM = 32.0


def to_fixed_point(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> AffineMap:
    """Round a fitted affine map to integer grids.

    Parameters
    ----------
    matrix
        (k, d) float64, A.
    offsets
        (2, k) float64, b for each role in the order of `ROLES`.
    sample
        (n, d) raw vectors of the fit. Their lengths bound |x|, and together with the map |y|.

    Raises
    ------
    FitError
        If the sample is empty, all zero, not finite, or too large, if the map is not finite, or if the grids are too
        coarse for most of the sample.
    """
    require_usable(sample, "raw vectors of the sample")
    if not (np.isfinite(matrix).all() and np.isfinite(offsets).all()):
        raise FitError(
            "the fitted map has NaN or infinite entries; expected finite values. Raise recipe.transform.fit.epsilon."
        )
    # The length bounds every component, including components that happen to be small in a small or uniform sample.
    lengths = row_lengths(sample)
    input_bound = float(lengths.max(initial=0.0))
    if not (0.0 < input_bound < math.inf):
        raise FitError(
            f"the longest of the {len(sample)} raw vectors of the sample has length {input_bound}; expected a positive "
            "finite length. Embed a corpus with readable text first."
        )
    integer_bits = _bits(input_bound * _HEADROOM)
    typical = float(np.sqrt((lengths**2).mean()))
    bits = min(_INPUT_BITS, key=lambda t: _rounding_variance(matrix, offsets, t, t - integer_bits, typical))
    limbs = 1
    variance = _rounding_variance(matrix, offsets, bits, bits - integer_bits, typical)
    if variance > 2 * _MAX_COSINE_ERROR * _short_squared_length(matrix, offsets, sample):
        bits, limbs = 2 * LIMB_BITS, 2
    input_exponent = bits - integer_bits
    exponents, integers, fixed_offsets = _round_rows(matrix, offsets, bits, input_exponent, limbs)
    # The Cauchy-Schwarz inequality bounds the output of any vector of that length, even if the sample is uniform. For a
    # steep map the bound is far too large, and a wide grid is a coarse grid. Hence the cap.
    reach = float(np.linalg.norm(matrix, axis=1).max()) * input_bound + float(np.abs(offsets).max())
    output_bound = min(reach, _MAX_OUTPUT_HEADROOM * _largest_output(matrix, offsets, sample))
    output_exponent = OUTPUT_BITS - _bits(output_bound)
    affine = AffineMap(integers, exponents, fixed_offsets, input_exponent, output_exponent, bits, limbs)
    _require_fine(affine, matrix, offsets, sample)
    return affine


def _require_fine(affine: AffineMap, matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> None:
    """Check that the grids keep most vectors: a few very long ones would make them too coarse for all others."""
    measured = np.asarray(sample[:_MEASURED_ROWS], np.float32)
    exact = measured.astype(np.float64) @ matrix.T + offsets[0]
    rounded, _ = apply_affine(affine, measured, role="document", normalize=False)
    lengths = np.linalg.norm(exact, axis=1)
    # A vector that equals the mean of its role becomes zero but for rounding.
    present = lengths > _NEGLIGIBLE * np.linalg.norm(measured.astype(np.float64), axis=1) * np.abs(matrix).max()
    errors = np.linalg.norm(rounded - exact, axis=1)
    coarse = int((errors > _MAX_RELATIVE_ERROR * lengths)[present].sum())
    if 2 * coarse > int(present.sum()):
        raise FitError(
            f"the grids of the fitted map, which hold vectors of length {float(row_lengths(sample).max()):.3g}, are "
            f"too coarse for {coarse} of {len(measured)} vectors of the sample: they would be off by more than "
            f"{_MAX_RELATIVE_ERROR:.0%}. Remove the texts with the longest raw vectors, or check the encoder's output."
        )


def row_lengths(vectors: npt.NDArray[Any], *, block_rows: int = 8192) -> Float64:
    """Return the (n,) float64 Euclidean lengths of the rows of (n, d) vectors."""
    blocks = [
        np.linalg.norm(np.asarray(vectors[start : start + block_rows], np.float64), axis=1)
        for start in range(0, len(vectors), block_rows)
    ]
    return np.concatenate([np.zeros(0), *blocks])


def _bits(bound: float) -> int:
    """Return how many integer bits hold `bound`."""
    # A length of 1.0000001 counts as 1, since it comes from rounding.
    return math.ceil(math.log2(bound) - 1e-3)


def _row_exponents(
    matrix: Float64, offsets: Float64, bits: int, input_exponent: int, limbs: int = 1
) -> npt.NDArray[np.int64]:
    """Return the largest exponent of each row for which its exact sums stay below 2**53."""
    product_bits = bits_per_product(bits, limbs)
    offset_scale = 2.0 ** (input_exponent - bits + product_bits)
    reach = np.abs(matrix).sum(axis=1) * 2.0**product_bits + np.abs(offsets).max(axis=0) * offset_scale
    # One spare bit, because each of the d integers may be rounded up.
    spare = EXACT_BITS - 2 - np.ceil(np.log2(np.maximum(reach, 2.0**-200)))
    exponents: npt.NDArray[np.int64] = np.clip(spare, -200, 60).astype(np.int64)
    return exponents


def _rounding_variance(matrix: Float64, offsets: Float64, bits: int, input_exponent: int, length: float) -> float:
    """Return the variance that rounding X and N adds to the result for a vector of the given length."""
    exponents = _row_exponents(matrix, offsets, bits, input_exponent)
    by_input = float((matrix**2).sum()) * 4.0**-input_exponent
    by_rows = float((4.0 ** -exponents.astype(np.float64)).sum()) * length**2
    return (by_input + by_rows) / 12.0


def _short_squared_length(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> float:
    """Return the first percentile of the squared lengths of the results for the first rows of the sample."""
    results = np.asarray(sample[:_MEASURED_ROWS], np.float64) @ matrix.T + offsets[0]
    return float(np.quantile((results**2).sum(axis=1), 0.01))


def _round_rows(
    matrix: Float64, offsets: Float64, bits: int, input_exponent: int, limbs: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    exponents = _row_exponents(matrix, offsets, bits, input_exponent, limbs)
    integers = np.rint(np.ldexp(matrix, exponents[:, None])).astype(np.int64)
    unit = input_exponent - bits + bits_per_product(bits, limbs)
    fixed_offsets = np.rint(np.ldexp(offsets, unit + exponents)).astype(np.int64)
    return exponents, integers, fixed_offsets


def _largest_output(matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> float:
    """Return the largest |y| of the sample in either role; FitError if all document vectors become zero."""
    largest, scale = np.zeros(len(offsets)), 0.0
    for start in range(0, len(sample), 8192):
        block = np.asarray(sample[start : start + 8192], dtype=np.float64)
        results = block @ matrix.T
        largest = np.maximum(largest, [np.abs(results + offset).max() for offset in offsets])
        scale = max(scale, float(np.abs(block).max() * np.abs(matrix).max()))
    if largest[0] > 1e-6 * scale:
        return float(largest.max())
    raise FitError(
        f"the fitted map sends all {len(sample)} vectors of the sample to zero, because every text has the same "
        "vector, or all but a few very long ones. Embed a more varied corpus, or use fit kind none."
    )
