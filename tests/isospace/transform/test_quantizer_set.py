from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from isospace.errors import ConfigError, FitError, IntegrityError, MismatchError
from isospace.transform.quantizer_set import (
    Quantizers,
    count_saturated,
    dequantize,
    fit_quantizers,
    quantize,
    quantizer_arrays,
    quantizers_from_arrays,
    score,
)
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.representations import Int8Spec, RepresentationSpec, code_bytes, code_layout

SPECS = TypeAdapter(tuple[RepresentationSpec, ...]).validate_python(
    [
        "float32",
        "float16",
        "int8",
        {"kind": "int8", "name": "int8_affine", "range": "affine", "percentile": 100},
        {"kind": "int8", "name": "int8_vector", "granularity": "vector"},
        {"kind": "int8", "name": "int8_vector_affine", "granularity": "vector", "range": "affine"},
        {"kind": "int8", "name": "int8_global", "granularity": "global"},
        "binary",
        {"kind": "binary", "name": "binary_median", "threshold": "median"},
        {"kind": "binary", "name": "binary_rotated", "rotation": True, "threshold": "mean"},
        "rabitq",
        {"kind": "pq", "subvectors": 8},
        {"kind": "opq", "subvectors": 8},
    ]
)
NAMES = [spec.name for spec in SPECS]
by_name = pytest.mark.parametrize("name", NAMES)


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d)) + 0.3
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Quantizers:
    return fit_quantizers(unit(600, 32), SPECS)


def spec_of(name: str) -> RepresentationSpec:
    return next(spec for spec in SPECS if spec.name == name)


def test_int8_rounds_half_to_even_and_saturates() -> None:
    quantizers = Quantizers((Int8Spec(),), 5, {"int8": Int8Quantizer(np.ones(5, np.float32), None)})
    vectors = np.array([[0.5, 1.5, -0.5, 126.9, 400.0]], np.float32)
    assert quantize(quantizers, vectors, "int8").tolist() == [[0, 2, 0, 127, 127]]
    assert count_saturated(quantizers, vectors, "int8") == 1


@pytest.mark.parametrize(("mode", "steps"), [("symmetric", 254), ("affine", 255)])
@pytest.mark.parametrize("granularity", ["dimension", "vector", "global"])
def test_int8_error_is_at_most_half_a_step_where_nothing_saturates(mode: str, steps: int, granularity: str) -> None:
    vectors = unit(500, 32)
    spec = Int8Spec(granularity=granularity, range=mode, percentile=100)
    quantizers = fit_quantizers(vectors, (spec,))
    decoded = dequantize(quantizers, quantize(quantizers, vectors, "int8"), "int8")
    axis = {"dimension": 0, "vector": 1, "global": None}[granularity]
    span = 2 * np.abs(vectors).max(axis, keepdims=True) if mode == "symmetric" else np.ptp(vectors, axis, keepdims=True)
    assert (np.abs(decoded - vectors) <= span / steps * 0.501).all()
    assert count_saturated(quantizers, vectors, "int8") == 0


