"""Rotations: exact sums only, the same grid on both sides of zero, back as well as forth."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.errors import FitError, IntegrityError
from isospace.transform.rotation import (
    Rotation,
    count_beyond_grid,
    grid_exponent,
    random_rotation,
    rotate,
    rotate_back,
    round_rotation,
    to_grid,
)

LIMIT = 2.0**24


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("largest", "is_exact"), [(2**29 - 1, True), (2**29, False), (2**30, False)])
def test_a_matrix_whose_sums_could_round_is_refused(axis: int, largest: int, is_exact: bool) -> None:
    matrix = np.zeros((2, 2), np.int32)
    # One column or one row adds up to `largest`: 2**24 times that is 2**53 or more.
    matrix[:, 0] = [largest // 2, -(largest - largest // 2)]
    given = matrix if axis == 0 else matrix.T.copy()
    if is_exact:
        assert Rotation(given, 28).bits == 28
        return
    with pytest.raises(IntegrityError, match=r"expected a square matrix with sums below 2\*\*29"):
        Rotation(given, 28)


@pytest.mark.parametrize("dimension", [2, 24, 100])
def test_a_rounded_rotation_uses_most_of_the_bits_and_no_more(dimension: int) -> None:
    matrix = np.abs(random_rotation(dimension, 1).matrix.astype(np.int64))
    assert 2**26 < max(matrix.sum(axis=0).max(), matrix.sum(axis=1).max()) < 2**29


@pytest.mark.parametrize("sign", [1, -1])
def test_the_grid_ends_at_24_bits_on_either_side_and_what_is_beyond_is_counted(sign: int) -> None:
    vectors = sign * np.array([[0.5, 1.0, 1.5], [-2.0, 4.0, 0.0]], np.float32)
    assert (sign * to_grid(vectors, 24)).tolist() == [[LIMIT / 2, LIMIT, LIMIT], [-LIMIT, LIMIT, 0.0]]
    assert count_beyond_grid(vectors, 24) == 3


def test_a_rotation_turns_and_turns_back() -> None:
    rotation = Rotation(np.array([[0, -(2**27)], [2**27, 0]], np.int32), 27)
    grid = np.array([[3.0, 5.0], [-7.0, 0.0]])
    assert rotate(rotation, grid).tolist() == [[-5.0, 3.0], [0.0, -7.0]]
    assert rotate_back(rotation, rotate(rotation, grid)).tolist() == grid.tolist()


@pytest.mark.parametrize("dimension", [3, 17])
def test_a_rounded_rotation_is_orthogonal_but_for_its_grid(dimension: int) -> None:
    rotation = random_rotation(dimension, 5)
    matrix = np.ldexp(rotation.matrix.astype(np.float64), -rotation.bits)
    assert np.allclose(matrix @ matrix.T, np.eye(dimension), atol=1e-6)
    assert np.array_equal(round_rotation(matrix).matrix, rotation.matrix)


def test_random_rotations_point_either_way_along_every_axis() -> None:
    """LAPACK alone would leave the first entry negative: not every rotation would be as likely as any other."""
    entries = np.array([random_rotation(4, seed).matrix[0, 0] for seed in range(30)])
    assert 8 <= (entries > 0).sum() <= 22


@pytest.mark.parametrize("length", [0.01, 1.0, 1.7, 30.0])
def test_the_grid_holds_twice_the_longest_vector(length: float) -> None:
    sample = np.array([[0.0, length / 2], [length, 0.0]], np.float32)
    exponent = grid_exponent(sample)
    assert count_beyond_grid(2 * sample, exponent) == 0
    assert exponent <= 23
    if length >= 1.0:
        assert count_beyond_grid(4.1 * sample, exponent) > 0


def test_vectors_too_short_for_the_grid_are_refused() -> None:
    with pytest.raises(FitError, match=r"has length 1e-05; a quantizer with a rotation"):
        grid_exponent(np.array([[1e-5, 0.0]], np.float32))
