"""Fit the affine map of a space: a pure function of moments and a specification.

Source of ZCA whitening with a ridge: Bell and Sejnowski 1997; Kessy, Lewin and Strimmer, "Optimal
whitening and decorrelation", 2018.  W = V (L + e I)^(-1/2) V^T with e = shrinkage x mean eigenvalue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.affine import ROLES, AffineMap, Float64, fix_point, identity_matrix
from isospace.config import WhiteningSpec
from isospace.errors import FitError
from isospace.moments import Moments

# Below this share of the largest eigenvalue a direction carries float32 rounding noise alone.
_RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted affine map in float64, with what one wants to know about the fit.

    Attributes
    ----------
    matrix
        (k, d) float64.
    offsets
        (2, k) float64, by role.
    diagnostics
        Figures for the report: n, d, n/d, rank, condition number, epsilon.
    """

    matrix: Float64
    offsets: Float64
    diagnostics: dict[str, float]


def fit(moments: Moments, spec: WhiteningSpec, *, min_ratio: float) -> Fit:
    """Fit centring or whitening.

    Parameters
    ----------
    moments
        Of the raw vectors of the sample.
    spec
        `recipe.transform.whitening`.
    min_ratio
        Smallest allowed n/d for a kind that estimates a covariance.

    Returns
    -------
    Fit

    Raises
    ------
    FitError
        If the sample is too small for its dimension and the specification does not allow it, or the
        covariance is singular and nothing is added to its spectrum.
    """
    dimension = len(moments.mean)
    diagnostics = {"n": float(moments.count), "d": float(dimension), "n_per_d": moments.count / dimension}
    match spec.kind:
        case "none":
            return Fit(identity_matrix(dimension), np.zeros((len(ROLES), dimension)), diagnostics)
        case "center":
            return Fit(identity_matrix(dimension), np.tile(-moments.mean, (len(ROLES), 1)), diagnostics)
        case "zca":
            _require_enough(moments.count, dimension, min_ratio=min_ratio, allowed=spec.allow_small_sample)
            matrix, spectrum = _zca(moments.covariance, spec.shrinkage)
            offsets = np.tile(-matrix @ moments.mean, (len(ROLES), 1))
            return Fit(matrix, offsets, diagnostics | spectrum)


def fit_affine(fitted: Fit, sample: npt.NDArray[Any]) -> AffineMap:
    """Put a fit on the integer grids whose bounds come from the (n, d) `sample`."""
    return fix_point(fitted.matrix, fitted.offsets, sample)


def _require_enough(count: int, dimension: int, *, min_ratio: float, allowed: bool) -> None:
    if count >= min_ratio * dimension or allowed:
        return
    raise FitError(
        f"whitening kind zca: the sample has {count} vectors of {dimension} dimensions, n/d = {count / dimension:.1f}; "
        f"expected at least {min_ratio:g}. Embed more text, raise recipe.transform.sample.size, use kind center or none, "
        "or set recipe.transform.whitening.allow_small_sample=true with a shrinkage of 1 or more."
    )


def _zca(covariance: Float64, shrinkage: float) -> tuple[Float64, dict[str, float]]:
    eigenvalues, eigenvectors = np.linalg.eigh(covariance)
    largest = float(eigenvalues[-1])
    mean = float(eigenvalues.mean())
    rank = int((eigenvalues > largest * _RANK_TOLERANCE).sum())
    epsilon = shrinkage * mean
    if largest <= 0.0 or (rank < len(eigenvalues) and epsilon <= largest * _RANK_TOLERANCE):
        raise FitError(
            f"whitening kind zca: the covariance has rank {rank} of {len(eigenvalues)} and shrinkage is {shrinkage:g}, so "
            "its inverse root is not finite. Set recipe.transform.whitening.shrinkage to 0.001 or more."
        )
    # Rounding can leave a null direction slightly negative.
    ridged = np.maximum(eigenvalues, 0.0) + epsilon
    matrix = (eigenvectors / np.sqrt(ridged)) @ eigenvectors.T
    figures = {"rank": float(rank), "epsilon": epsilon, "condition_number": float(np.sqrt(ridged[-1] / ridged[0]))}
    return (matrix + matrix.T) / 2, figures
