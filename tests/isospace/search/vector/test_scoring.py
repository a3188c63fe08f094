"""Exact scores by the definition of each metric, and the candidates that are scored."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.search.vector.kernels import Codes
from isospace.search.vector.rescoring import _best, nearest
from isospace.search.vector.scoring import all_by_l1, score_rows
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.quantizers.floats import FloatQuantizer
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.representations import Int8Spec, ShortSpec

VECTORS = np.array([[3.0, 4.0], [0.0, 2.0], [-6.0, 8.0], [0.0, 0.0]], np.float32)
QUERY = np.array([4.0, 3.0], np.float32)


def floats(vectors: np.ndarray, *, are_unit: bool = False) -> Codes:
    squares = None if are_unit else (vectors.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    return Codes("float32", FloatQuantizer("float32", vectors.shape[1]), vectors, squares)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("dot", [24.0, 6.0, 0.0, 0.0]),
        ("cosine", [24 / 25, 6 / 10, 0.0, 0.0]),
        ("l2", [-(2**0.5), -(17**0.5), -(125**0.5), -5.0]),
        ("l1", [-2.0, -5.0, -15.0, -7.0]),
    ],
)
def test_scores_are_those_of_the_metric(metric, expected: list[float]) -> None:
    found = score_rows(floats(VECTORS), QUERY, np.arange(4), metric)
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    backwards = score_rows(floats(VECTORS), QUERY, np.array([3, 2, 1, 0]), metric)
    assert backwards.tolist() == found[::-1].tolist()


def test_the_cosine_of_unit_vectors_is_their_product() -> None:
    vectors = np.array([[0.6, 0.8], [1.0, 0.0]], np.float32)
    found = score_rows(floats(vectors, are_unit=True), vectors[0], np.arange(2), "cosine")
    assert found.tolist() == pytest.approx([1.0, 0.6], abs=1e-6)


@pytest.mark.parametrize("low", [None, np.array([-1.0, 0.5], np.float32)])
def test_codes_are_scored_by_what_they_decode_to(low: np.ndarray | None) -> None:
    quantizer = Int8Quantizer(np.array([0.5, 0.01], np.float32), low)
    codes = np.array([[100, 100], [-128, 127], [0, 1]], np.int8)
    found = score_rows(Codes("int8", quantizer, codes), QUERY, np.arange(3), "dot")
    assert found.tolist() == pytest.approx((quantizer.decode(codes).astype(np.float64) @ QUERY).tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [1, 4]), (2, [1, 4]), (3, [1, 2, 4]), (4, [0, 1, 2, 3, 4]), (9, [0, 1, 2, 3, 4])]
)
def test_rows_that_tie_with_the_last_by_l1_are_all_found(count: int, expected: list[int]) -> None:
    vectors = np.array([[3.0], [1.0], [2.0], [-3.0], [-1.0]], np.float32)
    codes, query = floats(vectors), np.zeros(1, np.float32)
    assert all_by_l1(codes, query, count, None).tolist() == expected
    some = np.array([0, 2, 4])
    assert all_by_l1(codes, query, 1, some).tolist() == [4]


def test_the_best_candidates_are_kept_with_all_that_tie_with_the_last() -> None:
    vectors = np.array([[1.0], [2.0], [2.0], [0.0], [2.0]], np.float32)
    one = np.ones(1, np.float32)
    for near in (np.arange(5), np.array([4, 3, 2, 1, 0])):
        assert sorted(_best(floats(vectors), one, near, 1, "dot").tolist()) == [1, 2, 4]
        assert sorted(_best(floats(vectors), one, near, 3, "dot").tolist()) == [1, 2, 4]
        assert sorted(_best(floats(vectors), one, near, 4, "dot").tolist()) == [0, 1, 2, 4]
    assert _best(floats(vectors), one, np.array([3, 0]), 2, "dot").tolist() == [3, 0]


@pytest.mark.parametrize("kernels", ["numpy", "fast"])
@pytest.mark.parametrize(
    "spec", [ShortSpec(kind="short", dimensions=2), Int8Spec(percentile=60)], ids=lambda spec: spec.kind
)
def test_rescoring_chooses_among_as_many_times_the_rows_that_are_wanted(spec, kernels) -> None:
    vectors = np.random.default_rng(6).normal(size=(300, 8)).astype(np.float32)
    quantizer = fit_quantizer(spec, vectors)
    first = Codes(spec.name, quantizer, quantizer.encode(vectors), floats(vectors).squares)
    exact = floats(vectors)
    for query in vectors[:6] + np.float32(0.3):
        scores = score_rows(first, query, np.arange(300), "dot")
        for times in (1, 3, 20):
            ((near, found),) = nearest(
                first, exact, query[None], 5, metric="dot", rescore=times, rows=None, kernels=kernels
            )
            assert sorted(near.tolist()) == sorted(np.lexsort((np.arange(300), -scores))[: 5 * times].tolist())
            assert found.tolist() == score_rows(exact, query, near, "dot").tolist()
