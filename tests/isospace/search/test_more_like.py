"""Chunks like others: what an exact search with the stored vectors finds, without the chunks themselves."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from isospace.errors import MismatchError, NotFoundError, QueryError, ScopeError
from isospace.search.index import Index
from isospace.search.local.copy import LocalCopy
from isospace.search.more_like import MOST_CHUNKS, example_of
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.search.query_cache import CacheConfig
from tests.isospace.search.test_view import NAMES, VECTORS, view

VECTOR_MODES: list[dict[str, Any]] = [
    {},
    {"mode": "exact"},
    {"mode": "exact", "metric": "l2"},
    {"mode": "quantized", "rescore": 1000},
    {"mode": "tiered", "rescore": 1000},
    {"filter": 'doc_id >= "d020"'},
    {"scope": 'doc_id < "d050"'},
]


def mean_of(index: Index, rows: list[int]) -> np.ndarray:
    mean = index.vectors[rows].astype(np.float64).mean(axis=0)
    return (mean / np.linalg.norm(mean) if len(rows) > 1 else mean).astype(np.float32)[None]


@pytest.mark.parametrize("rows", [[5], [20, 7, 90]])
@pytest.mark.parametrize("options", VECTOR_MODES, ids=str)
def test_it_is_a_search_with_the_stored_vectors_without_their_chunks(
    varied: Index, rows: list[int], options: dict[str, Any]
) -> None:
    chunks = varied.chunks.to_pylist()
    names = [chunks[row]["chunk_id"] for row in rows]
    whole = varied.search_vectors(mean_of(varied, rows), 1000, **options)[0]
    expected = [hit for hit in whole if hit.chunk_id not in names]
    assert varied.more_like(names, 12, **options) == expected[:12]
    assert varied.more_like(names, 1000, **options) == expected
    pages = [varied.more_like(names[::-1], 5, offset=offset, **options) for offset in range(0, 20, 5)]
    assert [hit for page in pages for hit in page] == expected[:20]


@pytest.mark.parametrize("more", [{}, {"per_document": 3}, {"mode": "quantized"}], ids=str)
def test_by_documents_those_of_the_chunks_are_left_out(varied: Index, more: dict[str, Any]) -> None:
    chunks = varied.chunks.to_pylist()
    members = [chunk for chunk in chunks if chunk["doc_id"] in ("d005", "e1")]
    names = [members[0]["chunk_id"], members[-1]["chunk_id"]]
    vector = mean_of(varied, [n for n, chunk in enumerate(chunks) if chunk["chunk_id"] in names])
    found = varied.more_like(names, 10, group_by="document", **more)
    documents = list(dict.fromkeys(hit.doc_id for hit in found))
    assert len(documents) == 10
    assert not {"d005", "e1"} & set(documents)
    whole = varied.search_vectors(vector, 12, group_by="document", **more)[0]
    assert found == [hit for hit in whole if hit.doc_id not in ("d005", "e1")][: len(found)]


def test_one_chunk_is_searched_with_as_it_is_stored(varied: Index) -> None:
    names = varied.chunks["chunk_id"].to_pylist()
    example = example_of(varied.view, names[3], SearchOptions())
    assert example.rows.tolist() == [3]
    assert example.vector.tobytes() == varied.vectors[3:4].tobytes()
    twice = example_of(varied.view, [names[3], names[3]], SearchOptions())
    assert twice.vector.tobytes() == example.vector.tobytes()


def test_neither_an_encoder_nor_a_cache_is_asked(varied_store: str) -> None:
    with open_index(varied_store, "c", encode=False, cache=CacheConfig(semantic=0.01)) as index:
        names = index.chunks["chunk_id"].to_pylist()
        vectors = index.vectors[:1]
        index.search_vectors(vectors, 5)
        assert names[0] not in {hit.chunk_id for hit in index.more_like(names[0], 5)}
        index.more_like(names[1], 5)
        assert names[0] in {hit.chunk_id for hit in index.search_vectors(vectors, 5)[0]}
        assert index.cache.counts.semantic == 1


@pytest.mark.parametrize("mode", ["lexical", "sparse", "hybrid"])
def test_what_needs_a_text_is_refused(varied: Index, mode: Any) -> None:
    name = varied.chunks["chunk_id"][0].as_py()
    with pytest.raises(QueryError, match=f"mode {mode}, rerank False: a search for chunks like '{name}' compares"):
        varied.more_like(name, mode=mode)
    with pytest.raises(QueryError, match="mode exact, rerank True"):
        varied.more_like(name, mode="exact", rerank=True)


@pytest.mark.parametrize(
    ("names", "message"),
    [([], "0 chunk IDs"), ([f"c{n}" for n in range(MOST_CHUNKS + 1)], "101 chunk IDs"), ([1], "expected a text")],
)
def test_ids_that_are_none_or_too_many_are_refused(varied: Index, names: Any, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        varied.more_like(names)
    assert len(varied.more_like(varied.chunks["chunk_id"].to_pylist()[:MOST_CHUNKS], 3)) == 3


@pytest.mark.parametrize("name", ["", "nothing", "\ud800", "%", "\u202e", "x" * 100_000])
def test_a_chunk_that_does_not_exist_is_named(varied: Index, name: str) -> None:
    known = varied.chunks["chunk_id"][0].as_py()
    with pytest.raises(NotFoundError, match=r"is not in snapshot 1\. Take the chunk_id of a hit") as caught:
        varied.more_like([known, name])
    assert len(str(caught.value)) < 1500
    assert known not in str(caught.value)


def test_a_chunk_out_of_scope_is_as_one_that_does_not_exist(varied: Index) -> None:
    hidden = next(chunk for chunk in varied.chunks.to_pylist() if chunk["doc_id"] == "d055")
    messages = []
    for name in (hidden["chunk_id"], "nothing"):
        with pytest.raises(NotFoundError) as caught:
            varied.more_like(name, scope='doc_id < "d050"')
        messages.append(str(caught.value).replace(name, "NAME"))
    assert messages[0] == messages[1]
    # What the caller asked for itself says where to search, and not from where.
    assert {hit.doc_id for hit in varied.more_like(hidden["chunk_id"], 5, filter='doc_id < "d002"')} <= {"d000", "d001"}
    with pytest.raises(ScopeError):
        varied.more_like(hidden["chunk_id"], scope="tenant == 1")
    with pytest.raises(MismatchError, match="requires the snapshot"):
        varied.more_like(hidden["chunk_id"], snapshot_id="0" * 64)


def test_the_mean_has_the_length_that_the_space_gives_its_vectors() -> None:
    made = view()
    # Rows 0 and 3 are at right angles.
    names = [NAMES[0], NAMES[3]]
    for normalization, expected in (("l2", [[0.5**0.5, 0.5**0.5]]), ("none", [[0.5, 0.5]])):
        transform = SimpleNamespace(normalization=normalization)
        record = SimpleNamespace(
            dimension=2, spec=SimpleNamespace(representations=made.space.space.record.spec.representations)
        )
        space = SimpleNamespace(space=SimpleNamespace(record=record, transform=transform))
        found = example_of(replace(made, space=space), names, SearchOptions())  # type: ignore[arg-type]
        assert found.vector.tolist() == np.array(expected, np.float32).tolist()


def test_vectors_that_cancel_each_other_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = view()
    opposite = np.array([[1, 0], [-1, 0], *VECTORS[2:].tolist()], np.float32)
    codes = {"float32": replace(made.copy.codes["float32"], array=opposite)}
    assert isinstance(made.copy, LocalCopy)
    made = replace(made, copy=replace(made.copy, codes=codes))
    with pytest.raises(QueryError, match="cancel each other"):
        example_of(made, NAMES[:2], SearchOptions())
