"""Cells: the nearest centroid, exactly, whatever the batch, and training that gives the same bits."""

from __future__ import annotations

import builtins
import subprocess
import sys
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from isospace.errors import FitError, IntegrityError
from isospace.transform.cells_spec import AnyCells, CellsSpec, cell_count, cell_sample
from isospace.transform.quantizers import fit_cells as training
from isospace.transform.quantizers.cells import CellQuantizer, grid_bits, imbalance_factor, load_cells
from isospace.transform.quantizers.fit_cells import LARGEST_SHARE, FittedCells, fit_cells


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def plain(quantizer: CellQuantizer, vectors: np.ndarray) -> list[int]:
    """Return cells by Python's integers, which have no rounding at all."""
    limit = 2 ** grid_bits(quantizer.dimension)
    centroids = [[int(value) for value in row] for row in quantizer.grid]
    cells = []
    for vector in vectors.astype(np.float64):
        scaled = np.clip(np.rint(np.ldexp(vector, quantizer.exponent)), -limit, limit)
        point = [int(value) for value in scaled]
        distances = [sum((p - c) ** 2 for p, c in zip(point, centroid, strict=True)) for centroid in centroids]
        cells.append(distances.index(min(distances)))
    return cells


def quantizer_of(centroids: np.ndarray) -> CellQuantizer:
    exponent = grid_bits(centroids.shape[1]) - 1
    return CellQuantizer(np.rint(np.ldexp(centroids.astype(np.float64), exponent)).astype(np.int32), exponent)


@pytest.mark.parametrize("d", [1, 2, 3, 31, 64, 384])
def test_a_cell_is_the_nearest_centroid_exactly(d: int) -> None:
    quantizer = quantizer_of(unit(20, d))
    vectors = np.concatenate([unit(30, d, seed=1), np.zeros((1, d), np.float32), 7 * unit(3, d, seed=2)])
    assert quantizer.encode(vectors).tolist() == plain(quantizer, vectors)


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize("d", [2, 48, 384])
def test_near_ties_that_float32_cannot_tell_apart_are_decided_exactly(d: int, shift: int) -> None:
    """Centroids differ by a few units of the grid; each product of float32 is off by more than their distances."""
    rng = np.random.default_rng(d)
    base = quantizer_of(unit(1, d)).grid
    near = base + rng.integers(-shift, shift + 1, size=(60, d))
    quantizer = CellQuantizer(near.astype(np.int32), grid_bits(d) - 1)
    moved = base + rng.integers(-2, 3, size=(40, d))
    vectors = np.ldexp(moved.astype(np.float64), -quantizer.exponent).astype(np.float32)
    assert quantizer.encode(vectors).tolist() == plain(quantizer, vectors)


def test_equal_distances_and_equal_centroids_give_the_lowest_number() -> None:
    centroids = np.array([[0.5, 0.5], [1, 0], [0, 1], [1, 0], [-1, 0]], np.float32)
    vectors = np.array([[1, 0], [0, 1], [0, -1], [-0.5, 0.5], [1, 1]], np.float32)
    # (0, -1) is equally far from 1, 3, and 4, and (-0.5, 0.5) from 2 and 4.
    assert quantizer_of(centroids).encode(vectors).tolist() == [1, 2, 1, 2, 0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_integers_of_the_grid_are_assigned_as_by_plain_integers(data: st.DataObject) -> None:
    d, count = data.draw(st.integers(1, 6)), data.draw(st.integers(2, 9))
    limit = 2 ** grid_bits(d)
    values = st.one_of(st.integers(-limit, limit), st.integers(-2, 2), st.sampled_from([-limit, limit, limit - 1]))
    row = st.lists(values, min_size=d, max_size=d)
    centroids = data.draw(st.lists(row, min_size=count, max_size=count))
    points = data.draw(st.lists(st.one_of(row, st.sampled_from(centroids)), min_size=1, max_size=5))
    quantizer = CellQuantizer(np.array(centroids, np.int32), 0)
    vectors = np.array(points, np.float32)
    assert quantizer.encode(vectors).tolist() == plain(quantizer, vectors)


@pytest.mark.parametrize("d", [1, 2, 3, 100, 384, 768, 4096])
def test_the_largest_grid_keeps_every_sum_below_2_to_the_53(d: int) -> None:
    most = 2 ** grid_bits(d)
    assert most <= 2**24
    assert 3 * d * most * most < 2**53
    corners = np.array([[most] * d, [-most] * d, [most] * (d - 1) + [most - 1]], np.int32)
    quantizer = CellQuantizer(corners, 0)
    assert quantizer.encode(corners.astype(np.float32)).tolist() == [0, 1, 2]


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 17, 384]), st.sampled_from([1.0, 0.01, 3.0]))
def test_the_error_bound_holds(seed: int, d: int, scale: float) -> None:
    """The bound also holds for sums in a bad order: all positive terms first, one after the other."""
    rng = np.random.default_rng(seed)
    quantizer = quantizer_of(unit(8, d, seed=seed))
    grid = quantizer.to_grid((rng.normal(size=(6, d)) * scale / np.sqrt(d)).astype(np.float32))
    factors = quantizer._factors
    terms = np.concatenate([grid, np.ones((6, 1), np.float32)], axis=1)[:, :, None] * factors[None]
    ordered = -np.sort(-terms, axis=1)
    sums = np.zeros((6, 8), np.float32)
    for number in range(d + 1):
        sums += ordered[:, number]
    centroids = quantizer.grid.astype(np.int64)
    exact = (grid.astype(np.int64) @ centroids.T) - (centroids * centroids).sum(axis=1) / 2
    assert (np.abs(sums - exact) <= quantizer._errors(grid)[:, None]).all()


