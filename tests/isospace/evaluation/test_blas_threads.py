from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from isospace.evaluation.blas_threads import few_threads


def blas_threads() -> set[int]:
    assert np.dot(1.0, 1.0)
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize(("dimensions", "one"), [(1, True), (1024, True), (1025, False)])
def test_small_matrices_get_one_thread_and_only_within_the_context(dimensions: int, one: bool) -> None:
    before = blas_threads()
    with few_threads(dimensions):
        assert blas_threads() == ({1} if one else before)
    assert blas_threads() == before
