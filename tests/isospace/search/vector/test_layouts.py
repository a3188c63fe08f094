"""Rows in several arrays, and rows of deleted documents: every kernel finds what one array of live rows has."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from isospace.search.vector.kernels import Codes, Kernels
from isospace.search.vector.rescoring import nearest
from isospace.search.vector.stacked import Stacked, stack
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import BinarySpec, Float16Spec, Float32Spec, Int8Spec, PqSpec, RabitqSpec

SPECS = (
    Float32Spec(),
    Float16Spec(),
    Int8Spec(),
    Int8Spec(granularity="vector"),
    BinarySpec(),
    RabitqSpec(),
    PqSpec(kind="pq", subvectors=8),
)


def layouts(array: np.ndarray, order: np.ndarray, live: np.ndarray) -> dict[str, tuple[Any, Any, np.ndarray]]:
    cuts = [0, len(array) // 3, len(array) // 2, len(array)]
    alive = order[live[order]]
    return {
        "one": (array, live, np.arange(len(array))),
        "several": (stack([array[a:b] for a, b in pairwise(cuts)]), live, np.arange(len(array))),
        "live rows in another order": (array[alive], None, alive),
    }


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.kind}-{getattr(spec, 'granularity', '')}")
@pytest.mark.parametrize(("count", "dead"), [(6, 0), (60, 25), (2500, 600)])
def test_results_do_not_depend_on_the_layout(spec: Any, unit: bool, count: int, dead: int) -> None:
    chance = np.random.default_rng(count)
    vectors = chance.standard_normal((count, 32)).astype(np.float32)
    # Rows that tie, also where the best ones end.
    vectors[count // 2 : count // 2 + count // 3] = vectors[: count // 3]
    if unit:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    live = np.ones(count, bool)
    live[chance.permutation(count)[:dead]] = False
    queries = chance.standard_normal((5, 32)).astype(np.float32)
    sample = np.tile(vectors, (300 // count + 1, 1))
    quantizer, plain = fit_quantizer(spec, sample), fit_quantizer(Float32Spec(), sample)
    squares = None if unit else (vectors.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    order = chance.permutation(count)
    found: list[list[list[tuple[float, int]]]] = []
    coded, floats = (layouts(array, order, live) for array in (quantizer.encode(vectors), vectors))
    lengths = None if squares is None else layouts(squares, order, live)
    for layout, (array, alive, names) in coded.items():
        sizes = None if lengths is None else lengths[layout][0]
        mask = alive if dead else None
        first = Codes(spec.name, quantizer, array, sizes, mask)
        last = Codes("float32", plain, floats[layout][0], sizes, mask)
        kernels: tuple[Kernels, ...] = ("numpy", "fast")
        for one in kernels:
            for metric in ("cosine", "dot", "l2"):
                near = nearest(first, last, queries, 4, metric=metric, rescore=2, rows=None, kernels=one)
                assert all(live[names[rows]].all() for rows, _ in near)
                found.append([sorted(zip((-s).tolist(), names[rows].tolist(), strict=True))[:4] for rows, s in near])
    assert all(found[number] == found[number % 3] for number in range(len(found)))


@pytest.mark.parametrize("kernels", ["numpy", "fast"])
@pytest.mark.parametrize("spec", [Float32Spec(), Float16Spec(), Int8Spec(), PqSpec(kind="pq", subvectors=8)], ids=str)
def test_all_rows_tie_for_a_zero_query(spec: Any, kernels: Kernels) -> None:
    vectors = np.random.default_rng(0).standard_normal((400, 32)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    quantizer = fit_quantizer(spec, vectors)
    codes = Codes(spec.name, quantizer, quantizer.encode(vectors))
    zero = np.zeros((1, 32), np.float32)
    ((rows, scores),) = nearest(codes, codes, zero, 4, metric="dot", rescore=0, rows=None, kernels=kernels)
    # Which of them are returned is decided by their IDs, so that it depends on no layout.
    assert rows.tolist() == list(range(400))
    assert not scores.any()


def test_rows_of_several_arrays_are_read_as_from_one() -> None:
    whole = np.arange(60).reshape(20, 3)
    several = Stacked([whole[:7], whole[7:7], whole[7:8], whole[8:]])
    assert (len(several), several.shape, several.dtype, several.nbytes) == (20, (20, 3), whole.dtype, whole.nbytes)
    rows = np.array([19, 0, 7, 7, 6, 8], np.int64)
    assert several[rows].tolist() == whole[rows].tolist()
    assert several[rows[:0]].shape == (0, 3)
    for part in (slice(0, 20), slice(5, 9), slice(7, 8), slice(9, 99), slice(3, 3), slice(-4, None), slice(0, 20, 7)):
        assert several[part].tolist() == whole[part].tolist()
    assert np.shares_memory(several[9:12], whole)
    assert np.asarray(several).tolist() == whole.tolist()
    assert several.max() == 59


def test_l1_leaves_dead_rows_out() -> None:
    vectors = np.eye(4, dtype=np.float32)
    quantizer = fit_quantizer(Float32Spec(), vectors)
    codes = Codes("float32", quantizer, vectors, None, np.array([False, True, True, False]))
    ((rows, _),) = nearest(codes, codes, vectors[:1], 2, metric="l1", rescore=0, rows=None, kernels="numpy")
    assert sorted(rows.tolist()) == [1, 2]