def test_a_bound_that_is_too_small_would_give_other_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cases above do need the exact comparison."""
    rng = np.random.default_rng(0)
    base = quantizer_of(unit(1, 384)).grid
    quantizer = CellQuantizer((base + rng.integers(-3, 4, size=(60, 384))).astype(np.int32), grid_bits(384) - 1)
    vectors = np.ldexp((base + rng.integers(-2, 3, size=(40, 384))).astype(np.float64), -quantizer.exponent)
    right = quantizer.encode(vectors.astype(np.float32))
    monkeypatch.setattr(CellQuantizer, "_errors", lambda self, grid: np.zeros(len(grid)))
    assert quantizer.encode(vectors.astype(np.float32)).tolist() != right.tolist()


def test_cells_do_not_depend_on_the_batch_or_its_order() -> None:
    quantizer = quantizer_of(unit(300, 48))
    vectors = unit(8000, 48, seed=3)
    whole = quantizer.encode(vectors)
    order = np.random.default_rng(0).permutation(len(vectors))
    assert np.array_equal(quantizer.encode(vectors[order]), whole[order])
    assert [int(quantizer.encode(vectors[n : n + 1])[0]) for n in range(200)] == whole[:200].tolist()
    assert quantizer.encode(vectors[:0]).shape == (0,)
    assert (whole.dtype, whole.shape) == (np.dtype("<u2"), (8000,))


def test_most_vectors_are_decided_without_exact_products(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def counted(self: CellQuantizer, grid: np.ndarray) -> np.ndarray:
        seen.append(len(grid))
        return exactly(self, grid)

    exactly = CellQuantizer._nearest_exactly
    monkeypatch.setattr(CellQuantizer, "_nearest_exactly", counted)
    quantizer_of(unit(256, 384)).encode(unit(4000, 384, seed=1))
    assert sum(seen) < 200


@pytest.mark.parametrize("value", [1e30, -1e30, np.inf])
def test_components_beyond_the_grid_are_clipped_to_it(value: float) -> None:
    quantizer = quantizer_of(np.array([[1, 0], [-1, 0], [0, 1]], np.float32))
    assert quantizer.encode(np.array([[value, 0.25]], np.float32)).tolist() == [0 if value > 0 else 1]


def test_the_last_of_65_536_cells_has_a_number() -> None:
    """Numbers have 16 bits."""
    grid = np.stack([np.arange(65_536), np.zeros(65_536)], axis=1).astype(np.int32)
    vectors = np.array([[65_535, 0], [0, 0], [32_768, 5]], np.float32)
    assert CellQuantizer(grid, 0).encode(vectors).tolist() == [65_535, 0, 32_768]


def test_stored_arrays_give_the_same_cells() -> None:
    quantizer = quantizer_of(unit(40, 16))
    loaded = load_cells(CellsSpec(), 16, quantizer.arrays())
    vectors = unit(500, 16, seed=4)
    assert np.array_equal(loaded.encode(vectors), quantizer.encode(vectors))
    assert np.allclose(loaded.centroids(), unit(40, 16), atol=2.0 ** -grid_bits(16))
    assert loaded.centroids().dtype == np.float32


def damaged(**changes: Any) -> dict[str, Any]:
    arrays = {**quantizer_of(unit(4, 8)).arrays(), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (damaged(centroids=None), "lacks the array centroids"),
        (damaged(exponent=None), "lacks the array exponent"),
        (damaged(centroids=np.zeros((4, 7), np.int32)), r"centroids is int32 \(4, 7\)"),
        (damaged(centroids=np.zeros((4, 8), np.int64)), "centroids is int64"),
        (damaged(centroids=np.zeros((3, 8), np.int32)), r"centroids is int32 \(3, 8\); expected int32 \(4, 8\)"),
        (damaged(centroids=np.int32(3)), r"centroids is int32 \(\)"),
        (damaged(exponent=np.zeros(2, np.int64)), r"exponent is int64 \(2,\)"),
        (damaged(exponent=np.array([65])), "exponent 65; expected"),
        (damaged(exponent=np.array([-(2**40)])), "exponent -1099511627776; expected"),
        (damaged(centroids=np.full((4, 8), 2**23 + 1, np.int32)), f"components of up to {2**23 + 1}"),
        (damaged(centroids=np.full((4, 8), -(2**31), np.int32)), f"components of up to {2**31}"),
    ],
)
def test_damaged_arrays_are_refused(arrays: dict[str, Any], says: str) -> None:
    with pytest.raises(IntegrityError, match=says):
        load_cells(CellsSpec(count=4), 8, arrays)


@pytest.mark.parametrize("count", [0, 1, 65_537])
def test_a_number_of_centroids_that_no_fit_gives_is_refused(count: int) -> None:
    with pytest.raises(IntegrityError, match=f"{count} centroids"):
        load_cells(CellsSpec(), 8, damaged(centroids=np.zeros((count, 8), np.int32)))


@pytest.mark.parametrize(
    ("chunks", "sampled", "expected"),
    [
        (512, 512, 16),  # 90.5, but a cell needs 32 of the sample
        (1_000, 1_000, 16),
        (1_024, 1_024, 32),
        (10_000, 10_000, 256),  # 400 wants 512, but the sample allows 312
        (1_000_000, 50_000, 1_024),
        (1_000_000, 131_072, 4_096),
        (1_000_000, 131_071, 2_048),
        (524_287, 1_000_000, 2_048),  # 4 sqrt(n) is just below 2,896.3, the geometric middle
        (524_288, 1_000_000, 4_096),
        (10**12, 10**9, 8_192),
        (1, 512, 16),
    ],
)
def test_the_number_of_cells_follows_from_the_collection_and_the_sample(
    chunks: int, sampled: int, expected: int
) -> None:
    assert cell_count(CellsSpec(), chunks=chunks, sampled=sampled) == expected


@pytest.mark.parametrize(
    ("count", "chunks", "expected"),
    [
        (None, 1_024, 32 * 128),
        (None, 1_000_000, 32 * 4_096),
        (None, 10**9, 32 * 8_192),
        (None, 1, 32 * 16),
        (100, 1, 3_200),
        (8_193, 1, 262_144),  # enough for a fit, if not for a good one
        (65_536, 1, 8 * 65_536),
    ],
)
def test_the_sample_is_large_enough_for_the_cells_that_a_collection_gets(
    count: int | None, chunks: int, expected: int
) -> None:
    spec = CellsSpec(count=count)
    assert cell_sample(spec, chunks=chunks) == expected
    wanted = cell_count(spec, chunks=chunks, sampled=10**9)
    assert cell_count(spec, chunks=chunks, sampled=expected) == wanted


@pytest.mark.parametrize("spec", [CellsSpec(), CellsSpec(count=64)])
def test_a_sample_that_is_too_small_is_refused(spec: CellsSpec) -> None:
    assert cell_count(spec, chunks=10**6, sampled=512)
    with pytest.raises(FitError, match=r"the sample has 511 vectors, and .*cells need at least 512"):
        cell_count(spec, chunks=10**6, sampled=511)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("auto", CellsSpec()), (4096, CellsSpec(count=4096)), ({"count": 8, "seed": 3}, CellsSpec(count=8, seed=3))],
)
def test_short_forms(given: object, expected: CellsSpec) -> None:
    assert TypeAdapter(AnyCells).validate_python(given) == expected


@pytest.mark.parametrize("given", ["many", True, 1, 65_537, {"count": 1}, {"cells": 3}, {"seed": -1}, 2.5])
def test_other_forms_are_refused(given: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(AnyCells).validate_python(given)


def uneven(n: int = 4000, d: int = 16) -> np.ndarray:
    """Nine of ten vectors lie in one dense place, the others far apart."""
    rng = np.random.default_rng(0)
    dense = np.ones((n * 9 // 10, d)) + 0.1 * rng.normal(size=(n * 9 // 10, d))
    vectors = np.concatenate([dense, 5 * rng.normal(size=(n - len(dense), d))])
    return vectors.astype(np.float32)


def sizes_of(fitted: FittedCells, sample: np.ndarray) -> np.ndarray:
    return np.bincount(fitted.quantizer.encode(sample), minlength=fitted.quantizer.count)


def test_training_finds_separate_clusters() -> None:
    places = 3 * np.eye(8, 20)
    sample = (np.repeat(places, 50, axis=0) + 0.05 * np.random.default_rng(1).normal(size=(400, 20))).astype("<f4")
    cells = fit_cells(CellsSpec(), sample, 32, spherical=False).quantizer.encode(sample)
    owners = [set(np.repeat(np.arange(8), 50)[cells == cell].tolist()) for cell in np.unique(cells)]
    assert all(len(owner) == 1 for owner in owners)


class BadStart(training._Training):
    """k-means that leaves most vectors in one cell: all centroids but one are outliers."""

    __slots__ = ()
    starts: ClassVar[list[int]] = []

    def kmeans(self, vectors: np.ndarray, count: int) -> CellQuantizer:
        if self.starts:
            return super().kmeans(vectors, count)
        self.starts.append(count)
        return self.on_grid(np.ldexp(np.asarray(vectors[-count:], np.float64), self.exponent))


@pytest.mark.parametrize("spherical", [False, True])
def test_large_cells_are_split_and_the_figures_are_those_of_the_sample(
    monkeypatch: pytest.MonkeyPatch, spherical: bool
) -> None:
    sample = uneven()
    if spherical:
        sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    monkeypatch.setattr(training, "_Training", BadStart)
    monkeypatch.setattr(BadStart, "starts", [])
    fitted = fit_cells(CellsSpec(), sample, 64, spherical=spherical)
    sizes = sizes_of(fitted, sample)
    assert fitted.imbalance_before > 3 * fitted.imbalance
    assert fitted.rounds > 0
    assert fitted.imbalance == imbalance_factor(sizes)
    assert fitted.largest == pytest.approx(sizes.max() / (len(sample) / 64))
    assert fitted.largest <= LARGEST_SHARE
    lengths = np.linalg.norm(fitted.quantizer.centroids(), axis=1)
    assert bool(np.allclose(lengths, 1.0, atol=1e-4)) == spherical


def test_copies_of_one_vector_are_not_split_for_ever() -> None:
    sample = np.concatenate([np.repeat(unit(1, 8), 900, axis=0), unit(100, 8, seed=1)])
    fitted = fit_cells(CellsSpec(), sample, 16, spherical=True)
    assert fitted.largest > LARGEST_SHARE
    same = fit_cells(CellsSpec(), np.repeat(unit(1, 8), 200, axis=0), 4, spherical=True)
    assert same.imbalance == 4.0


def test_spherical_centroids_have_unit_length_and_others_are_means() -> None:
    sample = unit(1500, 12)
    spherical = fit_cells(CellsSpec(), sample, 16, spherical=True).quantizer
    assert np.allclose(np.linalg.norm(spherical.centroids(), axis=1), 1.0, atol=1e-5)
    means = fit_cells(CellsSpec(), sample, 16, spherical=False).quantizer
    assert (np.linalg.norm(means.centroids(), axis=1) < 0.95).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e5])
def test_vectors_of_any_length_are_divided_in_the_same_way(scale: float) -> None:
    sample = uneven(2000) * np.float32(scale)
    fitted = fit_cells(CellsSpec(), sample, 32, spherical=False)
    assert fitted.largest <= LARGEST_SHARE
    assert (sizes_of(fitted, sample) > 0).sum() > 25


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_a_sample_that_is_not_finite_is_refused(bad: float) -> None:
    sample = unit(600, 8)
    sample[7, 3] = bad
    with pytest.raises(FitError, match="1 of 600 transformed vectors of the sample"):
        fit_cells(CellsSpec(), sample, 16, spherical=False)


def test_fewer_vectors_than_cells_are_refused_and_few_are_warned_about() -> None:
    with pytest.raises(FitError, match="the sample has 15 vectors for 16 cells"):
        fit_cells(CellsSpec(), unit(15, 8), 16, spherical=True)
    few, enough = (fit_cells(CellsSpec(), unit(n, 8), 16, spherical=True) for n in (511, 512))
    assert "the sample has 511 vectors for 16 cells, fewer than 32 for each" in few.warnings[0]
    assert enough.warnings == ()


def test_another_seed_gives_other_centroids_and_the_same_one_the_same() -> None:
    sample = unit(1000, 8)
    first, same, other = (fit_cells(CellsSpec(seed=n), sample, 16, spherical=True).quantizer.grid for n in (0, 0, 1))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


_TRAIN = """
import hashlib
from tests.isospace.transform.test_cells import uneven
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizers import fit_cells
# So that cells are split, too.
fit_cells.LARGEST_SHARE = 1.5
fitted = fit_cells.fit_cells(CellsSpec(), uneven(6000, 96), 128, spherical=True)
assert fitted.rounds
print(hashlib.sha256(fitted.quantizer.grid.tobytes()).hexdigest())
"""


def test_training_gives_the_same_bits_with_any_number_of_threads() -> None:
    digests = set()
    for threads in ("1", "2", "3"):
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        found = subprocess.run(
            [sys.executable, "-c", _TRAIN],
            capture_output=True,
            text=True,
            check=True,
            env={**dict.fromkeys(names, threads), "PYTHONPATH": ":".join(sys.path)},
        )
        digests.add(found.stdout.strip().splitlines()[-1])
    assert len(digests) == 1


def test_faiss_trains_in_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    seen = []

    class Watched(faiss.Kmeans):
        def train(self, *given: Any, **named: Any) -> Any:
            seen.append(faiss.omp_get_max_threads())
            return super().train(*given, **named)

    monkeypatch.setattr(faiss, "Kmeans", Watched)
    monkeypatch.setattr(training, "LARGEST_SHARE", 1.5)
    fit_cells(CellsSpec(), uneven(), 64, spherical=False)
    assert len(seen) > 1
    assert set(seen) == {1}


def test_without_faiss_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    importing = builtins.__import__

    def without(name: str, *given: Any, **named: Any) -> Any:
        if name == "faiss":
            raise ModuleNotFoundError("No module named 'faiss'")
        return importing(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(FitError, match=r"training needs faiss\. Run: pip install .*\[pq\]'$"):
        fit_cells(CellsSpec(), unit(100, 8), 4, spherical=True)


def test_means_are_exact_sums() -> None:
    grid = np.array([[3, 5], [4, 5], [2**24, -(2**24)], [2**24 - 1, 0], [2**24, 1]], np.float32)
    state = training._State(
        CellQuantizer(np.array([[1, 1], [9, 9], [2, 2]], np.int32), 0), np.array([0, 0, 2, 2, 2], "<u2")
    )
    means = training._means(state, grid)
    assert means.tolist() == [[3.5, 5.0], [9.0, 9.0], [(3 * 2**24 - 1) / 3, (1 - 2**24) / 3]]


def test_the_imbalance_factor_is_one_for_equal_cells_and_their_number_for_a_single_full_one() -> None:
    assert imbalance_factor(np.array([7, 7, 7])) == 1.0
    assert imbalance_factor(np.array([0, 12, 0, 0])) == 4.0
    assert imbalance_factor(np.array([1, 3])) == 2 * 10 / 16
    assert imbalance_factor(np.zeros(3, np.int64)) == 0.0
