from __future__ import annotations

import numpy as np
import pytest

from isospace.config import WhiteningSpec
from isospace.errors import FitError
from isospace.fit import fit
from isospace.moments import stream_moments


def covariance(vectors: np.ndarray, kind: str, **spec: object) -> np.ndarray:
    found = fit(stream_moments(vectors), WhiteningSpec(kind=kind, **spec), min_ratio=10)
    return np.cov((vectors @ found.matrix.T + found.offsets[0]).T)


def test_whitened_covariance_is_the_identity() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 12)) @ rng.normal(size=(12, 12)) + 3
    assert np.allclose(covariance(vectors, "zca", shrinkage=0.0), np.eye(12), atol=1e-8)


def test_rank_deficient_input_whitens_the_dimensions_it_has() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 12))
    eigenvalues = np.linalg.eigvalsh(covariance(vectors, "zca", shrinkage=1e-6))
    assert np.allclose(eigenvalues[-5:], 1, atol=1e-3)
    assert np.allclose(eigenvalues[:-5], 0, atol=1e-6)


def test_rank_deficient_input_without_shrinkage_is_refused_with_the_rank() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(4000, 5)) @ rng.normal(size=(5, 12))
    with pytest.raises(FitError, match="rank 5 of 12"):
        covariance(vectors, "zca", shrinkage=0.0)


def test_large_shrinkage_approaches_centring() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 6)) * [1, 2, 3, 4, 5, 6] + 7
    found = fit(stream_moments(vectors), WhiteningSpec(kind="zca", shrinkage=1e6), min_ratio=10)
    scaled = found.matrix / found.matrix[0, 0]
    assert np.allclose(scaled, np.eye(6), atol=1e-4)


def test_a_small_sample_is_refused_unless_allowed() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 12))
    with pytest.raises(FitError, match=r"n/d = 4\.2; expected at least 10"):
        covariance(vectors, "zca", shrinkage=1.0)
    covariance(vectors, "zca", shrinkage=1.0, allow_small_sample=True)


def test_center_needs_no_covariance() -> None:
    vectors = np.random.default_rng(0).normal(size=(5, 12)) + 4
    found = fit(stream_moments(vectors), WhiteningSpec(kind="center"), min_ratio=10)
    assert np.allclose((vectors @ found.matrix.T + found.offsets[1]).mean(axis=0), 0)


def test_a_constant_sample_is_refused() -> None:
    with pytest.raises(FitError, match="rank 0"):
        covariance(np.ones((500, 4)), "zca", shrinkage=1.0)
