from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.transform.moments import empty_moments, merge, moments_of, stream_moments


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_merged_moments_are_the_moments_of_the_whole(left: int, right: int, d: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(left + right, d)) * 3 + 100
    merged = merge(moments_of(vectors[:left]), moments_of(vectors[left:]))
    whole = moments_of(vectors)
    assert merged.count == whole.count
    assert np.allclose(merged.mean, whole.mean)
    assert np.allclose(merged.scatter, whole.scatter, atol=1e-6)


def test_streamed_moments_agree_with_numpy() -> None:
    vectors = np.random.default_rng(0).normal(size=(1000, 5)).astype(np.float32)
    found = stream_moments(vectors, block_rows=77)
    assert np.allclose(found.covariance, np.cov(vectors.T.astype(np.float64)))


def test_nothing_is_neutral() -> None:
    found = moments_of(np.ones((3, 2)))
    for other in (merge(found, empty_moments(2)), merge(empty_moments(2), found)):
        assert other.count == 3
        assert np.allclose(other.mean, 1)
