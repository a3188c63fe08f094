"""Fast products are rounded: rows that they cannot tell apart are all candidates, and exact scores decide."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.search.vector.kernels import Codes, candidates
from isospace.search.vector.scoring import score_rows
from isospace.transform.quantizers.int8 import Int8VectorQuantizer
from isospace.transform.quantizers.product import ProductQuantizer

COUNT = 10


def missed(codes: Codes, query: np.ndarray) -> set[int]:
    """Return the best rows by exact scores that are no candidates."""
    (found,) = candidates(codes, query[None], COUNT, metric="dot", kernels="fast")
    scores = score_rows(codes, query, np.arange(len(codes)), "dot")
    best = np.sort(scores)[-COUNT]
    assert len(np.unique(scores)) > COUNT
    return set(np.flatnonzero(scores > best).tolist()) - set(found.tolist())


@pytest.mark.parametrize("dimension", [16, 64, 250])
@pytest.mark.parametrize("scale", [0.1, 0.013])
def test_rows_with_equal_integer_products_are_told_apart_by_exact_scores(dimension: int, scale: float) -> None:
    """The query is rounded without any error, and every row has the same integer product with it."""
    rng = np.random.default_rng(4)
    half = rng.integers(-100, 101, (200, dimension // 2)).astype(np.int8)
    # The codes of every row add up to the same number: those of one half are those of the other, negated.
    rows = np.concatenate([half, np.roll(-half, 1, axis=1)], axis=1)
    rows[:, : dimension // 4] += 3
    rows[:, dimension // 4 : 2 * (dimension // 4)] -= 1
    heads = np.full((200, 1), scale, "<f4").view(np.uint8)
    codes = Codes("int8", Int8VectorQuantizer(dimension, False), np.concatenate([heads, rows.view(np.uint8)], axis=1))
    assert missed(codes, np.full(dimension, 127 / 128, np.float32)) == set()


@pytest.mark.parametrize("largest", [4, 6, 12, 16])
@pytest.mark.parametrize("seed", range(5))
def test_sums_of_tables_that_differ_by_rounding_are_told_apart_by_exact_scores(largest: int, seed: int) -> None:
    """Every row has a component of 1, and others in units of 2**-24, which float32 rounds away beside it."""
    rng = np.random.default_rng(seed)
    books = np.tile(np.arange(256, dtype=np.int32)[None, :, None], (8, 1, 1))
    books[0] = 2**24
    rows = rng.integers(0, largest, (4000, 8)).astype(np.uint8)
    codes = Codes("pq8", ProductQuantizer(books, 24), rows)
    assert missed(codes, np.ones(8, np.float32)) == set()
