"""Static models are computed exactly: bits depend on a text's tokens and on nothing beside them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from isospace.encoding.backends.static import StaticBackend, static_backend
from isospace.encoding.batching import Batch
from isospace.encoding.static_model import TokenTable
from tests.helpers.static_models import random_table

CHANCE = np.random.default_rng(7)


def batch(rows: list[list[int]]) -> Batch:
    """Return rows of IDs as a padded batch, as an encoder does."""
    lengths = np.array([len(row) for row in rows])
    ids = np.zeros((len(rows), lengths.max()), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
    return Batch(np.arange(len(rows)), ids, np.ones((len(rows), 1, ids.shape[1]), np.float32), lengths)


def computed(backend: StaticBackend, rows: list[list[int]]) -> np.ndarray:
    vectors = np.full((len(rows), backend.table.dimension), np.nan, np.float32)
    backend.run([batch(rows)], vectors)
    return vectors


def texts(table: np.ndarray) -> list[list[int]]:
    return [CHANCE.integers(0, len(table), length).tolist() for length in (1, 2, 3, 3, 17, 17, 400)]


@pytest.mark.parametrize("normalizes", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_bits_depend_neither_on_the_batch_nor_on_the_order_of_tokens(normalizes: bool, dtype: str) -> None:
    table = random_table()
    table = (table / abs(table).max() * 127 if dtype == "int8" else table).astype(dtype)
    backend, rows = static_backend(TokenTable(table), limit=512, normalizes=normalizes), texts(table)
    together = computed(backend, rows)
    for number, row in enumerate(rows):
        assert together[number].tobytes() == computed(backend, [row])[0].tobytes()
        assert together[number].tobytes() == computed(backend, [CHANCE.permutation(row).tolist()])[0].tobytes()


def test_a_sum_is_exact_where_floats_of_any_order_round() -> None:
    """Added in float32 from the left, the small components vanish beside the large one."""
    table = np.array([[2.0**20], [1.0], [-(2.0**20)], [2.0**-9]], np.float32)
    rows = [[0, 1, 2], [0, *[3] * 100, 2], [0, 1, 1, 2, 3]]
    expected = [Fraction(1, 3), Fraction(100, 512) / 102, (2 + Fraction(1, 512)) / 5]
    vectors = computed(static_backend(TokenTable(table), limit=512, normalizes=False), rows)
    assert vectors[:, 0].tolist() == [float(np.float32(float(one))) for one in expected]


@pytest.mark.parametrize("scale", [1e-20, 1e-3, 1.0, 1e20])
def test_vectors_are_those_of_a_mean_in_higher_precision(scale: float) -> None:
    table = (random_table() * scale).astype(np.float32)
    rows = texts(table)
    means = np.stack([table[row].astype(np.longdouble).mean(axis=0) for row in rows])
    plain = computed(static_backend(TokenTable(table), limit=512, normalizes=False), rows)
    # What is left out of a component is measured against the largest one of its dimension.
    assert (abs(plain - means) <= 2.0**-40 * abs(table).max(axis=0) + abs(means) * 2.0**-23).all()
    unit = computed(static_backend(TokenTable(table), limit=512, normalizes=True), rows)
    lengths = np.sqrt((means**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(unit, (means / lengths).astype(np.float64), atol=2e-7)


def test_a_mapping_and_weights_are_applied_to_each_token() -> None:
    vectors = random_table()[:20]
    mapping, weights = CHANCE.integers(0, 20, 60), CHANCE.uniform(0.1, 2.0, 60).astype(np.float32)
    table = TokenTable(vectors, mapping, weights)
    expanded = TokenTable(vectors[mapping] * weights[:, None])
    rows = [[5, 59, 5], [0], [17, 3]]
    assert table.size == 60
    both = [computed(static_backend(one, limit=512, normalizes=True), rows) for one in (table, expanded)]
    np.testing.assert_allclose(*both, rtol=1e-6)


def test_a_text_without_a_direction_stays_zero() -> None:
    table = np.array([[1.0, -2.0], [-1.0, 2.0], [0.0, 0.0]], np.float32)
    vectors = computed(static_backend(TokenTable(table), limit=512, normalizes=True), [[0, 1], [2, 2], [0, 2]])
    assert vectors[:2].tolist() == [[0, 0], [0, 0]]
    np.testing.assert_allclose(vectors[2], np.array([1, -2]) / np.sqrt(5), atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_bounds_are_the_largest_components(dtype: str) -> None:
    table = (np.random.default_rng(3).standard_normal((3000, 5)) * 20).astype(dtype)
    table[2999, 4] = -128
    assert TokenTable(table).bounds.tolist() == abs(table.astype(np.float64)).max(axis=0).tolist()
    weighted = TokenTable(table, weights=np.linspace(-3, 2, 3000).astype(np.float32))
    assert weighted.bounds.tolist() == (3 * abs(table.astype(np.float64)).max(axis=0)).tolist()


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_bounds_show_what_is_not_finite(broken: float) -> None:
    table = random_table(dtype="float16")
    table[3, 2] = broken
    assert np.isfinite(TokenTable(table).bounds).sum() == table.shape[1] - 1


@pytest.mark.parametrize("normalizes", [True, False])
def test_components_of_very_different_sizes_add_up_in_any_order(normalizes: bool) -> None:
    """Their bits do not all fit into float64: those that do not are left out of the table, not of the sum."""
    table = np.float32(CHANCE.standard_normal((200, 8)) * 2.0 ** CHANCE.integers(-40, 30, (200, 8)))
    backend, row = static_backend(TokenTable(table), limit=512, normalizes=normalizes), CHANCE.integers(0, 200, 400)
    expected = computed(backend, [row.tolist()])
    for _ in range(20):
        assert computed(backend, [CHANCE.permutation(row).tolist()]).tobytes() == expected.tobytes()
    sums = np.rint(table.astype(np.float64) * backend.scale)[row].sum(axis=0) / backend.scale
    direct = sums / np.linalg.norm(sums) if normalizes else sums / 400
    np.testing.assert_allclose(expected[0], direct, rtol=1e-6, atol=1e-12)
