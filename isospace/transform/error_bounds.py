"""Bound and measure how far the exact transform is from the fitted map in float64.

Let A, b be the fitted map, A', b' the map that the integers represent, and d(x), d(y) the rounding of the input and the
output. Then

    |y' - y| <= |A' - A| |x| + |A'| |d(x)| + |b' - b| + |d(y)|

in spectral and Euclidean norms, for any x that is not clipped. Divided by |y| this is an angle r. The cosine with the
float64 result is at least 1 - r**2 / 2, and no component of the unit vector is off by more than r.
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
_MEASURED_ROWS = 2048


def error_bound(affine: AffineMap, matrix: Float64, offsets: Float64, sample: npt.NDArray[Any]) -> dict[str, float]:
    """Bound the rounding error of unit vectors, and measure it.

    Parameters
    ----------
    affine
        The map on its integer grids.
    matrix, offsets
        (k, d) and (2, k) float64: the map as it was fitted.
    sample
        (n, d) raw vectors.

    Returns
    -------
    dict
        `angle_bound`, in radians, for a transformed vector whose length is the first percentile of the sample's;
        `cosine_error_bound` and `component_error_bound`, derived from it; `cosine_error` and `component_error`,
        measured on the first rows of the sample.
    """
    stored = np.ldexp(affine.matrix.astype(np.float64), -affine.row_exponents[:, None])
    shifts = stored_offsets(affine)
    measured = np.asarray(sample[:_MEASURED_ROWS], np.float64)
    rows, columns = matrix.shape
    longest = float(row_lengths(measured).max(initial=0.0))
    rounding = (
        spectral_bound(stored - matrix) * longest
        + spectral_bound(stored) * np.sqrt(columns) * 2.0 ** -(affine.input_exponent + 1)
        + float(np.linalg.norm(shifts - offsets, axis=1).max())
        + np.sqrt(rows) * 2.0 ** -(affine.output_exponent + 1)
    )
    exact = measured @ matrix.T + offsets[ROLES.index("document")]
    lengths = np.linalg.norm(exact, axis=1)
    short = float(np.quantile(lengths, 0.01))
    angle = float(rounding / short) if short > 0 else float("inf")
    rounded, _ = apply_affine(affine, np.asarray(sample[:_MEASURED_ROWS], np.float32), role="document", normalize=True)
    usable = lengths >= short
    unit = exact[usable] / np.where(lengths == 0, 1.0, lengths)[usable, None]
    ours = rounded[usable].astype(np.float64)
    cosines = (unit * ours).sum(axis=1) / np.maximum(np.linalg.norm(ours, axis=1), 1e-300)
    return {
        "angle_bound": angle,
        "cosine_error_bound": angle**2 / 2,
        "component_error_bound": angle + _FLOAT32_ROUNDING,
        "cosine_error": max(float((1.0 - cosines).max()), 0.0),
        "component_error": float(np.abs(unit - ours).max()),
    }


def spectral_bound(matrix: Float64) -> float:
    """Return |(M M^T)^4|_F^(1/8), an upper bound of the spectral norm of M within a factor of k**(1/16)."""
    scale = float(np.abs(matrix).max(initial=0.0))
    if scale == 0.0:
        return 0.0
    power = matrix / scale
    power = power @ power.T if power.shape[0] <= power.shape[1] else power.T @ power
    size = float(np.linalg.norm(power))
    squared = power / size
    squared = squared @ squared
    fourth = squared @ squared
    # |S^4|_F^(1/4) is an upper bound of the largest eigenvalue of the symmetric matrix S.
    return scale * float(np.sqrt(size * np.linalg.norm(fourth) ** 0.25))
