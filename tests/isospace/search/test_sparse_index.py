from __future__ import annotations

import sys

import numpy as np
import pytest

from isospace.search.sparse_index import invert, sharing
from isospace.transform.sparse import SparseVectors

PARTS = [
    SparseVectors(np.array([0, 2, 2, 3]), np.array([1, 4, 0], np.int32), np.array([7, 8, 9], np.uint8)),
    SparseVectors(np.array([0, 2]), np.array([1, 2], np.int32), np.array([5, 255], np.uint8)),
]


@pytest.mark.parametrize("library", ["scipy", "numpy"])
def test_postings_are_by_term_in_the_order_of_the_chunks(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "numpy":
        monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    arrays = invert(PARTS, 6)
    assert arrays["starts"].tolist() == [0, 1, 3, 4, 4, 5, 5]
    assert arrays["rows"].tolist() == [2, 0, 3, 3, 0]
    assert arrays["impacts"].tolist() == [9, 7, 5, 255, 8]
    assert (arrays["rows"].dtype, arrays["starts"].dtype, arrays["impacts"].dtype) == (np.int32, np.int32, np.uint8)


@pytest.mark.parametrize("library", ["scipy", "numpy"])
def test_a_snapshot_without_chunks_has_an_empty_index(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if library == "numpy":
        monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    arrays = invert([], 6)
    assert (arrays["starts"].tolist(), len(arrays["rows"])) == ([0] * 7, 0)


def test_a_row_without_a_term_of_the_query_is_no_hit() -> None:
    scores = np.array([0.0, 2.5, 0.0, 1.0])
    assert [part.tolist() for part in sharing(scores, None)] == [[1, 3], [2.5, 1.0]]
    assert [part.tolist() for part in sharing(scores, np.array([0, 2, 3]))] == [[3], [1.0]]
    assert [part.tolist() for part in sharing(scores, np.zeros(0, np.int64))] == [[], []]
