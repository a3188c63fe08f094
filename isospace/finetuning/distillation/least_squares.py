"""Fit token vectors, so that a text's mean of them is near the vector that the teacher gave to the text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_STEPS = 200


def fit_token_vectors(
    shares: csr_matrix,
    targets: Float32,
    start: Float32,
    *,
    ridge: float,
    tolerance: float = 1e-3,
    on_step: Callable[[int], object] = lambda _: None,
) -> Float32:
    """Minimize |X W - Y|² + ridge |W - W0|² for the token vectors W, where W0 is a + b times the vectors to start from.

    The scale b and the vector a are those that bring X W0 nearest to Y: shares sum to 1, so that a is an intercept, and
    is not held back. Tokens that no text has keep W0. Solved for all dimensions at once by conjugate gradients, with
    the diagonal as preconditioner (Hestenes and Stiefel 1952).

    Parameters
    ----------
    shares
        X: (n, vocabulary) sparse; the share of each token in each text.
    targets
        Y: (n, d) float32 vectors of the texts.
    start
        (vocabulary, d) float32 vectors to start from.
    ridge
        How strongly token vectors are held to their start; the texts' shares sum to 1, so that it does not depend on
        their lengths.
    tolerance
        Stop when the residual is smaller than this share of the first one.
    on_step
        Called with the number of each step.

    Returns
    -------
    numpy.ndarray
        W: (vocabulary, d) float32.
    """
    used = np.unique(shares.indices)
    x = shares[:, used].astype(np.float32)
    xt = x.T.tocsr()
    fitted = _start(x @ start[used], targets, start)

    diagonal = np.asarray(x.multiply(x).sum(axis=0)).ravel() + ridge
    inverse = (1.0 / diagonal).astype(np.float32)[:, None]
    change = np.zeros((len(used), targets.shape[1]), np.float32)
    residual = xt @ (targets - x @ fitted[used])
    enough = tolerance * float(np.linalg.norm(residual))
    preconditioned = inverse * residual
    direction = preconditioned.copy()
    products = (residual * preconditioned).sum(axis=0)
    for step in range(_STEPS):
        if float(np.linalg.norm(residual)) <= enough:
            break
        image = xt @ (x @ direction) + np.float32(ridge) * direction
        length = products / np.maximum((direction * image).sum(axis=0), np.float32(1e-30))
        change += length * direction
        residual -= length * image
        preconditioned = inverse * residual
        following = (residual * preconditioned).sum(axis=0)
        direction = preconditioned + (following / np.maximum(products, np.float32(1e-30))) * direction
        products = following
        on_step(step + 1)
    fitted[used] += change
    return fitted


def _start(first: Float32, targets: Float32, start: Float32) -> Float32:
    """Return W0, from the (n, d) vectors that the start gives the texts."""
    means = first.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
    centered = first - means[0]
    square = float((centered**2).sum())
    scale = float((centered * (targets - means[1])).sum()) / square if square else 0.0
    # A negative scale says that the start is worth nothing.
    scale = max(scale, 0.0)
    result: Float32 = (scale * start + (means[1] - scale * means[0])).astype(np.float32)
    return result
