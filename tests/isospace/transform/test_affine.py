from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isospace.errors import FitError, IntegrityError, MismatchError
from isospace.transform.affine import AffineMap, apply_affine, sum_of_squares
from isospace.transform.error_bounds import error_bound, spectral_bound
from isospace.transform.fit import estimate, fit, fit_affine
from isospace.transform.fixed_point import to_fixed_point
from isospace.transform.spec import FitSpec


def raw_vectors(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def fitted(vectors: np.ndarray, kind: str = "zca") -> AffineMap:
    spec = FitSpec(kind=kind, epsilon=0.1, allow_small_sample=True) if kind == "zca" else FitSpec(kind=kind)
    return fit_affine(fit(estimate(vectors), spec, min_ratio=10), vectors)


def steep(vectors: np.ndarray) -> AffineMap:
    """Return a map so steep that it takes two limbs."""
    scaled = vectors * np.geomspace(1, 1e-4, vectors.shape[1]).astype(np.float32)
    found = fit(estimate(scaled), FitSpec(kind="zca", allow_small_sample=True), min_ratio=10)
    affine = fit_affine(found, scaled)
    assert affine.limbs == 2
    return affine


@pytest.mark.parametrize("kind", ["none", "center", "zca", "steep"])
def test_same_bits_at_every_batch_size_thread_count_and_library(kind: str) -> None:
    raw = raw_vectors(1000, 384)
    affine = steep(raw) if kind == "steep" else fitted(raw, kind)
    whole, _ = apply_affine(affine, raw, role="query", normalize=True)
    for batch in (1, 7, 32, 1000):
        pieces = [
            apply_affine(affine, raw[i : i + batch], role="query", normalize=True)[0] for i in range(0, 1000, batch)
        ]
        assert np.concatenate(pieces).tobytes() == whole.tobytes()
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for batch in (1, 7, 32, 1000):
                tensors = [torch.from_numpy(raw[i : i + batch]) for i in range(0, 1000, batch)]
                found = [apply_affine(affine, t, role="query", normalize=True, xp=torch)[0] for t in tensors]
                assert torch.cat(found).numpy().tobytes() == whole.tobytes()
    finally:
        torch.set_num_threads(threads)


def test_naive_float32_does_differ_by_batch_so_the_test_above_can_fail() -> None:
    raw = raw_vectors(1000, 384)
    matrix = np.random.default_rng(1).normal(size=(384, 384)).astype(np.float32)
    assert (raw[:1] @ matrix).tobytes() != (raw @ matrix)[:1].tobytes() or (raw[:7] @ matrix).tobytes() != (
        raw @ matrix
    )[:7].tobytes()


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**32 - 1))
@example(1, 1, 7906984)  # documents' results nearly vanish, and a query's are a hundred times theirs
@settings(deadline=None, max_examples=40)
def test_agrees_with_float64(n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = (rng.normal(size=(n, d)) * 10.0 ** rng.integers(-3, 3)).astype(np.float32)
    matrix, offsets = rng.normal(size=(d, d)), rng.normal(size=(2, d))
    affine = to_fixed_point(matrix, offsets, raw)
    found, clipped = apply_affine(affine, raw, role="query", normalize=False)
    expected = raw.astype(np.float64) @ matrix.T + offsets[1]
    assert clipped == 0
    assert np.allclose(found, expected, rtol=0, atol=4e-6 * np.abs(expected).max())


def test_unit_length() -> None:
    raw = raw_vectors(500, 64)
    vectors, _ = apply_affine(fitted(raw), raw, role="document", normalize=True)
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 1e-6


def test_roles_have_offsets_of_their_own() -> None:
    raw = raw_vectors(20, 8)
    affine = to_fixed_point(np.eye(8), np.stack([np.zeros(8), np.full(8, 0.25)]), raw)
    document, _ = apply_affine(affine, raw, role="document", normalize=False)
    query, _ = apply_affine(affine, raw, role="query", normalize=False)
    assert np.allclose(query - document, 0.25, atol=1e-6)


def test_values_beyond_the_fitted_bound_saturate_and_are_counted() -> None:
    raw = raw_vectors(100, 8)
    affine = fitted(raw, "none")
    far = raw[:3] * np.float32(100)
    vectors, clipped = apply_affine(affine, far, role="document", normalize=False)
    assert clipped > 0
    assert np.abs(vectors).max() <= 8 * np.abs(raw).max()


def test_a_map_whose_sums_could_round_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"exact sums need less than 2\*\*53"):
        AffineMap(np.full((2, 2), 2**40), np.zeros(2, np.int64), np.zeros((2, 2), np.int64), 20, 20, 24)


