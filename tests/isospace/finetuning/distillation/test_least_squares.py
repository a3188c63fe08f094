"""Token vectors are the solution of the ridge regression that the docstring names."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from isospace.finetuning.distillation.least_squares import fit_token_vectors

CHANCE = np.random.default_rng(5)
TEXTS, TOKENS, DIMENSION = 60, 25, 6


def problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares of tokens, of which the last two are in no text, targets, and the start."""
    shares = CHANCE.random((TEXTS, TOKENS)) * (CHANCE.random((TEXTS, TOKENS)) < 0.3)
    shares[:, -2:] = 0
    shares[:, 0] += 0.01
    shares /= shares.sum(axis=1, keepdims=True)
    targets, start = CHANCE.standard_normal((TEXTS, DIMENSION)), CHANCE.standard_normal((TOKENS, DIMENSION))
    return shares.astype(np.float32), targets.astype(np.float32), start.astype(np.float32)


@pytest.mark.parametrize("ridge", [1e-2, 0.3, 10.0])
def test_the_fit_solves_the_normal_equations(ridge: float) -> None:
    shares, targets, start = problem()
    first = shares @ start
    scale = max(np.cov(first.T, targets.T)[:DIMENSION, DIMENSION:].trace() / np.cov(first.T).trace(), 0.0)
    begun = scale * start + targets.mean(axis=0) - scale * first.mean(axis=0)
    left = shares.T @ shares + ridge * np.eye(TOKENS)
    expected = np.linalg.solve(left, shares.T @ targets + ridge * begun)
    found = fit_token_vectors(csr_matrix(shares), targets, start, ridge=ridge, tolerance=1e-6)
    np.testing.assert_allclose(found, expected, atol=2e-4 * abs(expected).max())
    # A token of no text keeps what it started with.
    np.testing.assert_allclose(found[-2:], begun[-2:], rtol=1e-4)


def test_targets_that_token_vectors_explain_are_found_again() -> None:
    shares, _, truth = problem()
    start = CHANCE.standard_normal(truth.shape).astype(np.float32)
    found = fit_token_vectors(csr_matrix(shares), shares @ truth, start, ridge=1e-6, tolerance=1e-6)
    np.testing.assert_allclose(found[:-2], truth[:-2], atol=0.02)


def test_a_start_that_points_away_counts_for_nothing() -> None:
    shares, _, truth = problem()
    targets = shares @ truth
    found = fit_token_vectors(csr_matrix(shares), targets, -truth, ridge=1e3)
    np.testing.assert_allclose(found[-2:], np.tile(targets.mean(axis=0), (2, 1)), atol=1e-6)
