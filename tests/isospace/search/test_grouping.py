"""Documents by their best chunks, compared with all chunks in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isospace.errors import QueryError
from isospace.search.hits import Hit
from isospace.search.index import Index
from isospace.search.open_index import open_index
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline

QUERIES = ["the protein of a cell", "title d00003", "a gene in the sea"]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Index]:
    folder = tmp_path_factory.mktemp("grouping")
    texts = list(sentences(160).values())
    # One to nine chunks per document, and the longest ones say the same again and again.
    documents = {f"d{n:03}": ". ".join(texts[n : n + 1 + (n * 7) % 9]) for n in range(60)}
    documents |= {f"e{n}": ". ".join([texts[3]] * 12) for n in range(3)}
    recipe = {
        "chunking": {"max_tokens": 16, "overlap_tokens": 0},
        "transform": {"representations": ["float32", "int8"]},
    }
    embed_inline(configuration(tiny_model, write_jsonl(folder / "d.jsonl", documents), folder / "store", recipe=recipe))
    with open_index(folder / "store", "c") as opened:
        assert len(opened.view.copy) > 3 * opened.view.manifest.documents
        yield opened


def grouped(hits: list[Hit], k: int, most: int) -> list[tuple[str, float]]:
    """Group a complete ranking by hand."""
    found: dict[str, list[Hit]] = {}
    for hit in hits:
        found.setdefault(hit.doc_id, []).append(hit)
    return [(hit.chunk_id, hit.score) for members in list(found.values())[:k] for hit in members[:most]]


@pytest.mark.parametrize("options", [
    {"mode": "exact"}, {"mode": "auto"}, {"mode": "lexical"}, {"mode": "exact", "metric": "l2"},
    {"mode": "auto", "filter": 'doc_id >= "d030"'}, {"mode": "auto", "representation": "float32"},
    {"mode": "exact", "scope": 'doc_id < "d020" or doc_id >= "e"'}, {"mode": "hybrid", "depth": 5000},
])  # fmt: skip
@pytest.mark.parametrize(("k", "most"), [(1, 1), (5, 1), (5, 3), (1000, 100), (3, 100)])
def test_documents_are_those_of_the_whole_ranking(index: Index, options: dict[str, Any], k: int, most: int) -> None:
    whole = index.search(QUERIES, 5000, **options)
    found = index.search(QUERIES, k, group_by="document", per_document=most, **options)
    for hits, every in zip(found, whole, strict=True):
        assert [(hit.chunk_id, hit.score) for hit in hits] == grouped(every, k, most)


@pytest.mark.parametrize(
    "options", [{"mode": "hybrid"}, {"mode": "quantized"}, {"mode": "hybrid", "fusion": "weighted"}]
)
@pytest.mark.parametrize("k", [1, 10, 63])
def test_fused_and_quantized_searches_find_so_many_documents(index: Index, options: dict[str, Any], k: int) -> None:
    for hits in index.search(QUERIES, k, group_by="document", per_document=2, **options):
        names = [hit.doc_id for hit in hits]
        assert len(set(names)) == k
        assert max(map(names.count, names)) <= 2
        # Contiguous, and in the order of the best chunks.
        assert [name for n, name in enumerate(names) if name not in names[:n]] == list(dict.fromkeys(names))
        best = [next(hit.score for hit in hits if hit.doc_id == name) for name in dict.fromkeys(names)]
        assert best == sorted(best, reverse=True)


@pytest.mark.parametrize("fusion", ["rrf", "weighted"])
def test_documents_of_a_hybrid_search_are_grouped_from_one_ranking(index: Index, fusion: Any) -> None:
    """Scores of fused rows depend on what they were ranked with."""
    whole = index.search(QUERIES, 100, mode="hybrid", fusion=fusion)
    found = index.search(QUERIES, 10, mode="hybrid", fusion=fusion, group_by="document", per_document=9)
    for hits, every in zip(found, whole, strict=True):
        assert [(hit.chunk_id, hit.score) for hit in hits] == grouped(every, 10, 9)


def test_many_chunks_of_one_document_do_not_hide_the_others(index: Index) -> None:
    repeated = index.view.texts([index.chunks.num_rows - 1])[0]
    assert len({hit.doc_id for hit in index.search(repeated, 20)[0]}) < 20
    assert len({hit.doc_id for hit in index.search(repeated, 20, group_by="document")[0]}) == 20


def test_hits_come_with_the_text_around_them(index: Index) -> None:
    chunks = index.chunks.to_pylist()
    for hit in index.search(QUERIES[0], 30, neighbors=1)[0]:
        own = [chunk for chunk in chunks if chunk["doc_id"] == hit.doc_id]
        place = [chunk["chunk_id"] for chunk in own].index(hit.chunk_id)
        near = own[max(0, place - 1) : place + 2]
        assert (hit.context_start, hit.context_end) == (near[0]["start"], near[-1]["end"])
        assert all(chunk["text"] in hit.context for chunk in near)
        assert "…" not in hit.context
    assert index.search(QUERIES[0], 1)[0][0].context == ""


class Backwards:
    reranker_id = "backwards"

    def scores(self, query: str, texts: list[str]) -> list[float]:
        return [float(place) for place in range(len(texts))]


def test_reranked_chunks_are_grouped_afterwards(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "reranker", Backwards())
    options: dict[str, Any] = {"rerank": True, "depth": 40}
    chunks = index.search(QUERIES[0], 40, **options)[0]
    found = index.search(QUERIES[0], 4, group_by="document", per_document=2, **options)[0]
    assert [(hit.chunk_id, hit.score) for hit in found] == grouped(chunks, 4, 2)


def test_options_are_checked(index: Index) -> None:
    with pytest.raises(QueryError, match="per_document"):
        index.search(QUERIES, per_document=0)
    with pytest.raises(QueryError, match='per_document = 3: needs group_by = "document"'):
        index.search(QUERIES, per_document=3)
    with pytest.raises(QueryError, match="group_by"):
        index.search(QUERIES, group_by="title")  # type: ignore[arg-type]
    assert index.search([], group_by="document") == []
    vectors = index.space.embed(QUERIES, "query")
    by_text, by_vector = (
        index.search(QUERIES, 5, group_by="document"),
        index.search_vectors(vectors, 5, group_by="document"),
    )
    assert [[hit.chunk_id for hit in hits] for hits in by_text] == [
        [hit.chunk_id for hit in hits] for hits in by_vector
    ]
