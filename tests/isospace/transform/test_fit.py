from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.covariance import ledoit_wolf, oas

from isospace.errors import FitError
from isospace.transform.fit import Fit, estimate, fit, held_out_variance
from isospace.transform.spec import DEFAULT_CANDIDATES, FitSpec

KINDS = [
    FitSpec(kind="none"),
    FitSpec(kind="center"),
    FitSpec(kind="zscore"),
    FitSpec(kind="minmax"),
    FitSpec(kind="zca"),
    FitSpec(kind="zca", exponent=0.1, means="by_role"),
    FitSpec(kind="zca", epsilon=1.0),
    FitSpec(kind="zca", covariance="ledoit_wolf"),
    FitSpec(kind="zca", covariance="oas"),
    FitSpec(kind="pca_whitening", dimensions=3),
    FitSpec(kind="pca", dimensions=3),
    FitSpec(kind="all_but_the_top"),
]
kinds = pytest.mark.parametrize("spec", KINDS, ids=lambda spec: spec.describe())


def cloud(n: int = 4000, d: int = 12, rank: int | None = None, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, rank or d)) @ rng.normal(size=(rank or d, d)) + 3).astype(np.float32)


def fitted(vectors: np.ndarray, spec: FitSpec, queries: np.ndarray | None = None) -> Fit:
    return fit(estimate(vectors, vectors[:50] + 1 if queries is None else queries), spec, min_ratio=0)


def covariance(vectors: np.ndarray, found: Fit) -> np.ndarray:
    return np.cov((vectors.astype(np.float64) @ found.matrix.T + found.offsets[0]).T)


@pytest.mark.parametrize("spec", [FitSpec(kind="zca"), FitSpec(kind="pca_whitening", dimensions=12)])
def test_whitened_covariance_is_the_identity(spec: FitSpec) -> None:
    vectors = cloud()
    assert np.allclose(covariance(vectors, fitted(vectors, spec)), np.eye(12), atol=1e-6)


@given(st.integers(2, 12), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_whitened_covariance_is_the_identity_for_any_full_rank_sample(d: int, seed: int) -> None:
    vectors = cloud(60 * d, d, seed=seed)
    found = fitted(vectors, FitSpec(kind="zca"))
    if found.diagnostics["rank"] == d and found.diagnostics["condition_number"] < 1e4:
        assert np.allclose(covariance(vectors, found), np.eye(d), atol=1e-6)


@kinds
@pytest.mark.parametrize("sample", ["constant", "one", "two equal", "duplicated", "low rank", "dead dimension"])
def test_a_degenerate_sample_gives_a_finite_fit(spec: FitSpec, sample: str) -> None:
    full = cloud(200, 6)
    vectors = {
        "constant": np.ones((200, 6), np.float32),
        "one": full[:1],
        "two equal": full[[0, 0]],
        "duplicated": np.repeat(full[:3], 50, axis=0),
        "low rank": cloud(200, 6, rank=2),
        "dead dimension": full * np.float32([1, 1, 0, 1, 1, 1]),
    }[sample]
    found = fitted(vectors, spec)
    assert np.isfinite(found.matrix).all()
    assert np.isfinite(found.offsets).all()
    if sample == "low rank" and spec.kind == "zca":
        assert "varies in 2 of 6 directions" in " ".join(found.warnings)


def test_rank_deficient_input_whitens_the_directions_it_has() -> None:
    vectors = cloud(rank=5)
    found = fitted(vectors, FitSpec(kind="zca"))
    eigenvalues = np.linalg.eigvalsh(covariance(vectors, found))
    assert np.allclose(eigenvalues, [0] * 7 + [1] * 5, atol=1e-5)
    assert found.diagnostics["rank"] == 5
    assert len(found.diagnostics["spectrum"]) == 12


def test_large_epsilon_approaches_centring() -> None:
    vectors = cloud()
    found = fitted(vectors, FitSpec(kind="zca", epsilon=1e6))
    assert np.allclose(found.matrix / found.matrix[0, 0], np.eye(12), atol=1e-4)


@pytest.mark.parametrize("exponent", [0.0, 0.1, 0.25])
def test_a_fractional_exponent_raises_the_spectrum_to_what_is_left(exponent: float) -> None:
    vectors = cloud()
    before = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64)))
    found = fitted(vectors, FitSpec(kind="zca", exponent=exponent))
    after = np.linalg.eigvalsh(covariance(vectors, found))
    assert np.allclose(after, np.sort(before ** (1 - 2 * exponent)), rtol=1e-5)


@pytest.mark.parametrize(("name", "reference"), [("ledoit_wolf", ledoit_wolf), ("oas", oas)])
def test_shrinkage_is_that_of_scikit_learn(name: str, reference: object) -> None:
    vectors = cloud(60, 20).astype(np.float64)
    found = fitted(vectors, FitSpec(kind="zca", covariance=name))
    assert found.diagnostics["shrinkage"] == pytest.approx(reference(vectors)[1], rel=1e-9)


def test_each_role_is_centred_by_its_own_mean() -> None:
    vectors, queries = cloud(), cloud(300, seed=7)
    shared = fitted(vectors, FitSpec(kind="center"), queries)
    own = fitted(vectors, FitSpec(kind="center", means="by_role"), queries)
    assert np.allclose((vectors @ own.matrix.T + own.offsets[0]).mean(axis=0), 0, atol=1e-5)
    assert np.allclose((queries @ own.matrix.T + own.offsets[1]).mean(axis=0), 0, atol=1e-5)
    assert (shared.offsets[0] == shared.offsets[1]).all()


