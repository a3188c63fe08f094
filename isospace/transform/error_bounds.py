"""How far the exact transform is from the fitted map in float64: a bound, and what was seen on the sample.

With A, b the fitted map and A', b' what the integers stand for, d(x) the rounding of the input and d(y) that of the
output,

    |y' - y| <= |A' - A| |x| + |A'| |d(x)| + |b' - b| + |d(y)|

in spectral and Euclidean norms, for any x that is not clipped. Relative to |y| that is an angle r; the cosine with the
float64 result is then at least 1 - r**2 / 2, and no component of the unit vector is off by more than r.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.transform.affine import ROLES, AffineMap, apply_affine, stored_offsets
from isospace.transform.fixed_point import row_lengths
from isospace.transform.vectors import Float64

# What float32 rounds off the unit vector at the end; half a unit in the last place of a component below 1.
_FLOAT32_ROUNDING = 2.0**-25
_SEEN = 2048


def error_bound(affine: AffineMap, matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> dict[str, float]:
    """Bound the rounding error of unit vectors, and measure it.

    Parameters
    ----------
    affine
        The map on its grids.
    matrix, offsets
        (k, d) and (2, k) float64: the map that was fitted.
    sample
        (n, d) raw vectors.

    Returns
    -------
    dict
        `angle_bound`: for the sample's shortest transformed vector of 99 per cent, in radians; `cosine_error_bound` and
        `component_error_bound` from it; `cosine_error` and `component_error` as seen, on some of the sample.
    """
    stored = np.ldexp(affine.matrix.astype(np.float64), -affine.row_exponents[:, None])
    shifts = stored_offsets(affine)
    seen = np.asarray(sample[:_SEEN], np.float64)
    rows, columns = matrix.shape
    longest = float(row_lengths(seen).max(initial=0.0))
    rounding = (
        spectral_bound(stored - matrix) * longest
        + spectral_bound(stored) * np.sqrt(columns) * 2.0 ** -(affine.input_exponent + 1)
        + float(np.linalg.norm(shifts - offsets, axis=1).max())
        + np.sqrt(rows) * 2.0 ** -(affine.output_exponent + 1)
    )
    exact = seen @ matrix.T + offsets[ROLES.index("document")]
    lengths = np.linalg.norm(exact, axis=1)
    short = float(np.quantile(lengths, 0.01))
    angle = float(rounding / short) if short > 0 else float("inf")
    found, _ = apply_affine(affine, np.asarray(sample[:_SEEN], np.float32), role="document", normalize=True)
    usable = lengths >= short
    unit, ours = exact[usable] / np.where(lengths == 0, 1.0, lengths)[usable, None], found[usable].astype(np.float64)
    cosines = (unit * ours).sum(axis=1) / np.maximum(np.linalg.norm(ours, axis=1), 1e-300)
    return {
        "angle_bound": angle,
        "cosine_error_bound": angle**2 / 2,
        "component_error_bound": angle + _FLOAT32_ROUNDING,
        "cosine_error": max(float((1.0 - cosines).max()), 0.0),
        "component_error": float(np.abs(unit - ours).max()),
    }


def spectral_bound(matrix: Float64) -> float:
    """Return an upper bound of a matrix's spectral norm, within k**(1/16) of it: |(M M^T)^4|_F^(1/8)."""
    scale = float(np.abs(matrix).max(initial=0.0))
    if scale == 0.0:
        return 0.0
    power = matrix / scale
    power = power @ power.T if power.shape[0] <= power.shape[1] else power.T @ power
    size = float(np.linalg.norm(power))
    squared = power / size
    squared = squared @ squared
    fourth = squared @ squared
    # Frobenius norms of powers: |S^4|_F^(1/4) bounds the largest eigenvalue of the symmetric S.
    return scale * float(np.sqrt(size * np.linalg.norm(fourth) ** 0.25))
