"""An answer depends neither on the kernel nor on the queries beside it, however close together the vectors lie."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import TypeAdapter

from isospace.search.vector.kernels import Codes, Kernels, candidates
from isospace.search.vector.rescoring import Candidates, keyed_nearest, nearest, wanted_rows
from isospace.search.vector.scoring import Metric, score_rows
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import Float32Spec, RepresentationSpec
from isospace.transform.vectors import unit

SPECS = TypeAdapter(tuple[RepresentationSpec, ...]).validate_python(
    [
        "float32",
        "float16",
        "int8",
        {"kind": "int8", "name": "int8_affine", "range": "affine"},
        {"kind": "int8", "name": "int8_whole", "range": "affine", "percentile": 100},
        {"kind": "int8", "name": "int8_global", "granularity": "global"},
        {"kind": "int8", "name": "int8_vector", "granularity": "vector"},
        {"kind": "int8", "name": "int8_vector_affine", "granularity": "vector", "range": "affine"},
        "binary",
        "rabitq",
        {"kind": "pq", "subvectors": 8},
        {"kind": "short", "dimensions": 8},
    ]
)
INT8 = tuple(spec for spec in SPECS if spec.name.startswith("int8"))
COUNT, DIMENSION, QUERIES = 3000, 64, 24
specs = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


def made(shape: str) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors and queries: spread evenly, in one or many clusters, steep, or with many copies."""
    rng = np.random.default_rng(11)
    vectors, queries = (rng.standard_normal((n, DIMENSION)) for n in (COUNT, QUERIES))
    center = rng.standard_normal(DIMENSION) / np.sqrt(DIMENSION)
    match shape:
        case "spread":
            pass
        case "steep":
            vectors, queries = (side * np.geomspace(1, 1e-4, DIMENSION) for side in (vectors, queries))
        case "copies":
            vectors = vectors[rng.integers(0, 20, COUNT)]
        case "many clusters":
            centers = rng.standard_normal((30, DIMENSION))
            vectors, queries = (centers[rng.integers(0, 30, len(side))] + 0.02 * side for side in (vectors, queries))
        case radius:
            vectors, queries = (center + float(radius) * side for side in (vectors, queries))
    return unit(vectors.astype(np.float32)), unit(queries.astype(np.float32))


SHAPES = ["spread", "steep", "copies", "many clusters", "0.05", "0.003", "0.0002"]


def answers(
    first: Codes, last: Codes, queries: np.ndarray, kernels: str, *, rescore: int, rows: np.ndarray | None = None
) -> list[list[int]]:
    found = nearest(first, last, queries, 10, metric="cosine", rescore=rescore, rows=rows, kernels=kernels)
    return [near[np.lexsort((near, -scores))[:10]].tolist() for near, scores in found]


@specs
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rescore", [0, 4])
def test_every_kernel_gives_the_same_answer(spec: RepresentationSpec, shape: str, rescore: int) -> None:
    vectors, queries = made(shape)
    quantizer = fit_quantizer(spec, vectors[:2000])
    first = Codes(spec.name, quantizer, quantizer.encode(vectors))
    exact = Codes("float32", fit_quantizer(Float32Spec(), vectors), vectors)
    last = exact if rescore and spec.kind != "float32" else first
    plain = answers(first, last, queries, "numpy", rescore=rescore)
    assert answers(first, last, queries, "fast", rescore=rescore) == plain
    assert [answers(first, last, query[None], "fast", rescore=rescore)[0] for query in queries] == plain
    some = np.arange(5, COUNT, 3)
    by_rows = [answers(first, last, queries, name, rescore=rescore, rows=some) for name in ("numpy", "fast")]
    assert by_rows[0] == by_rows[1]


@pytest.mark.parametrize("spec", INT8, ids=lambda spec: spec.name)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_candidates_of_int8_include_the_best_by_their_exact_scores(
    spec: RepresentationSpec, shape: str, scale: float
) -> None:
    vectors, queries = made(shape)
    lengths = scale * np.random.default_rng(2).uniform(0.1, 1.0, (COUNT, 1)).astype(np.float32)
    longer = vectors * lengths
    quantizer = fit_quantizer(spec, longer[:2000])
    codes = Codes(spec.name, quantizer, quantizer.encode(longer), (lengths[:, 0] ** 2).astype(np.float32))
    for query, near in zip(queries, candidates(codes, queries, 10, metric="dot", kernels="fast"), strict=True):
        scores = score_rows(codes, query, np.arange(COUNT), "dot")
        assert set(np.lexsort((np.arange(COUNT), -scores))[:10]) <= set(near.tolist())


