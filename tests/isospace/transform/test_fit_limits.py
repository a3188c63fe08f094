"""Fits at their limits: the least sample, ridges, and directions of little variance."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.errors import FitError
from isospace.transform.fit import estimate, fit
from isospace.transform.spec import FitSpec
from tests.isospace.transform.test_fit import cloud, fitted


@pytest.mark.parametrize("kind", ["zca", "all_but_the_top"])
@pytest.mark.parametrize(("ratio", "is_enough"), [(10.0, True), (10.001, False), (9.0, True)])
def test_a_sample_of_exactly_the_least_size_is_enough(kind: str, ratio: float, is_enough: bool) -> None:
    estimates = estimate(cloud(40, 4))
    if is_enough:
        assert fit(estimates, FitSpec(kind=kind), min_ratio=ratio).diagnostics["n_per_d"] == 10
        return
    with pytest.raises(FitError, match=r"n/d = 10\.0; expected at least"):
        fit(estimates, FitSpec(kind=kind), min_ratio=ratio)


@pytest.mark.parametrize("epsilon", [0.01, 0.5, 3.0])
def test_a_ridge_adds_its_share_of_the_mean_eigenvalue_before_it_whitens(epsilon: float) -> None:
    vectors = cloud(500, 6)
    found = fitted(vectors, FitSpec(kind="zca", epsilon=epsilon))
    whole = np.cov(vectors.T.astype(np.float64))
    ridged = whole + epsilon * np.trace(whole) / 6 * np.eye(6)
    assert np.allclose(found.matrix @ ridged @ found.matrix.T, np.eye(6), atol=1e-9)


@pytest.mark.parametrize("share", [1e-4, 0.05, 0.5])
def test_a_direction_of_little_variance_is_still_a_direction(share: float) -> None:
    vectors = np.random.default_rng(1).normal(size=(400, 3)) * [1.0, 1.0, np.sqrt(share)]
    found = fit(estimate(vectors), FitSpec(kind="zca"), min_ratio=0)
    assert found.diagnostics["rank"] == 3
    assert np.linalg.matrix_rank(found.matrix) == 3


@pytest.mark.parametrize("kind", ["center", "zca", "zscore"])
@pytest.mark.parametrize("means", ["by_role", "shared"])
def test_each_role_is_centered_by_its_own_mean_or_both_by_that_of_the_documents(kind: str, means: str) -> None:
    vectors = cloud(400, 5)
    queries = vectors[:60] + np.float32(2)
    found = fitted(vectors, FitSpec(kind=kind, means=means), queries)
    documents = vectors.astype(np.float64) @ found.matrix.T + found.offsets[0]
    asked = queries.astype(np.float64) @ found.matrix.T + found.offsets[1]
    assert np.abs(documents.mean(axis=0)).max() < 1e-5
    assert (np.abs(asked.mean(axis=0)).max() < 1e-5) == (means == "by_role")