def test_a_mean_by_role_without_queries_is_refused() -> None:
    with pytest.raises(FitError, match=r"Give recipe\.transform\.queries\.file"):
        fit(estimate(cloud()), FitSpec(kind="center", means="by_role"), min_ratio=0)


def test_zscore_and_minmax_scale_each_dimension() -> None:
    vectors = cloud()
    scored = vectors @ fitted(vectors, FitSpec(kind="zscore")).matrix.T
    assert np.allclose(scored.std(axis=0, ddof=1), 1, atol=1e-4)
    found = fitted(vectors, FitSpec(kind="minmax"))
    scaled = vectors @ found.matrix.T + found.offsets[0]
    assert np.allclose([scaled.min(axis=0), scaled.max(axis=0)], [[0] * 12, [1] * 12], atol=1e-4)


def test_pca_keeps_the_largest_components_uncorrelated() -> None:
    vectors = cloud()
    found = covariance(vectors, fitted(vectors, FitSpec(kind="pca", dimensions=4)))
    largest = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64)))[::-1][:4]
    assert np.allclose(found, np.diag(largest), rtol=1e-5, atol=1e-5 * largest[0])


def test_all_but_all_is_refused() -> None:
    with pytest.raises(FitError, match="leaves nothing of 12"):
        fitted(cloud(), FitSpec(kind="all_but_the_top", components=12))


def test_all_but_the_top_leaves_nothing_in_the_top() -> None:
    vectors = cloud()
    left = np.linalg.eigvalsh(covariance(vectors, fitted(vectors, FitSpec(kind="all_but_the_top", components=3))))
    before = np.linalg.eigvalsh(np.cov(vectors.T.astype(np.float64)))
    assert np.allclose(left, np.sort([0, 0, 0, *before[:-3]]), atol=1e-4)


@kinds
def test_truncation_comes_first_and_the_rest_is_ignored(spec: FitSpec) -> None:
    vectors = cloud()
    found = fit(estimate(vectors, vectors[:50] + 1, truncate=5), spec, min_ratio=0)
    alone = fit(estimate(vectors[:, :5], vectors[:50, :5] + 1), spec, min_ratio=0)
    assert found.matrix.shape[1] == 12
    assert not found.matrix[:, 5:].any()
    assert np.allclose(found.matrix[:, :5], alone.matrix)
    assert np.allclose(found.offsets, alone.offsets)


def test_a_small_sample_is_refused_unless_allowed() -> None:
    vectors = cloud(50)
    with pytest.raises(FitError, match=r"n/d = 4\.2; expected at least 10"):
        fit(estimate(vectors), FitSpec(kind="zca"), min_ratio=10)
    fit(estimate(vectors), FitSpec(kind="zca", allow_small_sample=True), min_ratio=10)
    fit(estimate(vectors), FitSpec(kind="center"), min_ratio=10)


def test_held_out_variance_tells_a_small_sample_from_a_large_one() -> None:
    small = held_out_variance(cloud(60, 40), FitSpec(kind="zca"))
    large = held_out_variance(cloud(8000, 40), FitSpec(kind="zca"))
    assert small is not None
    assert large is not None
    assert small["largest"] > 10 > 1.5 > large["largest"] > large["mean"] > 0.9
    assert held_out_variance(cloud(), FitSpec(kind="center")) is None


@pytest.mark.parametrize(
    ("given_spec", "message"),
    [
        ({"kind": "zca", "dimensions": 4}, "Use pca_whitening, or recipe.transform.truncate"),
        ({"kind": "center", "exponent": 0.1}, "kind=center does not take exponent"),
        ({"kind": "pca"}, "needs dimensions"),
        ({"kind": "none", "means": "by_role"}, "takes nothing else"),
    ],
)
def test_what_a_kind_does_not_take_is_refused(given_spec: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FitSpec.model_validate(given_spec)


def test_dimensions_beyond_those_of_the_vectors_are_refused() -> None:
    with pytest.raises(FitError, match="dimensions = 13 exceeds the 12"):
        fitted(cloud(), FitSpec(kind="pca", dimensions=13))


def test_default_candidates_describe_themselves_differently() -> None:
    assert len({spec.describe() for spec in DEFAULT_CANDIDATES}) == len(DEFAULT_CANDIDATES)


@given(st.sampled_from(KINDS), st.integers(1, 60), st.integers(3, 10), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=80)
def test_any_sample_gives_a_finite_fit_that_centres_what_it_says(spec: FitSpec, n: int, d: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = (rng.normal(size=(n, d)) * rng.integers(0, 3, d) + rng.normal(size=d)).astype(np.float32)
    found = fitted(vectors, spec, vectors[: max(n // 2, 1)])
    assert np.isfinite(found.matrix).all()
    moved = vectors.astype(np.float64) @ found.matrix.T + found.offsets[0]
    scale = max(1.0, float(np.abs(found.matrix).max()))
    if spec.kind == "minmax":
        assert -1e-6 <= moved.min() <= moved.max() <= 1 + 1e-6
    elif spec.kind != "none":
        assert np.abs(moved.mean(axis=0)).max() < 1e-6 * scale
