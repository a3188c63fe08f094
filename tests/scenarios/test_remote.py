"""Searches in the store answer as those of a local copy do: same hits, scores, texts, and refusals."""

from __future__ import annotations

import functools
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from isospace.errors import IsospaceError, NotFoundError, QueryError
from isospace.pipeline.config import PipelineConfig
from isospace.search.approximate.index import ApproximateIndex
from isospace.search.index import Index
from isospace.search.local.choice import choose
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions
from isospace.search.remote.record import published_files, read_published
from isospace.search.remote_view import RemoteView
from isospace.search.vector.kernels import Codes
from isospace.service.app import create_app
from isospace.service.recall_watch import RecallWatch
from isospace.service.settings import ServiceOptions, Settings
from isospace.service.start import _open
from isospace.storage.store import open_store
from tests.helpers.documents import sentences
from tests.helpers.inline import embed_inline

COUNT = 1_300
QUERIES = ["the gene of the cell", "a wing in the flow number 0 17", "the text of the index"]
Rows = dict[str, dict[str, Any]]


def versions() -> list[Rows]:
    """Documents that are added, changed, and removed, two of them with the same text, and years that become texts."""
    texts = sentences(COUNT, words=9)
    rows: Rows = {
        name: {"text": text, "lang": "en" if n % 2 else "de", "year": 1900 + n % 120, "title": f"title {n % 7}"}
        for n, (name, text) in enumerate(texts.items())
    }
    for n, name in enumerate(list(rows)[:40]):
        # Ties: the same text in other documents.
        rows[f"copy{n:03d}"] = {**rows[name], "lang": "fr"}
    found = [dict(rows)]
    for number in range(1, 4):
        for place in range(number, COUNT, 97):
            rows.pop(f"d{place:05d}", None)
        changed = [name for n, name in enumerate(rows) if n % 211 == number]
        rows |= {name: {**rows[name], "text": f"{rows[name]['text']} changed {number}"} for name in changed}
        rows |= {f"n{number}{n}": {"text": f"new document {number} {n} of the cell", "lang": "en"} for n in range(9)}
        if number == 2:
            rows["odd"] = {"text": "its year is a text\u2028with \u202e marks", "lang": "en", "year": "n.d."}
        if number == 3:
            rows.pop("odd")
        found.append(dict(rows))
    return found


def configured(folder: Path, model: Path, rows: Rows, **recipe: Any) -> PipelineConfig:
    source = folder / "d.jsonl"
    source.write_text("".join(json.dumps({"doc_id": name, **row}) + "\n" for name, row in rows.items()))
    given = {
        "documents": {"metadata_columns": ["lang", "year"]},
        "encoder": {"model": str(model)},
        "chunking": {"max_tokens": 10, "overlap_tokens": 2},
        "transform": {"representations": ["int8", "binary"], "cells": 16},
        "search": {"remote": True},
        **recipe,
    }
    runtime = {
        "store": str(folder / "store"),
        "collection": "c",
        "source": str(source),
        "part_documents": 200,
        "max_removed_share": 1.0,
    }
    return PipelineConfig.model_validate({"recipe": given, "runtime": runtime})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("remote")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("isospace.search.remote.publish.choose", functools.partial(choose, small=0))
        for rows in versions():
            embed_inline(configured(folder, tiny_model, rows))
    return str(folder / "store")


@pytest.fixture
def pair(store: str) -> tuple[Index, Index]:
    """A local index and one without a copy."""
    return open_index(store, "c"), open_index(store, "c", local="none")


def outcome(index: Index, **options: Any) -> Any:
    try:
        return index.search(QUERIES, **options)
    except IsospaceError as error:
        return type(error), str(error)


def test_snapshots_share_published_groups_with_dead_rows(store: str) -> None:
    opened = open_store(store)
    last = read_published(opened, open_index(store, "c", encode=False).manifest)
    assert last is not None
    assert len(last.groups) > 1
    assert any(group.live for group in last.groups)
    first = read_published(opened, open_index(store, "c", 1, encode=False).manifest)
    assert first is not None
    assert {group.name for group in first.groups} <= {group.name for group in last.groups}