@pytest.mark.parametrize("spec", INT8, ids=lambda spec: spec.name)
def test_few_rows_are_candidates_where_vectors_are_spread(spec: RepresentationSpec) -> None:
    """If the bound on the error were far too large, every row would be scored exactly."""
    vectors, queries = made("spread")
    quantizer = fit_quantizer(spec, vectors[:2000])
    found = candidates(
        Codes(spec.name, quantizer, quantizer.encode(vectors)), queries, 10, metric="cosine", kernels="fast"
    )
    assert np.mean([len(near) for near in found]) < 100


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind != "binary"], ids=lambda spec: spec.name)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("kernels", ["numpy", "fast"])
def test_candidates_to_rescore_are_those_of_the_metric(spec: RepresentationSpec, metric: str, kernels: str) -> None:
    """Inner products are those of the codes; lengths are those of the vectors before encoding."""
    vectors, queries = made("0.05")
    lengths = np.random.default_rng(2).uniform(0.5, 2.0, (COUNT, 1)).astype(np.float32)
    longer = vectors * lengths
    quantizer = fit_quantizer(spec, longer[:2000])
    codes = Codes(spec.name, quantizer, quantizer.encode(longer), (lengths[:, 0] ** 2).astype(np.float32))
    products = queries.astype(np.float64) @ quantizer.decode(codes.array).astype(np.float64).T
    sizes = lengths[:, 0].astype(np.float64)
    ranked = {"dot": products, "cosine": products / sizes, "l2": products - sizes**2 / 2}[metric]
    found = candidates(codes, queries, 10, metric=metric, kernels=kernels, rescored=True)
    for scores, near in zip(ranked, found, strict=True):
        assert set(np.argsort(-scores, kind="stable")[:10].tolist()) <= set(near.tolist())


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind != "binary"], ids=lambda spec: spec.name)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("is_unit", [True, False])
@pytest.mark.parametrize("kernels", ["numpy", "fast"])
def test_candidates_of_a_single_stage_include_the_best_by_their_scores(
    spec: RepresentationSpec, metric: Metric, is_unit: bool, kernels: Kernels
) -> None:
    """Scores are those of the decoded vectors, whose lengths are not those from before encoding."""
    vectors, queries = made("0.05")
    lengths = np.random.default_rng(2).uniform(0.5, 2.0, (COUNT, 1)).astype(np.float32)
    vectors = vectors if is_unit else vectors * lengths
    quantizer = fit_quantizer(spec, vectors[:2000])
    squares = None if is_unit else (lengths[:, 0] ** 2).astype(np.float32)
    codes = Codes(spec.name, quantizer, quantizer.encode(vectors), squares)
    some = np.arange(3, COUNT, 2)
    for rows in (None, some):
        found = nearest(codes, codes, queries, 10, metric=metric, rescore=0, rows=rows, kernels=kernels)
        searched = np.arange(COUNT) if rows is None else rows
        for query, (near, _) in zip(queries, found, strict=True):
            scores = score_rows(codes, query, searched, metric)
            assert set(searched[np.lexsort((searched, -scores))[:10]].tolist()) <= set(near.tolist())


def test_candidates_by_distance_of_a_short_query_are_not_lost_to_rounding() -> None:
    """The squared lengths are far greater than the inner products, and rounded in float32."""
    rng = np.random.default_rng(4)
    vectors = (30.0 * unit(rng.standard_normal((2000, DIMENSION)).astype(np.float32))).astype(np.float32)
    queries = (1e-4 * unit(rng.standard_normal((20, DIMENSION)).astype(np.float32))).astype(np.float32)
    quantizer = fit_quantizer(Float32Spec(), vectors)
    codes = Codes("float32", quantizer, vectors, (vectors.astype(np.float64) ** 2).sum(axis=1).astype(np.float32))
    for query, near in zip(queries, candidates(codes, queries, 5, metric="l2", kernels="numpy"), strict=True):
        scores = score_rows(codes, query, np.arange(2000), "l2")
        assert set(np.lexsort((np.arange(2000), -scores))[:5].tolist()) <= set(near.tolist())


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.kind != "float32"], ids=lambda spec: spec.name)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("is_unit", [True, False])
@pytest.mark.parametrize("rescore", [0, 3])
def test_parts_of_a_collection_choose_the_candidates_of_the_whole(
    spec: RepresentationSpec, metric: Metric, is_unit: bool, rescore: int
) -> None:
    vectors, queries = made("0.05")
    lengths = np.random.default_rng(2).uniform(0.5, 2.0, (COUNT, 1)).astype(np.float32)
    vectors = vectors if is_unit else (vectors * lengths).astype(np.float32)
    quantizer = fit_quantizer(spec, vectors[:2000])
    squares = None if is_unit else (vectors.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)

    def stages(part: slice) -> tuple[Codes, Codes]:
        own = None if squares is None else squares[part]
        first = Codes(spec.name, quantizer, quantizer.encode(vectors[part]), own)
        exact = Codes("float32", fit_quantizer(Float32Spec(), vectors), vectors[part], own)
        return first, exact if rescore else first

    def search(part: slice) -> list[Candidates]:
        options = {"metric": metric, "rescore": rescore, "rows": None, "kernels": "numpy"}
        return keyed_nearest(*stages(part), queries, 10, **options)

    cuts = (slice(0, 700), slice(700, 1900), slice(1900, COUNT))
    each = [search(part) for part in cuts]
    first, _ = stages(slice(0, COUNT))
    wanted = wanted_rows(first, 10, COUNT, rescore=rescore, is_rescored=bool(rescore))
    for number, whole in enumerate(search(slice(0, COUNT))):
        rows = np.concatenate([found[number].rows + part.start for found, part in zip(each, cuts, strict=True)])
        keys, scores = (np.concatenate([getattr(found[number], name) for found in each]) for name in ("keys", "scores"))
        merged = Candidates(rows, keys, scores).best(wanted)
        assert sorted(zip(merged.rows, merged.scores, strict=True)) == sorted(
            zip(whole.rows, whole.scores, strict=True)
        )
