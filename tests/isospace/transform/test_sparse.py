from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.errors import FitError, MismatchError
from isospace.transform.sparse import (
    MOST_TERMS,
    SparseGrid,
    SparseVectors,
    fit_grid,
    joined_rows,
    quantize_sparse,
    require_sparse,
)


def rows(*pairs: dict[int, float]) -> SparseVectors:
    return joined_rows(
        (np.array(sorted(row), np.int32), np.array([row[term] for term in sorted(row)], np.float32)) for row in pairs
    )


def test_weights_are_rounded_to_the_grid_and_zeros_are_dropped() -> None:
    grid = SparseGrid(bits=8, document_exponent=2)
    codes, beyond = quantize_sparse(rows({3: 0.5, 7: 0.1}, {}, {0: 1.6, 9: 100.0}), grid, "document")
    # 0.1 x 4 rounds to 0, 1.6 x 4 to 6, and 400 is beyond 255.
    assert (codes.starts.tolist(), codes.terms.tolist()) == ([0, 1, 1, 3], [3, 0, 9])
    assert (codes.values.tolist(), codes.values.dtype, beyond) == ([2, 6, 255], np.uint8, 1)


def test_queries_have_a_finer_grid_of_their_own() -> None:
    grid = SparseGrid(bits=8, document_exponent=2)
    codes, beyond = quantize_sparse(rows({3: 100.0, 5: 0.1}), grid, "query")
    assert (codes.values.tolist(), codes.values.dtype, beyond) == ([409_600, 410], np.int64, 0)
    assert grid.unit == 2.0**-14


def test_the_largest_sum_fits_into_64_bits() -> None:
    grid = SparseGrid(bits=16, document_exponent=0)
    assert grid.ceiling("document") * grid.ceiling("query") * MOST_TERMS < 2**63


@pytest.mark.parametrize(("bits", "largest", "exponent"), [(8, 2.65, 6), (8, 2.67, 5), (16, 2.6, 14), (8, 170.0, 0)])
def test_the_grid_leaves_room_for_half_as_much_again(bits: int, largest: float, exponent: int) -> None:
    grid = fit_grid(largest, bits)  # type: ignore[arg-type]
    assert grid.document_exponent == exponent
    assert quantize_sparse(rows({0: 1.5 * largest}), grid, "document")[1] == 0
    # A finer grid would not hold it.
    finer = grid.model_copy(update={"document_exponent": exponent + 1})
    assert quantize_sparse(rows({0: 1.5 * largest}), finer, "document")[1] == 1


@pytest.mark.parametrize("largest", [0.0, float("nan"), float("inf")])
def test_no_grid_without_a_positive_weight(largest: float) -> None:
    with pytest.raises(FitError, match="expected a positive number"):
        fit_grid(largest, 8)


@given(st.lists(st.dictionaries(st.integers(0, 99), st.floats(2**-10, 50.0, width=32), max_size=8), max_size=6))
def test_a_row_has_the_same_codes_alone_as_among_others(pairs: list[dict[int, float]]) -> None:
    grid = SparseGrid(bits=8, document_exponent=3)
    together, _ = quantize_sparse(rows(*pairs), grid, "document")
    for number, row in enumerate(pairs):
        alone, _ = quantize_sparse(rows(row), grid, "document")
        assert [part.tolist() for part in alone.row(0)] == [part.tolist() for part in together.row(number)]


def test_rows_can_be_taken_in_another_order() -> None:
    taken = rows({1: 1.0}, {2: 2.0, 3: 3.0}, {}).take([1, 2, 0])
    assert (taken.starts.tolist(), taken.terms.tolist()) == ([0, 2, 2, 3], [2, 3, 1])


@pytest.mark.parametrize(
    ("starts", "terms", "values", "why"),
    [
        ([0, 2], [5, 5], [1.0, 1.0], "not ascending"),
        ([0, 2], [5, 4], [1.0, 1.0], "not ascending"),
        ([0, 1], [100], [1.0], "expected 0 to 99"),
        ([0, 1], [-1], [1.0], "expected 0 to 99"),
        ([0, 1], [1], [float("nan")], "not finite and positive"),
        ([0, 1], [1], [-1.0], "not finite and positive"),
        ([0, 2, 1], [1], [1.0], "do not follow"),
        ([0, 2], [1], [1.0], "do not fit"),
    ],
)
def test_broken_vectors_are_refused(starts: list[int], terms: list[int], values: list[float], why: str) -> None:
    vectors = SparseVectors(np.array(starts), np.array(terms, np.int32), np.array(values, np.float32))
    with pytest.raises(MismatchError, match=why):
        require_sparse(vectors, 100, "x")


def test_terms_may_fall_from_one_row_to_the_next() -> None:
    require_sparse(rows({5: 1.0, 9: 1.0}, {}, {5: 1.0}, {5: 1.0}), 10, "x")
