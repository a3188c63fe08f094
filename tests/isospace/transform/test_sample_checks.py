"""Numbers at the edge: a fit either keeps the vectors of its sample, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest
from pydantic import TypeAdapter

from isospace.errors import FitError
from isospace.transform.affine import apply_affine
from isospace.transform.fit import estimate, fit, fit_affine, held_out_variance
from isospace.transform.quantizer_set import dequantize, fit_quantizers, quantize, quantizer_arrays
from isospace.transform.quantizer_set import quantizers_from_arrays as load
from isospace.transform.representations import RepresentationSpec
from isospace.transform.spec import FitSpec
from isospace.transform.vectors import row_cosines

FITS = [
    FitSpec(),
    FitSpec(kind="center"),
    FitSpec(kind="zscore"),
    FitSpec(kind="minmax"),
    FitSpec(kind="zca"),
    FitSpec(kind="zca", exponent=0.15),
    FitSpec(kind="pca_whitening", dimensions=6),
    FitSpec(kind="all_but_the_top"),
]
fits = pytest.mark.parametrize("spec", FITS, ids=lambda spec: spec.describe())
SPECS = TypeAdapter(tuple[RepresentationSpec, ...]).validate_python(
    [
        "float32",
        "float16",
        "int8",
        {"kind": "int8", "name": "int8_affine", "range": "affine"},
        {"kind": "int8", "name": "int8_all", "range": "affine", "percentile": 100, "granularity": "global"},
        {"kind": "int8", "name": "int8_vector", "granularity": "vector", "range": "affine"},
        "binary",
        {"kind": "binary", "name": "rotated", "rotation": True, "threshold": "median"},
        "rabitq",
        {"kind": "pq", "subvectors": 4},
        {"kind": "opq", "subvectors": 4},
        {"kind": "short", "dimensions": 4},
        {"kind": "short", "name": "leading", "dimensions": 4, "basis": "leading"},
    ]
)
specs = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
Vectors = np.ndarray
T = TypeVar("T")


def cloud(n: int = 600, d: int = 16) -> Vectors:
    return np.random.default_rng(3).normal(size=(n, d)).astype(np.float32)


def scaled(scale: float) -> Vectors:
    """Vectors of any scale that float32 holds; the largest components are cut off."""
    largest = float(np.finfo(np.float32).max)
    return np.clip(cloud().astype(np.float64) * scale, -largest, largest).astype(np.float32)


def attempt(make: Callable[[], T]) -> tuple[T | None, str]:
    """Return what a fit gives, or the message of its refusal."""
    try:
        return make(), ""
    except FitError as error:
        return None, str(error)


def one_nan(vectors: Vectors) -> None:
    vectors[7, 3] = np.nan


def rows_of_infinity(vectors: Vectors) -> None:
    vectors[[1, 5, 9]] = np.inf


def both_signs(vectors: Vectors) -> None:
    vectors[2, 0], vectors[4, 1], vectors[4, 2] = np.inf, -np.inf, np.nan


BROKEN = {one_nan: 1, rows_of_infinity: 3, both_signs: 2}
USES: dict[str, Callable[[Vectors], object]] = {
    "sample": estimate,
    "truncated": lambda vectors: estimate(vectors, truncate=2),
    "queries": lambda vectors: estimate(cloud(), vectors),
    "other queries": lambda vectors: estimate(cloud()).with_queries(vectors),
    "held out": lambda vectors: held_out_variance(vectors, FitSpec(kind="zca")),
    "grids": lambda vectors: fit_affine(fit(estimate(cloud()), FitSpec(), min_ratio=0), vectors),
    **{spec.name: lambda vectors, spec=spec: fit_quantizers(vectors, (spec,)) for spec in SPECS},
}
uses = pytest.mark.parametrize("use", USES.values(), ids=USES)


@uses
@pytest.mark.parametrize("damage", BROKEN, ids=lambda damage: damage.__name__)
def test_vectors_that_are_not_finite_are_refused_with_their_number(
    use: Callable[[Vectors], object], damage: Callable[[Vectors], None]
) -> None:
    vectors = cloud()
    damage(vectors)
    with pytest.raises(FitError, match=f"{BROKEN[damage]} of 600 .* hold NaN or infinity; expected finite"):
        use(vectors)


@uses
@pytest.mark.parametrize("scale", [1e13, 1e19, 2e38])
def test_vectors_whose_squares_overflow_are_refused_before_anything_is_fitted(
    use: Callable[[Vectors], object], scale: float
) -> None:
    with pytest.raises(FitError, match=r"of 600 .* have components of up to .*; expected at most 1\.1e\+12"):
        use(scaled(scale))


@fits
@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1e-6, 1.0, 1e6, 1e11])
def test_a_map_keeps_directions_at_every_scale_that_is_accepted(spec: FitSpec, scale: float) -> None:
    vectors = scaled(scale)
    found = fit(estimate(vectors), spec, min_ratio=0)
    affine = fit_affine(found, vectors)
    results, clipped = apply_affine(affine, vectors, role="document", normalize=True)
    assert clipped == 0
    exact = vectors.astype(np.float64) @ found.matrix.T + found.offsets[0]
    assert row_cosines(results, exact).min() > 0.9999


@fits
def test_one_vector_that_makes_the_grids_too_coarse_for_all_others_is_refused(spec: FitSpec) -> None:
    vectors = cloud()
    vectors[11] = 1e12
    found = fit(estimate(vectors), spec, min_ratio=0)
    affine, refusal = attempt(lambda: fit_affine(found, vectors))
    if affine is None:
        assert "too coarse for" in refusal or "to zero" in refusal
        return
    results, _ = apply_affine(affine, vectors, role="document", normalize=True)
    exact = vectors.astype(np.float64) @ found.matrix.T + found.offsets[0]
    assert np.median(row_cosines(results, exact)) > 0.999


@specs
@pytest.mark.parametrize("scale", [1e-42, 1e-37, 1e-20, 1e-9, 1e-3, 1.0, 1e4, 1e7, 1e11])
def test_a_quantizer_keeps_most_vectors_or_is_refused(spec: RepresentationSpec, scale: float) -> None:
    vectors = scaled(scale)
    quantizers, refusal = attempt(lambda: fit_quantizers(vectors, (spec,)))
    if quantizers is None:
        assert not 1e-3 <= scale <= 1e4
        assert spec.name in refusal or "a quantizer with a rotation" in refusal
        return
    assert all(np.isfinite(array).all() for array in quantizer_arrays(quantizers).values())
    again = load((spec,), 16, quantizer_arrays(quantizers))
    decoded = dequantize(again, quantize(again, vectors, spec.name), spec.name)
    assert np.isfinite(decoded).all()
    if spec.name != "rotated" or scale <= 1.0:
        # Bits decode to 1 / sqrt(k) around the threshold, which is small beside the threshold of long vectors.
        assert np.median(row_cosines(decoded, vectors)) > 0.2


@pytest.mark.parametrize(
    ("name", "scale", "says"),
    [
        ("float16", 1e-9, "nothing is left of 600 of 600 vectors"),
        ("float16", 3e5, "components of the sample are beyond its range"),
        ("pq4", 1e-9, r"has length .*; a quantizer with a rotation or codebooks needs 3\.05e-05"),
        ("rabitq", 1e-20, "a quantizer with a rotation"),
        ("int8", 1e-38, "nothing is left of 600"),
        ("int8_affine", 1e-38, "nothing is left of"),
    ],
)
def test_what_a_representation_cannot_hold_is_said(name: str, scale: float, says: str) -> None:
    spec = next(spec for spec in SPECS if spec.name == name)
    with pytest.raises(FitError, match=says):
        fit_quantizers(scaled(scale), (spec,))


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
def test_a_few_long_vectors_must_not_zero_the_codes_of_the_others(share: float) -> None:
    vectors = cloud()
    vectors[: int(share * len(vectors))] *= np.float32(1e6)
    spec = next(spec for spec in SPECS if spec.name == "int8_all")
    with pytest.raises(FitError, match="nothing is left of"):
        fit_quantizers(vectors, (spec,))
