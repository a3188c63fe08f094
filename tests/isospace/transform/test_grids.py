"""The grids of an affine map: where exact sums end, and what is clipped and counted at either end."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from isospace.errors import IntegrityError, MismatchError
from isospace.transform.affine import AffineMap, apply_affine, sum_of_squares
from isospace.transform.fixed_point import to_fixed_point
from tests.isospace.transform.test_affine import fitted, raw_vectors, steep


@pytest.mark.parametrize(("offset", "is_exact"), [(2**40 - 1, True), (2**40, False), (3 * 2**40, False)])
def test_sums_are_exact_below_two_to_the_53_and_not_from_there_on(offset: int, is_exact: bool) -> None:
    """One row reaches (2**33 - 2**20) * 2**20 + offset, which is 2**53 for the second."""
    matrix = np.array([[2**32, 2**32 - 2**20]], np.int64)
    given = (matrix, np.zeros(1, np.int64), np.array([[0], [-offset]], np.int64), 20, 20, 20)
    if is_exact:
        assert AffineMap(*given).output_dimension == 1
        return
    with pytest.raises(IntegrityError, match=r"exact sums need less than 2\*\*53"):
        AffineMap(*given)


@pytest.mark.parametrize("limbs", [1, 2])
def test_a_fitted_map_uses_most_of_the_53_bits_and_no_more(limbs: int) -> None:
    raw = raw_vectors(400, 96)
    affine = steep(raw) if limbs == 2 else fitted(raw, "center")
    bits = 16 if limbs == 2 else affine.input_bits
    rows = [sum(abs(int(value)) for value in row) for row in affine.matrix]
    shifts = [max(abs(int(value)) for value in column) for column in affine.offsets.T]
    reach = max(row * 2**bits + shift for row, shift in zip(rows, shifts, strict=True))
    assert 2**50 < reach < 2**53


def one_to_one(*, output_exponent: int = 20) -> AffineMap:
    """The identity of two dimensions: raw vectors up to 16, in steps of 2**-20."""
    return AffineMap(
        np.eye(2, dtype=np.int64) << 20, np.full(2, 20), np.zeros((2, 2), np.int64), 20, output_exponent, 24
    )


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("xp", [np, torch])
def test_an_input_beyond_the_range_is_clipped_to_it_and_counted_on_either_side(sign: int, xp) -> None:
    raw = np.array([[16.0, 1.0], [40.0, 0.5], [2.0, 16.5]], np.float32) * np.float32(sign)
    given = torch.from_numpy(raw) if xp is torch else raw
    vectors, clipped = apply_affine(one_to_one(), given, role="query", normalize=False, xp=xp)
    assert (np.asarray(vectors) * sign).tolist() == [[16.0, 1.0], [16.0, 0.5], [2.0, 16.0]]
    assert clipped == 2


@pytest.mark.parametrize("sign", [1, -1])
def test_an_output_beyond_26_bits_is_clipped_to_them_and_counted_on_either_side(sign: int) -> None:
    """With steps of 2**-24 the output reaches 2**26 of them, which is 4."""
    raw = np.array([[3.0, 4.0], [5.0, 1.0], [10.0, 6.0]], np.float32) * np.float32(sign)
    vectors, clipped = apply_affine(one_to_one(output_exponent=24), raw, role="query", normalize=False)
    assert (vectors * sign).tolist() == [[3.0, 4.0], [4.0, 1.0], [4.0, 4.0]]
    assert clipped == 3


def test_a_zero_vector_stays_zero_where_others_get_unit_length() -> None:
    vectors, _ = apply_affine(one_to_one(), np.array([[0, 0], [3, 4]], np.float32), role="query", normalize=True)
    assert vectors.tolist() == [[0.0, 0.0], [np.float32(0.6), np.float32(0.8)]]


def test_squares_beyond_53_bits_are_summed_exactly_before_they_are_rounded_once() -> None:
    grid = np.array([[2**26, 1, 2**26, 1, 1], [2**26 - 1, 3, 2**26 - 1, 2**26, 5]], np.float64)
    exact = [sum(int(value) ** 2 for value in row) for row in grid]
    assert sum_of_squares(grid).tolist() == [float(value) for value in exact]
    assert sum_of_squares(grid[:, ::-1]).tolist() == [float(value) for value in exact]


@pytest.mark.parametrize("length", [0.3, 1.0, 7.0])
def test_the_grid_of_the_input_holds_twice_the_longest_vector_of_the_sample(length: float) -> None:
    raw = raw_vectors(50, 8) * np.float32(length)
    affine = to_fixed_point(np.eye(8), np.zeros((2, 8)), raw)
    assert 2.0 ** (affine.input_bits - affine.input_exponent) >= 2 * length * 0.999
    assert 2.0 ** (affine.input_bits - affine.input_exponent) <= 4 * length


def test_two_limbs_keep_all_32_bits_of_the_input() -> None:
    """A row of one 1, in units of 2**-30: the high limb alone would round to multiples of 2**-14."""
    affine = AffineMap(np.array([[2**30]]), np.array([30]), np.array([[0], [2**31]]), 30, 24, 32, 2)
    raw = np.array([[1.0], [2.0**-13 + 2.0**-24], [-(2.0**-20)], [3.0 * 2.0**-16]], np.float32)
    vectors, clipped = apply_affine(affine, raw, role="document", normalize=False)
    assert vectors.tolist() == raw.tolist()
    assert clipped == 0
    # Offsets are in units of the high limb: 2**31 * 2**16 * 2**-60.
    moved, _ = apply_affine(affine, raw, role="query", normalize=False)
    assert (moved - vectors)[:, 0].tolist() == pytest.approx([2.0**-13] * 4, abs=2.0**-23)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("xp", [np, torch])
def test_a_raw_vector_that_is_not_finite_is_refused_and_never_clipped(bad: float, xp) -> None:
    raw = np.array([[1.0, 2.0], [0.5, bad]], np.float32)
    given = torch.from_numpy(raw) if xp is torch else raw
    with pytest.raises(MismatchError, match="raw vectors contain NaN or infinity"):
        apply_affine(one_to_one(), given, role="document", normalize=False, xp=xp)
