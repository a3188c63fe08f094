"""Fit the affine map of a space: a pure function of the sample's moments and a specification.

With the covariance's eigenvalues L and eigenvectors V, and m the mean of a role:

    center            y = x - m
    zscore            y = (x - m) / s                  s: standard deviations
    minmax            y = (x - low) / (high - low)
    zca               y = V (L + e I)^-a V^T (x - m)   a = 1/2 whitens; e = epsilon x mean eigenvalue
    pca_whitening     y = (L + e I)^-a V^T (x - m)     the first k components
    pca               y = V^T (x - m)                  the first k components
    all_but_the_top   y = (I - U U^T) (x - m)          U: the first D components

Sources: Kessy, Lewin and Strimmer, "Optimal whitening and decorrelation", 2018; Mu and Viswanath, "All-but-the-top",
2018; Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004; Chen, Wiesel,
Eldar and Hero, "Shrinkage algorithms for MMSE covariance estimation", 2010 (OAS).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError
from isospace.transform.affine import ROLES, AffineMap
from isospace.transform.fixed_point import to_fixed_point
from isospace.transform.moments import Moments, fourth_moment, stream_moments
from isospace.transform.sample_checks import require_usable
from isospace.transform.spec import FitSpec
from isospace.transform.vectors import Float64

# Below this share of the largest eigenvalue a direction carries float32 rounding noise alone.
_RANK_TOLERANCE = 1e-10
_COVARIANCE_KINDS = ("zca", "pca_whitening", "pca", "all_but_the_top")
_HELD_OUT_SHARE = 5
# Held-out variance of a whitened coordinate is ideally 1.
_LARGE_HELD_OUT_VARIANCE = 10.0


@dataclass(frozen=True, slots=True)
class Estimates:
    """Statistics of the sample that fits are computed from.

    Attributes
    ----------
    dimension
        d of the raw vectors, before truncation.
    moments
        Moments of the sample's raw vectors, truncated to t dimensions.
    query_mean
        (t,) float64 mean of the queries' raw vectors; None without queries.
    fourth
        Sum of |x - m|^4 over the sample.
    low, high
        (t,) float64 smallest and largest values of the sample.
    """

    dimension: int
    moments: Moments
    query_mean: Float64 | None
    fourth: float
    low: Float64
    high: Float64

    def with_queries(self, queries: npt.NDArray[Any]) -> Estimates:
        """Return the estimates with the mean of the (m, d) raw vectors of other queries; FitError as in `estimate`."""
        return replace(self, query_mean=_mean(queries, len(self.moments.mean)))


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted affine map in float64, with diagnostics.

    Attributes
    ----------
    matrix
        (k, d) float64.
    offsets
        (2, k) float64, one row per role.
    diagnostics
        Figures for the report: n, d, n/d, rank, epsilon, shrinkage, condition number, spectrum.
    """

    matrix: Float64
    offsets: Float64
    diagnostics: dict[str, Any]
    warnings: tuple[str, ...] = ()


def estimate(
    sample: npt.NDArray[Any], queries: npt.NDArray[Any] | None = None, *, truncate: int | None = None
) -> Estimates:
    """Compute the statistics that fits are computed from.

    Parameters
    ----------
    sample
        (n, d) raw vectors of documents.
    queries
        (m, d) raw vectors of queries, if there are any.
    truncate
        Number of leading dimensions to keep; None keeps all.

    Raises
    ------
    FitError
        If vectors hold NaN, infinity, or components that are too large; says how many vectors.
    """
    require_usable(sample, "raw vectors of the sample")
    dimension = sample.shape[1]
    truncated = truncate or dimension
    moments = stream_moments(sample[:, :truncated])
    mean = None if queries is None or not len(queries) else _mean(queries, truncated)
    ranges = (np.asarray(extreme(sample[:, :truncated], axis=0), np.float64) for extreme in (np.min, np.max))
    return Estimates(dimension, moments, mean, fourth_moment(sample, moments.mean), *ranges)


def fit(estimates: Estimates, spec: FitSpec, *, min_ratio: float) -> Fit:
    """Fit one affine map.

    Parameters
    ----------
    estimates
        Statistics of the sample.
    spec
        The kind of map and its parameters.
    min_ratio
        Smallest allowed n/d for a kind that estimates a covariance.

    Returns
    -------
    Fit
        The matrix is (k, d), with zeros for truncated dimensions, and finite for any sample. Directions in which the
        sample does not vary are left out, with a warning.

    Raises
    ------
    FitError
        If the sample is too small for its dimension and the specification does not allow that, if k exceeds d, or if
        the specification needs the mean of the queries and there are no queries.
    """
    moments = estimates.moments
    truncated = len(moments.mean)
    require_sample(moments.count, truncated, spec, min_ratio=min_ratio)
    matrix, figures, warnings = _matrix(estimates, spec)
    if spec.kind == "none":
        offsets = np.zeros((len(ROLES), len(matrix)))
    elif spec.kind == "minmax":
        offsets = np.tile(-matrix @ estimates.low, (len(ROLES), 1))
    else:
        offsets = np.stack([-matrix @ mean for mean in _means(estimates, spec)])
    padded = np.zeros((len(matrix), estimates.dimension))
    padded[:, :truncated] = matrix
    ratio = {"n": moments.count, "d": truncated, "k": len(matrix), "n_per_d": moments.count / truncated}
    return Fit(padded, offsets, {**ratio, **figures}, tuple(warnings))


