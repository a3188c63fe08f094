"""Shards answer as one process does: hits, scores bit for bit, order, documents, and errors."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

from isospace.errors import IsospaceError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions, search_options
from isospace.service.limits import Limits
from isospace.service.settings import Settings
from isospace.service.shard_app import create_shard_app
from tests.helpers.documents import sentences
from tests.helpers.serving import serving_app
from tests.helpers.sharded import open_shard

QUERIES = ["the protein of a cell", "number 0 3.", "search index of the text 0", "gene gene vector", "title 17"]
QUERIES += list(sentences(8, seed=9, words=5).values())

MODES: list[dict[str, Any]] = [
    {"mode": "exact"},
    {"mode": "auto", "metric": "l2"},
    {"mode": "exact", "metric": "l1"},
    {"mode": "exact", "metric": "dot"},
    {"mode": "quantized", "representation": "int8"},
    {"mode": "quantized", "representation": "int8", "rescore": 0},
    {"mode": "quantized", "representation": "int8", "metric": "l2"},
    {"mode": "quantized", "representation": "int8", "metric": "l2", "rescore": 0},
    {"mode": "quantized", "representation": "binary"},
    {"mode": "quantized", "representation": "binary", "rescore": 0},
    {"mode": "tiered"},
    {"mode": "lexical"},
    {"mode": "sparse"},
    {"mode": "hybrid"},
    {"mode": "hybrid", "fusion": "weighted", "weights": (1.0, 0.3), "depth": 30},
    {"mode": "approximate", "recall": 0.8},
    {"mode": "approximate", "recall": 0.9, "metric": "l2"},
    {"mode": "approximate", "recall": 0.99},
]
MORE: list[dict[str, Any]] = [
    {},
    {"filter": 'lang == "en" and year >= 2000'},
    {"filter": 'odd == "17" or "a" in tags', "scope": "rare == True or year < 2010"},
    {"group_by": "document", "per_document": 3},
    {"group_by": "document", "k": 25, "filter": 'lang != "fr"'},
    {"diversity": 0.4, "depth": 40},
    {"offset": 20, "depth": 60},
    {"neighbors": 2, "explain": True},
    {"neighbors": "section"},
    {"rerank": True, "depth": 25},
]


def outcome(index: Index, queries: list[str], **options: Any) -> Any:
    """Return hits and visits as plain values, or the error."""
    try:
        answer = index.answer(queries, search_options(options))
    except IsospaceError as error:
        return type(error).__name__, str(error)
    assert answer.missing is None
    return [[hit.as_dict() for hit in hits] for hits in answer.hits], answer.visited, answer.snapshot_id


@pytest.mark.parametrize(
    "more", [*MORE[:3], *(pytest.param(one, marks=pytest.mark.integration) for one in MORE[3:])], ids=str
)
@pytest.mark.parametrize("mode", MODES, ids=str)
def test_answers_are_equal(
    whole: Index, front: Index, mode: dict[str, Any], more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.approximate.index._FEW_ROWS", 100)
    options = {"k": 8, **mode, **more}
    expected = outcome(whole, QUERIES, **options)
    assert outcome(front, QUERIES, **options) == expected
    # Alone as in a batch.
    assert outcome(front, QUERIES[:1], **options) == outcome(whole, QUERIES[:1], **options)


def test_there_is_something_to_compare(whole: Index, front: Index) -> None:
    clients = front.shard_clients
    assert clients is not None
    chunks = [client for client in clients.each if client.counts["ok"]]
    assert len(chunks) == len(clients.each)
    hits = whole.search(QUERIES, 10, mode="exact", explain=True)
    assert all(len(found) == 10 for found in hits)
    # Copies tie, in several shards.
    tied = whole.search("number 0 3.", 60, mode="lexical")[0]
    assert len({hit.score for hit in tied}) < len(tied)
    answer = whole.answer(QUERIES, SearchOptions(mode="approximate", recall=0.8))
    assert all(visited is not None and visited.rows < len(whole.view.copy) for visited in answer.visited)


@pytest.mark.parametrize("options", [{}, {"group_by": "document"}, {"scope": 'lang == "en"'}], ids=str)
def test_chunks_like_others_are_equal(whole: Index, front: Index, options: dict[str, Any]) -> None:
    hits = whole.search(QUERIES, 3, mode="exact", filter='lang == "en"')
    for found in hits:
        ids = [hit.chunk_id for hit in found]
        for asked in (ids[0], ids):
            assert front.more_like(asked, 7, **options) == whole.more_like(asked, 7, **options)


def test_a_chunk_that_does_not_exist_or_is_hidden_is_unknown_alike(whole: Index, front: Index) -> None:
    hidden = whole.search(QUERIES[0], 1, mode="exact", filter='lang == "de"')[0][0].chunk_id
    for asked, options in (("nothing", {}), (hidden, {"scope": 'lang == "en"'}), (["\ud800"], {})):
        said = []
        for index in (whole, front):
            with pytest.raises(IsospaceError) as error:
                index.more_like(asked, 3, **options)  # type: ignore[arg-type]
            said.append((type(error.value), str(error.value)))
        assert said[0] == said[1]


@pytest.mark.parametrize(
    "options",
    [
        {"filter": "nosuch == 1"},
        {"filter": "year == 'x'"},
        {"filter": "("},
        {"scope": "nosuch == 1"},
        {"mode": "exact", "representation": "int8"},
        {"mode": "tiered", "representation": "nosuch"},
        {"mode": "approximate", "metric": "l1"},
        {"mode": "quantized", "offset": 90, "k": 20},
    ],
    ids=str,
)
def test_errors_are_equal(whole: Index, front: Index, options: dict[str, Any]) -> None:
    expected = outcome(whole, QUERIES[:2], **options)
    assert isinstance(expected[0], str)
    assert outcome(front, QUERIES[:2], **options) == expected


def test_highlights_and_percentiles_are_equal(whole: Index, front: Index) -> None:
    hits = whole.search("the protein number 0 3.", 20, mode="exact")[0]
    spans = whole.highlights("the protein number 0 3.", hits)
    assert front.highlights("the protein number 0 3.", hits) == spans
    assert any(spans)
    assert np.array_equal(front.view.chance, whole.view.chance)


def test_vectors_are_searched_alike(whole: Index, front: Index) -> None:
    vectors = whole.space.embed(QUERIES[:3], "query")
    assert front.search_vectors(vectors, 6) == whole.search_vectors(vectors, 6)
    assert front.search_vectors(np.zeros((0, vectors.shape[1]), np.float32), 6) == []
    zero = np.zeros((1, vectors.shape[1]), np.float32)
    assert front.search_vectors(zero, 6, metric="dot") == whole.search_vectors(zero, 6, metric="dot")


@pytest.mark.parametrize("options", [{"mode": "exact"}, {"mode": "approximate", "recall": 0.9}], ids=str)
def test_more_queries_than_a_shard_accepts_at_once_are_sent_in_portions(
    sharded_store: str, whole: Index, cache: None, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.shards.view._QUERY_BYTES", 10_000)
    settings = Settings(limits=Limits(body_bytes=30_000))
    vectors = np.repeat(whole.space.embed(QUERIES, "query"), 40, axis=0)
    assert vectors.nbytes > settings.limits.body_bytes
    with ExitStack() as stack:
        shards = [stack.enter_context(open_shard(sharded_store, number, 2)) for number in (1, 2)]
        urls = [stack.enter_context(serving_app(create_shard_app(shard, settings), settings)) for shard in shards]
        front = stack.enter_context(open_index(sharded_store, "c", encode=False, shards=urls))
        assert front.search_vectors(vectors, 3, **options) == whole.search_vectors(vectors, 3, **options)
        # The answers are those of each query alone, in any portion.
        assert front.search_vectors(vectors[:0], 3, **options) == []