@by_name
def test_codes_and_what_is_decoded_do_not_depend_on_the_batch(fitted: Quantizers, name: str) -> None:
    vectors = unit(200, 32, seed=1)
    whole = quantize(fitted, vectors, name)
    assert (whole.dtype, whole.shape[1]) == code_layout(spec_of(name), 32)
    assert whole.nbytes == 200 * code_bytes(spec_of(name), 32)
    decoded = dequantize(fitted, whole, name)
    assert decoded.dtype == np.float32
    for batch in (1, 7):
        parts = [quantize(fitted, vectors[i : i + batch], name) for i in range(0, 200, batch)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        assert np.concatenate([dequantize(fitted, part, name) for part in parts]).tobytes() == decoded.tobytes()


@by_name
def test_scores_are_those_of_the_decoded_vectors(fitted: Quantizers, name: str) -> None:
    codes, queries = quantize(fitted, unit(300, 32, seed=1), name), unit(20, 32, seed=2)
    found, expected = score(fitted, queries, codes, name), queries @ dequantize(fitted, codes, name).T
    assert np.allclose(found, expected, atol=2e-6)
    # Monotone: whatever is apart by more than rounding is in the same order.
    order = np.argsort(expected, axis=1)
    assert (np.diff(np.take_along_axis(found, order, axis=1), axis=1) >= -4e-6).all()


@by_name
def test_arrays_rebuild_the_quantizer(fitted: Quantizers, name: str) -> None:
    again = quantizers_from_arrays(SPECS, 32, quantizer_arrays(fitted))
    vectors = unit(100, 32, seed=3)
    codes = quantize(fitted, vectors, name)
    assert quantize(again, vectors, name).tobytes() == codes.tobytes()
    assert dequantize(again, codes, name).tobytes() == dequantize(fitted, codes, name).tobytes()


def test_a_query_against_raw_codes_would_rank_worse_and_is_not_what_we_do() -> None:
    rng = np.random.default_rng(0)
    centre = rng.normal(size=64)
    scales = np.exp(rng.normal(size=64))
    vectors = (rng.normal(size=(2000, 64)) + centre) * scales
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    queries = vectors[:50] + 0.02 * rng.normal(size=(50, 64)).astype(np.float32)
    spec = Int8Spec(range="affine", percentile=100)
    quantizers = fit_quantizers(vectors, (spec,))
    codes = quantize(quantizers, vectors, "int8")
    exact = queries @ vectors.T

    def kept(scores: np.ndarray) -> float:
        tops = zip(np.argsort(-scores, axis=1)[:, :10], np.argsort(-exact, axis=1)[:, :10], strict=True)
        return float(np.mean([len(set(a) & set(b)) / 10 for a, b in tops]))

    raw = queries @ (codes.astype(np.float32) + 128).T
    assert kept(raw) < 0.5
    assert kept(score(quantizers, queries, codes, "int8")) > 0.95


def test_a_dead_dimension_has_a_positive_scale_and_decodes_to_zero() -> None:
    vectors = unit(300, 8)
    vectors[:, 3] = 0
    specs = tuple(spec for spec in SPECS if spec.name.startswith("int8"))
    quantizers = fit_quantizers(vectors, specs)
    for name in ("int8", "int8_affine", "int8_vector"):
        assert (dequantize(quantizers, quantize(quantizers, vectors, name), name)[:, 3] == 0).all()


@pytest.mark.parametrize("dimension", [8, 13])
def test_binary_packs_signs_and_decodes_to_unit_length(dimension: int) -> None:
    vectors = unit(50, dimension)
    quantizers = fit_quantizers(vectors, (spec_of("binary"),))
    codes = quantize(quantizers, vectors, "binary")
    assert codes.shape == (50, -(-dimension // 8))
    decoded = dequantize(quantizers, codes, "binary")
    assert ((decoded > 0) == (vectors > 0)).all()
    assert np.allclose(np.linalg.norm(decoded, axis=1), 1)


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20)
def test_rabitq_scores_are_right_on_average(seed: int) -> None:
    vectors = unit(400, 64, seed=seed)
    queries = unit(40, 64, seed=seed + 1)
    quantizers = fit_quantizers(vectors, (spec_of("rabitq"),))
    codes = quantize(quantizers, vectors, "rabitq")
    error = score(quantizers, queries, codes, "rabitq") - queries @ vectors.T
    assert abs(error.mean()) < 0.01


def test_rabitq_keeps_the_length_of_what_the_factor_corrects() -> None:
    """The estimator of the paper is exact for a query that is the vector itself."""
    vectors = unit(300, 64)
    quantizers = fit_quantizers(vectors, (spec_of("rabitq"),))
    found = score(quantizers, vectors, quantize(quantizers, vectors, "rabitq"), "rabitq")
    centre = vectors.astype(np.float64).mean(axis=0)
    # <v, c> + <v, x - c> with x = v: only the part of v along c is estimated and not exact.
    expected = ((vectors - centre) ** 2).sum(axis=1) + vectors @ centre
    along = np.diagonal(found) - expected
    assert np.abs(along).mean() < 0.1


def test_product_codes_are_the_nearest_centroids_ties_to_the_lowest(fitted: Quantizers) -> None:
    vectors = unit(50, 32, seed=5)
    books = np.ldexp(fitted.by_name["pq8"].codebooks.astype(np.float64), -fitted.by_name["pq8"].exponent)  # type: ignore[attr-defined]
    parts = vectors.astype(np.float64).reshape(50, 8, 4)
    distances = ((parts[:, :, None, :] - books[None]) ** 2).sum(axis=3)
    codes = quantize(fitted, vectors, "pq8")
    nearest = np.take_along_axis(distances, codes[:, :, None].astype(np.int64), axis=2)[:, :, 0]
    assert (nearest <= distances.min(axis=2) + 1e-6).all()


def test_training_a_product_quantizer_again_gives_the_same_codebooks() -> None:
    vectors = unit(600, 32)
    first, second = (quantizer_arrays(fit_quantizers(vectors, (spec_of("opq8"),))) for _ in range(2))
    assert first.keys() == second.keys() != set()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_subvectors_have_to_divide_the_dimension() -> None:
    with pytest.raises(ConfigError, match="subvectors = 8 does not divide the 30 dimensions; use 3, 5, 6, 10"):
        fit_quantizers(unit(300, 30), (spec_of("pq8"),))


def test_a_codebook_needs_as_many_vectors_as_centroids() -> None:
    with pytest.raises(FitError, match="255 vectors, and a codebook of 256"):
        fit_quantizers(unit(255, 32), (spec_of("pq8"),))


def test_what_a_grid_or_half_precision_cannot_hold_is_counted(fitted: Quantizers) -> None:
    vectors = np.full((1, 32), 1e6, np.float32)
    for name in ("float16", "rabitq", "binary_rotated", "opq8"):
        assert count_saturated(fitted, vectors, name) == 32, name
        assert np.isfinite(dequantize(fitted, quantize(fitted, vectors, name), name)).all()


def test_an_empty_sample_is_refused() -> None:
    with pytest.raises(FitError, match="the sample is empty"):
        fit_quantizers(unit(1, 8)[:0], (spec_of("int8"),))


def test_a_representation_the_space_lacks_is_refused() -> None:
    quantizers = fit_quantizers(unit(10, 8), (spec_of("float32"),))
    with pytest.raises(MismatchError, match="'int8' is not in this space, which has float32"):
        quantize(quantizers, unit(1, 8), "int8")


@pytest.mark.parametrize("name", ["int8.scale", "rabitq.centre", "pq8.codebooks", "opq8.rotation_bits"])
def test_a_missing_or_damaged_array_is_named(fitted: Quantizers, name: str) -> None:
    arrays = quantizer_arrays(fitted)
    key = name.partition(".")[2]
    with pytest.raises(IntegrityError, match=f"lacks the array {key}"):
        quantizers_from_arrays(SPECS, 32, {k: v for k, v in arrays.items() if k != name})
    with pytest.raises(IntegrityError, match=key):
        quantizers_from_arrays(SPECS, 32, arrays | {name: arrays[name][:-1]})


@pytest.mark.parametrize(
    ("given_specs", "message"),
    [
        ([{"kind": "int8", "name": "vector"}], "is reserved for another column"),
        ([{"kind": "int8", "name": "raw"}], "is reserved for another column"),
        ([{"kind": "int8", "name": "title"}], "is reserved for another column"),
        ([{"kind": "int8", "name": 'x"; DROP'}], "should match pattern"),
        ([{"kind": "pq"}], "subvectors"),
        ([{"kind": "float32", "name": "x"}], "Extra inputs"),
        (["int4"], "int4"),
    ],
)
def test_unusable_specifications_are_refused(given_specs: list, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(tuple[RepresentationSpec, ...]).validate_python(given_specs)


@given(st.sampled_from(NAMES), st.sampled_from([8, 24, 40]), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=60)
def test_any_sample_gives_finite_codes_that_no_batch_changes(name: str, d: int, seed: int, size: float) -> None:
    rng = np.random.default_rng(seed)
    vectors = (size * rng.normal(size=(300, d)) * rng.integers(0, 3, d)).astype(np.float32)
    quantizers = fit_quantizers(vectors, (spec_of(name),))
    codes = quantize(quantizers, vectors, name)
    assert quantize(quantizers, vectors[17:18], name).tobytes() == codes[17:18].tobytes()
    decoded = dequantize(quantizers, codes, name)
    assert np.isfinite(decoded).all()
    found = score(quantizers, vectors[:5], codes, name)
    assert np.allclose(found, vectors[:5] @ decoded.T, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(found).max())))