def fit_affine(fitted: Fit, sample: npt.NDArray[Any]) -> AffineMap:
    """Round a fit to integer grids whose bounds come from the (n, d) `sample`."""
    return to_fixed_point(fitted.matrix, fitted.offsets, sample)


def held_out_variance(
    sample: npt.NDArray[Any], spec: FitSpec, *, truncate: int | None = None
) -> dict[str, float] | None:
    """Fit on four fifths of a sample, and measure the whitened coordinates of the other fifth.

    Returns
    -------
    dict or None
        Smallest, mean, and largest ratio of the held-out variance along an eigenvector to the fitted eigenvalue. The
        ideal is 1; a large ratio means that the fit underestimated the variance of a direction. None for a kind that
        does not divide by eigenvalues.

    Raises
    ------
    FitError
        As in `estimate`.
    """
    if spec.kind not in ("zca", "pca_whitening") or len(sample) < 2 * _HELD_OUT_SHARE:
        return None
    require_usable(sample, "raw vectors of the sample")
    vectors = np.asarray(sample[:, : truncate or sample.shape[1]], np.float64)
    held_out = np.arange(len(vectors)) % _HELD_OUT_SHARE == 0
    moments = stream_moments(vectors[~held_out])
    spectrum = _spectrum(moments, fourth_moment(vectors[~held_out], moments.mean), spec)
    used = spectrum.varying[-(spec.dimensions or len(spectrum.varying)) :]
    coordinates = (vectors[held_out] - moments.mean) @ spectrum.vectors[:, used]
    ratios = coordinates.var(axis=0) / spectrum.ridged[used]
    if not len(ratios):
        return None
    return {"smallest": float(ratios.min()), "mean": float(ratios.mean()), "largest": float(ratios.max())}


def held_out_warnings(variance: dict[str, float] | None) -> list[str]:
    """Return a warning if the `held_out_variance` shows that the fit underestimated a direction."""
    if variance is None or variance["largest"] <= _LARGE_HELD_OUT_VARIANCE:
        return []
    return [
        f"whitened coordinates of held-out texts have a variance of up to {variance['largest']:.3g}; the ideal is 1. "
        "The sample is too small for such a steep fit. Raise recipe.transform.sample.size or "
        "recipe.transform.fit.epsilon, or lower recipe.transform.fit.exponent."
    ]


@dataclass(frozen=True, slots=True)
class _Spectrum:
    """Eigenvalues (ascending), plain and regularized; eigenvectors as columns; varying directions."""

    values: Float64
    ridged: Float64
    vectors: Float64
    varying: npt.NDArray[np.int64]
    epsilon: float
    shrinkage: float


def _spectrum(moments: Moments, fourth: float, spec: FitSpec) -> _Spectrum:
    eigenvalues, vectors = np.linalg.eigh(moments.covariance)
    # Rounding can leave a null direction slightly negative.
    eigenvalues = np.maximum(eigenvalues, 0.0)
    mean = float(eigenvalues.mean())
    shrinkage = _shrinkage(eigenvalues, moments.count, fourth, spec.covariance)
    epsilon = spec.epsilon * mean
    ridged = (1.0 - shrinkage) * eigenvalues + shrinkage * mean + epsilon
    # A direction without variance has no scale. Dividing by it would amplify noise, so it is left out.
    varies = eigenvalues > float(eigenvalues[-1]) * _RANK_TOLERANCE
    varying = np.flatnonzero(varies & (ridged > 0))
    return _Spectrum(eigenvalues, ridged, vectors, varying, epsilon, shrinkage)


def _shrinkage(eigenvalues: Float64, count: int, fourth: float, covariance: str) -> float:
    """Return the weight of the identity in the estimate, from 0 to 1, computed with 1/n as in the papers."""
    dimension, biased = len(eigenvalues), eigenvalues * (max(count - 1, 0) / max(count, 1))
    squares, trace = float((biased**2).sum()), float(biased.sum())
    spread = squares - trace**2 / dimension
    if covariance == "sample":
        return 0.0
    if spread <= 0 or not count:
        return 1.0
    if covariance == "ledoit_wolf":
        return float(np.clip((fourth / count - squares) / count / spread, 0.0, 1.0))
    # Without the factors 1 - 2/d of the paper, as in scikit-learn.
    return float(min(1.0, (squares + trace**2) / ((count + 1) * spread)))


