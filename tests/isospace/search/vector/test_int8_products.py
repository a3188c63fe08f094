"""Products of int8 codes with rounded queries are off by no more than they say."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.search.vector.int8_products import extra_bits, integer_blocks, round_queries
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import Int8Spec

COUNT, DIMENSION, QUERIES = 500, 48, 6


@pytest.mark.parametrize("granularity", ["dimension", "vector", "global"])
@pytest.mark.parametrize("bounds", ["symmetric", "affine"])
@pytest.mark.parametrize("extra", [0, 8])
@pytest.mark.parametrize("mean", [0.0, 2.0])
def test_products_differ_from_exact_ones_by_at_most_the_error(granularity, bounds, extra: int, mean: float) -> None:
    rng = np.random.default_rng(3)
    vectors = (mean + rng.standard_normal((COUNT, DIMENSION))).astype(np.float32)
    queries = (mean + rng.standard_normal((QUERIES, DIMENSION))).astype(np.float32)
    quantizer = fit_quantizer(Int8Spec(granularity=granularity, range=bounds), vectors)
    codes = quantizer.encode(vectors)
    rounded = round_queries(quantizer, queries, float(np.linalg.norm(vectors, axis=1).max()), extra)
    blocks = [scores for _, scores in integer_blocks(quantizer, codes, rounded, None)]
    exact = queries.astype(np.float64) @ quantizer.decode(codes).astype(np.float64).T
    off = np.concatenate(blocks, axis=1) * rounded.unit[:, None] - exact
    # A constant per query does not change the order of its rows.
    assert (np.ptp(off, axis=1) <= 2 * rounded.error + 1e-4 * np.abs(exact).max(axis=1)).all()


@pytest.mark.parametrize(("dimension", "bits"), [(8, 8), (384, 8), (512, 8), (513, 7), (1024, 7), (4096, 5)])
def test_finer_queries_never_overflow_the_sums(dimension: int, bits: int) -> None:
    assert extra_bits(dimension) == bits
    assert (127 << bits) * 128 * dimension < 2**31
