"""Every representation by every kernel against brute force over the decoded vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.errors import QueryError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.conftest import write_jsonl
from tests.helpers.inline import embed_inline
from tests.helpers.tiny import WORDS, build_tiny_model

REPRESENTATIONS = [
    "float32", "float16", "int8", {"kind": "int8", "name": "int8_vector", "granularity": "vector", "range": "affine"},
    {"kind": "int8", "name": "int8_affine", "range": "affine"}, "binary",
    {"kind": "binary", "name": "rotated", "rotation": True},
    "rabitq", {"kind": "pq", "subvectors": 8}, {"kind": "opq", "subvectors": 8}, {"kind": "short", "dimensions": 8},
]  # fmt: skip
NAMES = [r if isinstance(r, str) else r.get("name") or f"{r['kind']}8" for r in REPRESENTATIONS]  # type: ignore[attr-defined]
QUERY = "the protein of the cell"


def documents(count: int) -> dict[str, str]:
    chance = np.random.default_rng(5)
    return {f"d{n:05d}": " ".join([*chance.choice(WORDS, 14), f"{n}"]) for n in range(count)}


def make(folder: Path, *, normalization: str = "l2", count: int = 700) -> str:
    from isospace.pipeline.config import PipelineConfig

    model = build_tiny_model(folder / "model", dimension=32)
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(model)},
        "chunking": {"overlap_tokens": 4},
        "transform": {"representations": REPRESENTATIONS, "normalization": normalization, "fit": {"kind": "center"}},
    }
    source = write_jsonl(folder / "d.jsonl", documents(count))
    runtime = {"store": str(folder / "store"), "collection": "c", "source": str(source)}
    embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    return str(folder / "store")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("unit"))


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make(tmp_path_factory.mktemp("scaled"), normalization="none")


def brute(index: Index, name: str, query: np.ndarray, metric: str, k: int) -> list[str]:
    codes = index.view.copy.codes[name]
    vectors, asked = codes.quantizer.decode(np.asarray(codes.array)).astype(np.float64), query.astype(np.float64)
    scores = {
        "dot": vectors @ asked,
        "l2": -np.linalg.norm(vectors - asked, axis=1),
        "l1": -np.abs(vectors - asked).sum(axis=1),
    }
    scores["cosine"] = scores["dot"]
    if index.space.space.transform.normalization == "none":
        scores["cosine"] = scores["dot"] / np.linalg.norm(vectors, axis=1) / np.linalg.norm(asked)
    names = index.chunks["chunk_id"].to_pylist()
    return sorted(names, key=lambda name: (-round(float(scores[metric][names.index(name)]), 12), name))[:k]


def overlap(found: list[str], expected: list[str]) -> float:
    return len(set(found) & set(expected)) / len(expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernels", ["numpy", "fast"])
def test_a_search_of_codes_finds_what_brute_force_over_them_finds(store: str, name: str, kernels: str) -> None:
    index = open_index(store, "c", kernels=kernels)
    query = index.space.embed([QUERY, "gene text"], "query")
    mode = "tiered" if name == "short8" else "exact" if name.startswith("float") else "quantized"
    found = index.search_vectors(query, 10, mode=mode, representation=name, rescore=0)
    assert len(found) == 2
    for asked, hits in zip(query, found, strict=True):
        assert [hit.chunk_id for hit in hits] == brute(index, name, asked, "cosine", 10)


@pytest.mark.integration
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kernels", ["numpy", "fast"])
def test_rescoring_gives_scores_of_float32_and_finds_most(store: str, name: str, kernels: str) -> None:
    index = open_index(store, "c", kernels=kernels)
    query = index.space.embed([QUERY], "query")
    mode = "tiered" if name == "short8" else "exact" if name.startswith("float") else "quantized"
    found = index.search_vectors(query, 10, mode=mode, representation=name, rescore=20)[0]
    expected = brute(index, "float32", query[0], "cosine", 10)
    assert overlap([hit.chunk_id for hit in found], expected) >= (0.5 if name in ("binary", "rotated", "opq8") else 0.7)
    row = {name: n for n, name in enumerate(index.chunks["chunk_id"].to_pylist())}
    for hit in found:
        source = name if name == "float16" else "float32"
        vector = index.view.copy.codes[source].array[row[hit.chunk_id]].astype(np.float64)
        assert hit.score == pytest.approx(float(vector @ query[0].astype(np.float64)), abs=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
@pytest.mark.parametrize("kernels", ["numpy", "fast"])
@pytest.mark.parametrize("normalization", ["l2", "none"])
def test_each_metric_ranks_as_its_definition(
    store: str, scaled: str, metric: str, kernels: str, normalization: str
) -> None:
    index = open_index(store if normalization == "l2" else scaled, "c", kernels=kernels)
    query = index.space.embed([QUERY], "query")
    found = index.search_vectors(query, 15, mode="exact", metric=metric)[0]
    assert [hit.chunk_id for hit in found] == brute(index, "float32", query[0], metric, 15)
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)


@pytest.mark.integration
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("name", ["int8", "int8_vector", "int8_affine", "rabitq"])
def test_codes_of_vectors_of_any_length_rank_by_the_metric(scaled: str, metric: str, name: str) -> None:
    for kernels in ("numpy", "fast"):
        index = open_index(scaled, "c", kernels=kernels)
        query = index.space.embed([QUERY], "query")
        found = index.search_vectors(query, 10, mode="quantized", representation=name, rescore=0, metric=metric)[0]
        # The lengths are those of the vectors, not of their codes: nearly the same ranking.
        assert overlap([hit.chunk_id for hit in found], brute(index, name, query[0], metric, 10)) >= 0.8


@pytest.mark.parametrize("mode", ["exact", "quantized", "tiered", "lexical", "hybrid"])
def test_an_answer_depends_neither_on_kernels_nor_on_the_queries_beside_it(store: str, mode: str) -> None:
    texts = [QUERY, "search index", "gene", "vector text of this index", "by that with"]
    first = open_index(store, "c", kernels="numpy").search(texts, 10, mode=mode)
    second = open_index(store, "c", kernels="fast").search(texts[::-1], 10, mode=mode)[::-1]
    alone = [open_index(store, "c", kernels="fast").search(text, 10, mode=mode)[0] for text in texts]
    assert first == second == alone


def test_a_filter_leaves_what_passes_in_the_same_order(store: str) -> None:
    for kernels in ("numpy", "fast"):
        index = open_index(store, "c", kernels=kernels)
        for mode in ("exact", "lexical", "quantized", "tiered"):
            whole = index.search(QUERY, 700, mode=mode, rescore=700)[0]
            some = index.search(QUERY, 700, mode=mode, rescore=700, filter='doc_id >= "d00300" and doc_id < "d00400"')[
                0
            ]
            assert [hit.chunk_id for hit in some] == [h.chunk_id for h in whole if "d00300" <= h.doc_id < "d00400"]
            assert some
            assert index.search(QUERY, 5, mode=mode, filter='doc_id == "nothing"')[0] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "quantized", "representation": "float32"}, "can use int8"),
        ({"mode": "exact", "representation": "int8"}, "can use float32, float16"),
        ({"mode": "tiered", "representation": "int8"}, "can use short8"),
        ({"mode": "quantized", "metric": "l1"}, "metric l1 needs float32"),
        ({"metric": "manhattan"}, "metric"),
        ({"mode": "fuzzy"}, "mode"),
        ({"rescore": -1}, "expected 0 or more"),
        ({"weights": (1.0, float("nan"))}, "weights"),
        ({"colour": 1}, "Known: k, mode"),
        ({"rerank": True}, "no reranker"),
        ({"filter": "nope == 1"}, "no document has the field"),
    ],
)
def test_what_cannot_be_searched_is_refused_and_named(store: str, options: dict, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        open_index(store, "c").search(QUERY, **options)


def test_weights_of_one_side_alone_are_that_side(store: str) -> None:
    index = open_index(store, "c")
    words = [hit.chunk_id for hit in index.search(QUERY, 10, mode="lexical")[0]]
    near = [hit.chunk_id for hit in index.search(QUERY, 10, mode="exact")[0]]
    for fusion in ("rrf", "weighted"):
        by_words = index.search(QUERY, 10, mode="hybrid", weights=(0.0, 1.0), fusion=fusion)[0]
        by_vectors = index.search(QUERY, 10, mode="hybrid", weights=(1.0, 0.0), fusion=fusion)[0]
        assert [hit.chunk_id for hit in by_words] == words
        assert [hit.chunk_id for hit in by_vectors] == near
