"""Unit vectors and cosines: exact for ordinary rows, defined for zero, tiny, huge, and NaN rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from isospace.transform.vectors import row_cosines, unit

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
ORDINARY = st.floats(-1e3, 1e3, width=32).map(lambda value: value if abs(value) > 1e-6 else 0.0)


def rows(dtype: Any) -> st.SearchStrategy[npt.NDArray[Any]]:
    return hnp.arrays(dtype, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=ORDINARY)


@DTYPES
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_ordinary_rows_are_divided_by_their_length_to_the_last_bit(dtype: Any, data: st.DataObject) -> None:
    """Fits are compared on these bits, and vectors of windows are stored with them."""
    vectors = data.draw(rows(dtype))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = vectors / np.where(lengths == 0, dtype(1), lengths)
    found = unit(vectors)
    assert found.dtype == expected.dtype == dtype
    assert found.tobytes() == expected.tobytes()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_ordinary_cosines_are_the_plain_formula_to_the_last_bit(data: st.DataObject) -> None:
    left = data.draw(rows(np.float32))
    right = data.draw(hnp.arrays(np.float32, left.shape, elements=ORDINARY))
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    usable = lengths > 0
    expected = (a * b).sum(axis=1)[usable] / lengths[usable]
    found = row_cosines(left, right)
    assert found[usable].tobytes() == expected.tobytes()
    assert not found[~usable].any()


@DTYPES
def test_zero_rows_stay_zero(dtype: Any) -> None:
    vectors = np.array([[0.0, 0.0], [3.0, 4.0], [-0.0, 0.0]], dtype)
    assert unit(vectors).tolist() == [[0.0, 0.0], pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    assert row_cosines(vectors, vectors[[1, 0, 1]]).tolist() == [0.0, 0.0, 0.0]


@DTYPES
@pytest.mark.parametrize("kind", ["subnormal", "tiny", "huge"])
def test_a_length_that_has_no_square_in_the_dtype_is_still_made_one(dtype: Any, kind: str) -> None:
    limits = np.finfo(dtype)
    scale = {"subnormal": limits.smallest_subnormal * 4, "tiny": limits.tiny, "huge": limits.max / 8}[kind]
    vectors = np.array([[3.0, 4.0], [0.0, -1.0], [0.0, 0.0]], dtype) * dtype(scale)
    assert vectors[:2].any(axis=1).all()
    np.testing.assert_allclose(unit(vectors), [[0.6, 0.8], [0.0, -1.0], [0.0, 0.0]], rtol=1e-6)
    ordinary = np.array([[3.0, 4.0], [1.0, 1.0], [1.0, 1.0]], dtype)
    np.testing.assert_allclose(row_cosines(vectors, ordinary), [1.0, -np.sqrt(0.5), 0.0], rtol=1e-6)
    np.testing.assert_allclose(row_cosines(vectors, vectors), [1.0, 1.0, 0.0], rtol=1e-6)


@DTYPES
@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_what_is_no_number_gives_nan_in_its_own_row_alone(dtype: Any, spoiled: float) -> None:
    vectors = np.array([[spoiled, 1.0], [3.0, 4.0], [0.0, 0.0]], dtype)
    found = unit(vectors)
    assert np.isnan(found[0]).any()
    assert found[1:].tolist() == [pytest.approx([0.6, 0.8]), [0.0, 0.0]]
    cosines = row_cosines(vectors, np.ones((3, 2), dtype))
    assert np.isnan(cosines[0])
    assert cosines[1:].tolist() == [pytest.approx(7 / (5 * np.sqrt(2))), 0.0]


@DTYPES
def test_no_rows_give_no_rows(dtype: Any) -> None:
    assert unit(np.zeros((0, 4), dtype)).shape == (0, 4)
    assert row_cosines(np.zeros((0, 4), dtype), np.zeros((0, 4), dtype)).shape == (0,)