@pytest.mark.parametrize(
    "options",
    [
        {"k": 1},
        {"k": 12},
        {"k": 2_000},
        {"k": 10, "metric": "l2"},
        {"k": 10, "metric": "dot", "mode": "quantized"},
        {"k": 10, "mode": "lexical"},
        {"k": 10, "mode": "hybrid"},
        {"k": 10, "mode": "hybrid", "fusion": "weighted", "filter": 'lang == "en"'},
        {"k": 10, "filter": 'lang == "fr"'},
        {"k": 10, "filter": "year >= 1950 and year < 1960"},
        {"k": 10, "filter": 'title == "title 3"'},
        {"k": 10, "filter": "year == 3"},
        {"k": 10, "mode": "lexical", "filter": 'lang == "de"'},
        {"k": 10, "scope": 'lang == "de"', "filter": "year > 1910"},
        {"k": 10, "neighbors": 2},
        {"k": 10, "neighbors": "section"},
        {"k": 5, "group_by": "document", "per_document": 2},
        {"k": 5, "diversity": 0.5},
        {"k": 5, "explain": True},
        {"k": 5, "offset": 5},
        {"k": 5, "filter": 'language == "de"'},
        {"k": 5, "metric": "l1"},
        {"k": 5, "mode": "exact"},
        {"k": 5, "mode": "tiered"},
        {"k": 5, "representation": "nothing"},
        {"k": 5, "mode": "sparse", "filter": "?"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "snapshot",
    [pytest.param(1, marks=pytest.mark.integration), 3, pytest.param("production", marks=pytest.mark.integration)],
)
def test_every_search_answers_as_a_local_one(store: str, snapshot: int | str, options: dict[str, Any]) -> None:
    local, remote = open_index(store, "c", snapshot), open_index(store, "c", snapshot, local="none")
    assert outcome(remote, **options) == outcome(local, **options)


class _AllCandidates(ApproximateIndex):
    """A local index that scores every row of the cells that it visits."""

    def ranked(self, turned: Any, products: Any, cells: Any, count: int, bits: Any = None) -> Any:
        visited = np.flatnonzero(np.isin(np.concatenate([group.cells for group in self.groups]), cells))
        if bits is not None:
            masks = [
                np.unpackbits(one, bitorder="little", count=len(group.cells))
                for one, group in zip(bits, self.groups, strict=True)
            ]
            visited = visited[np.concatenate(masks)[visited] > 0]
        return visited.astype(np.int64), np.full(len(visited), -np.inf, np.float32)


@pytest.mark.parametrize("recall", [0.8, 0.95])
@pytest.mark.parametrize("metric", ["cosine", "dot"])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_a_search_of_the_same_cells_is_the_same(pair: tuple[Index, Index], recall: float, metric: Any, k: int) -> None:
    local, remote = pair
    index = local.view.approximate
    assert index is not None
    object.__setattr__(
        local.view, "approximate", _AllCandidates(index.groups, index.quantizer, index.learned, index.live)
    )
    options = SearchOptions(k=k, mode="approximate", recall=recall, metric=metric)
    queries = list(sentences(40, seed=5, words=6).values())
    one, other = local.answer(queries, options), remote.answer(queries, options)
    assert other.hits == one.hits
    assert [v.cells for v in other.visited if v] <= [v.cells for v in one.visited if v]
    assert [v.rows for v in other.visited if v] == [v.rows for v in one.visited if v]
    assert all(v is not None and v.recall == recall for v in other.visited)
    assert any(v is not None and v.rows < len(remote.view.copy) for v in other.visited)


@pytest.mark.parametrize("condition", ['lang == "de"', 'lang == "fr"', "year < 1905", "year == 3"])
def test_filtered_searches_reach_the_recall(pair: tuple[Index, Index], condition: str) -> None:
    local, remote = pair
    queries = list(sentences(60, seed=6, words=6).values())
    exact = local.search(queries, 5, filter=condition)
    found = remote.search(queries, 5, mode="approximate", recall=0.9, filter=condition)
    shares = [
        len({hit.chunk_id for hit in a} & {hit.chunk_id for hit in b}) / max(len(a), 1)
        for a, b in zip(exact, found, strict=True)
        if a
    ]
    assert np.mean(shares or [1.0]) >= 0.9
    scores = [{hit.chunk_id: hit.score for hit in hits} for hits in exact]
    for own, hits in zip(scores, found, strict=True):
        assert all(own[hit.chunk_id] == hit.score for hit in hits if hit.chunk_id in own)


def test_more_like_a_chunk_is_the_same(pair: tuple[Index, Index]) -> None:
    local, remote = pair
    names = [hit.chunk_id for hit in local.search(QUERIES[0], 3)[0]]
    for chosen in (names[:1], names):
        assert remote.more_like(chosen, 6) == local.more_like(chosen, 6)
    for unknown in (["nothing"], [*names, "\ud800"]):
        errors = []
        for index in pair:
            with pytest.raises(NotFoundError) as caught:
                index.more_like(unknown)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]


def test_highlights_are_the_same(pair: tuple[Index, Index]) -> None:
    hits = pair[0].search(QUERIES[0], 5)[0]
    assert pair[1].highlights(QUERIES[0], hits) == pair[0].highlights(QUERIES[0], hits)


def test_the_index_follows_the_alias_and_keeps_its_blocks(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.remote.publish.choose", functools.partial(choose, small=0))
    first, second, *_ = versions()
    embed_inline(configured(tmp_path, tiny_model, first))
    index = open_index(str(tmp_path / "store"), "c", local="none")
    index.search(QUERIES, 10)
    assert isinstance(index.view, RemoteView)
    reader = index.view.cells.reader
    before = reader.requests
    embed_inline(configured(tmp_path, tiny_model, second))
    assert index.refresh()
    # The index of the one new group.
    assert reader.requests == before + 1
    assert index.search(QUERIES, 10) == open_index(str(tmp_path / "store"), "c").search(QUERIES, 10)


def test_what_is_not_published_is_refused_with_what_to_do(store: str, tmp_path: Path, tiny_model: Path) -> None:
    index = open_index(store, "c", local="none")
    with pytest.raises(QueryError, match="only int8 can be searched"):
        index.search(QUERIES, representation="binary")
    with pytest.raises(QueryError, match="local copy"):
        index.vectors  # noqa: B018
    with pytest.raises(QueryError, match="local copy"):
        index.chunks  # noqa: B018
    embed_inline(configured(tmp_path, tiny_model, versions()[0], search={}))
    with pytest.raises(NotFoundError, match=r"recipe\.search\.remote=true"):
        open_index(str(tmp_path / "store"), "c", local="none")


def test_an_exact_search_beyond_the_cache_is_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.search.remote.cells.LEAST_EXACT_BYTES", 1_000)
    index = open_index(store, "c", local="none", local_cache_mb=0)
    with pytest.raises(QueryError, match="raise local_cache_mb"):
        index.search(QUERIES)
    assert index.search(QUERIES, mode="approximate", recall=0.9)


def test_published_files_are_those_in_the_store(store: str) -> None:
    opened = open_store(store)
    named: set[str] = set()
    for number in range(1, 5):
        named |= set(published_files(opened, open_index(store, "c", number, encode=False).manifest))
    assert {stat.path for stat in opened.walk("collections/c/remote")} <= named


@pytest.mark.parametrize("normalization", ["none", "l2"])
@pytest.mark.parametrize("representations", [["float32"], ["float16"], [{"kind": "int8", "granularity": "vector"}]])
def test_spaces_without_cells_are_searched_exactly(
    tmp_path: Path, tiny_model: Path, normalization: str, representations: list[Any]
) -> None:
    transform = {"representations": representations, "normalization": normalization}
    rows = dict(list(versions()[0].items())[:700])
    embed_inline(configured(tmp_path, tiny_model, rows, transform=transform))
    for name in list(rows)[::5]:
        del rows[name]
    embed_inline(configured(tmp_path, tiny_model, rows, transform=transform))
    local, remote = (open_index(str(tmp_path / "store"), "c", local=one) for one in ("copy", "none"))
    for options in ({}, {"metric": "l2"}, {"metric": "dot"}, {"metric": "l1"}, {"filter": 'lang == "de"'}):
        assert outcome(remote, k=15, **options) == outcome(local, k=15, **options)
    assert isinstance(remote.view.finest, Codes)


@pytest.mark.parametrize("count", [1, 2])
def test_very_small_collections(tmp_path: Path, tiny_model: Path, count: int) -> None:
    rows = dict(list(versions()[0].items())[:count])
    embed_inline(configured(tmp_path, tiny_model, rows, transform={"representations": ["int8"]}))
    local, remote = (open_index(str(tmp_path / "store"), "c", local=one) for one in ("copy", "none"))
    for options in ({"mode": "auto"}, {"mode": "hybrid"}, {"mode": "lexical", "filter": 'lang == "fr"'}):
        assert outcome(remote, k=5, **options) == outcome(local, k=5, **options)


def test_the_service_searches_without_a_copy(store: str) -> None:
    index = _open(ServiceOptions(store, "c", local="none", local_cache_mb=7, watch_seconds=0.0))
    assert isinstance(index.view, RemoteView)
    assert index.view.cells.reader.cache.limit == 7_000_000
    body = {"query": QUERIES[0], "k": 4, "mode": "hybrid", "filter": 'lang == "en"'}
    answers = []
    for one in (index, open_index(store, "c")):
        with TestClient(create_app(one, Settings()), base_url="http://127.0.0.1") as client:
            answers.append(client.post("/search", json=body).json()["results"][0]["hits"])
            assert client.get("/metrics").status_code == 200
    assert len(answers[0]) == 4
    assert answers[0] == answers[1]


def test_answers_from_the_store_are_not_compared_with_exact_ones(pair: tuple[Index, Index]) -> None:
    options, queued = SearchOptions(mode="approximate", recall=0.8), []
    for index in pair:
        watch = RecallWatch(index, share=1.0)
        watch.submit(index.view, QUERIES[:1], options, [index.answer(QUERIES[0], options)])
        watch.close()
        queued.append(sum(watch.counts.values()))
    assert queued == [1, 0]


def test_several_threads_search_one_index(store: str) -> None:
    index = open_index(store, "c", local="none")
    queries = list(sentences(24, seed=8, words=6).values())
    expected = open_index(store, "c").search(queries, 5, mode="hybrid")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: index.search(query, 5, mode="hybrid")[0], queries))
    assert found == expected