def _matrix(estimates: Estimates, spec: FitSpec) -> tuple[Float64, dict[str, Any], list[str]]:
    moments = estimates.moments
    dimension = len(moments.mean)
    match spec.kind:
        case "none" | "center":
            return np.eye(dimension), {}, []
        case "zscore":
            return _scaled(np.sqrt(np.diagonal(moments.covariance)), "standard deviation")
        case "minmax":
            return _scaled(estimates.high - estimates.low, "range")
    spectrum = _spectrum(moments, estimates.fourth, spec)
    wanted = spec.dimensions or dimension
    if wanted > dimension:
        raise FitError(
            f"fit kind {spec.kind}: dimensions = {wanted} exceeds the {dimension} of the raw vectors. Lower "
            "recipe.transform.fit.dimensions."
        )
    if spec.kind == "all_but_the_top" and spec.components >= dimension:
        raise FitError(
            f"fit kind {spec.kind}: components = {spec.components} leaves nothing of {dimension} dimensions. Lower "
            "recipe.transform.fit.components."
        )
    matrix, used = _eigen_matrix(spectrum, spec, wanted)
    used_values = spectrum.ridged[used]
    power = 2 * spec.exponent if spec.kind in ("zca", "pca_whitening") else 0.0
    figures = {
        "rank": len(spectrum.varying),
        "epsilon": spectrum.epsilon,
        "shrinkage": spectrum.shrinkage,
        "condition_number": float((used_values.max() / used_values.min()) ** (power / 2)) if len(used) else 0.0,
        "spectrum": [float(f"{value:.6g}") for value in spectrum.values[::-1]],
    }
    missing = dimension - len(spectrum.varying)
    warnings = []
    if missing and (len(used) < wanted or spec.kind == "zca"):
        warnings.append(
            f"the sample varies in {len(spectrum.varying)} of {dimension} directions; the other {missing} are left out "
            f"of the {spec.kind} fit, so texts that differ only there get equal vectors. Use a larger sample if you "
            "can."
        )
    return matrix, figures, warnings


def _eigen_matrix(spectrum: _Spectrum, spec: FitSpec, wanted: int) -> tuple[Float64, npt.NDArray[np.int64]]:
    """Return the (k, d) matrix, and the indices of the eigenvectors that it uses."""
    vectors, varying = spectrum.vectors, spectrum.varying
    match spec.kind:
        case "zca":
            basis = vectors[:, varying]
            full = (basis * spectrum.ridged[varying] ** -spec.exponent) @ basis.T
            return (full + full.T) / 2, varying
        case "all_but_the_top":
            top = vectors[:, max(len(vectors) - spec.components, 0) :]
            return np.eye(len(vectors)) - top @ top.T, varying
        case _:
            # Eigenvalues in descending order. The largest entry fixes each sign, which eigh leaves undefined.
            used = varying[::-1][:wanted]
            rows = vectors[:, used].T
            rows = rows * np.sign(rows[np.arange(len(rows)), np.abs(rows).argmax(axis=1)])[:, None]
            if spec.kind == "pca_whitening":
                rows = rows * (spectrum.ridged[used] ** -spec.exponent)[:, None]
            # The recipe sets k. Rows for directions without variance are zero.
            matrix = np.zeros((wanted, len(vectors)))
            matrix[: len(rows)] = rows
            return matrix, used


def _scaled(scale: Float64, what: str) -> tuple[Float64, dict[str, Any], list[str]]:
    dead = scale <= float(scale.max(initial=0.0)) * np.sqrt(_RANK_TOLERANCE)
    factors = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, scale))
    live = scale[~dead]
    warnings = []
    if dead.any():
        warnings.append(
            f"{int(dead.sum())} of {len(scale)} dimensions have a {what} of zero in the sample and become zero."
        )
    figures = {
        "rank": int((~dead).sum()),
        "condition_number": float(live.max() / live.min()) if len(live) else 0.0,
    }
    return np.diag(factors), figures, warnings


def _mean(queries: npt.NDArray[Any], dimension: int) -> Float64:
    require_usable(queries, "raw vectors of queries")
    mean: Float64 = np.asarray(queries[:, :dimension], np.float64).mean(axis=0)
    return mean


def _means(estimates: Estimates, spec: FitSpec) -> tuple[Float64, Float64]:
    documents = estimates.moments.mean
    if spec.means == "shared":
        return documents, documents
    if estimates.query_mean is None:
        raise FitError(
            "recipe.transform.fit.means=by_role needs queries, and there are none. Give "
            "recipe.transform.queries.file, or a corpus from which pseudo-queries can be generated."
        )
    return documents, estimates.query_mean


def require_sample(count: int, dimension: int, spec: FitSpec, *, min_ratio: float) -> None:
    """Check that a sample of `count` vectors is large enough to estimate a covariance.

    Raises
    ------
    FitError
        If it is too small and the specification does not allow a small sample.
    """
    if spec.kind not in _COVARIANCE_KINDS or count >= min_ratio * dimension or spec.allow_small_sample:
        return
    raise FitError(
        f"fit kind {spec.kind}: the sample has {count} vectors of {dimension} dimensions, n/d = "
        f"{count / dimension:.1f}; expected at least {min_ratio:g}. Embed more text, raise "
        "recipe.transform.sample.size, use kind center or none, or set recipe.transform.fit.allow_small_sample=true "
        "with covariance=oas, an epsilon of 1, or an exponent of 0.15."
    )