def test_a_damaged_shape_is_refused() -> None:
    with pytest.raises(IntegrityError, match="do not fit together"):
        AffineMap(np.ones((2, 2), np.int64), np.zeros(3, np.int64), np.zeros((2, 2), np.int64), 20, 20, 24)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_input_is_refused(value: float) -> None:
    raw = raw_vectors(4, 8)
    raw[2, 3] = value
    with pytest.raises(MismatchError, match="NaN or infinity"):
        apply_affine(fitted(raw_vectors(50, 8)), raw, role="query", normalize=True)


def test_another_dimension_is_refused() -> None:
    with pytest.raises(MismatchError, match=r"takes \(n, 8\)"):
        apply_affine(fitted(raw_vectors(50, 8)), raw_vectors(4, 9), role="query", normalize=True)


def test_an_empty_batch_gives_an_empty_result() -> None:
    vectors, clipped = apply_affine(
        fitted(raw_vectors(50, 8)), np.zeros((0, 8), np.float32), role="query", normalize=True
    )
    assert vectors.shape == (0, 8)
    assert clipped == 0


def test_a_sample_of_zeros_is_refused() -> None:
    with pytest.raises(FitError, match="positive finite"):
        to_fixed_point(np.eye(4), np.zeros((2, 4)), np.zeros((5, 4), np.float32))


@given(st.integers(1, 5000), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_squares_of_the_output_grid_sum_alike_in_any_order(dimension: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = rng.integers(-(2**26), 2**26, (2, dimension), endpoint=True).astype(np.float64)
    found = sum_of_squares(grid)
    assert found.tobytes() == sum_of_squares(grid[:, rng.permutation(dimension)]).tobytes()
    exact = [sum(int(value) ** 2 for value in row) for row in grid]
    assert np.allclose(found, np.array(exact, dtype=np.float64), rtol=2**-52, atol=0)


@pytest.mark.parametrize("dimension", [8, 384, 1024])
@pytest.mark.parametrize(
    "spec",
    [
        FitSpec(),
        FitSpec(kind="center"),
        FitSpec(kind="zca", exponent=0.15, allow_small_sample=True),
        FitSpec(kind="zca", allow_small_sample=True),
        FitSpec(kind="pca_whitening", dimensions=8, allow_small_sample=True),
    ],
    ids=lambda spec: spec.describe(),
)
def test_the_error_against_float64_is_within_its_bound(spec: FitSpec, dimension: int) -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(3000, dimension)) * np.geomspace(1, 0.02, dimension) + 0.1
    raw = (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32)
    found = fit(estimate(raw), spec, min_ratio=0)
    figures = error_bound(fit_affine(found, raw), found.matrix, found.offsets, raw)
    assert figures["cosine_error"] <= min(figures["cosine_error_bound"] + 1e-15, 1e-10)
    assert figures["component_error"] <= min(figures["component_error_bound"], 2e-6)
    assert figures["cosine_error_bound"] <= 1e-9


def test_a_bound_of_the_spectral_norm_is_one_and_near() -> None:
    for shape in ((40, 40), (10, 60), (60, 10)):
        matrix = np.random.default_rng(0).normal(size=shape)
        true = np.linalg.norm(matrix, 2)
        assert true <= spectral_bound(matrix) * (1 + 1e-12)
        assert spectral_bound(matrix) <= true * min(shape) ** (1 / 16) * 1.001
    assert spectral_bound(np.zeros((3, 3))) == 0.0
