"""Pages of every kind of search: disjoint, and together what one large search finds."""

from __future__ import annotations

from typing import Any

import pytest

from isospace.errors import MismatchError, QueryError
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions, search_options
from isospace.search.paging import depends_on_depth
from isospace.search.query_cache import CacheConfig

QUERIES = ["the protein of a cell", "a gene in the search index"]
EXACT: list[dict[str, Any]] = [
    {"mode": "exact"},
    {"mode": "auto"},
    {"mode": "lexical"},
    {"mode": "exact", "metric": "l2"},
    {"mode": "auto", "representation": "float32"},
    {"mode": "exact", "filter": 'doc_id >= "d030"', "scope": 'doc_id < "d050" or doc_id >= "e"'},
]
DEEP: list[dict[str, Any]] = [
    {"mode": "quantized"},
    {"mode": "quantized", "representation": "binary", "rescore": 1},
    {"mode": "quantized", "representation": "binary", "rescore": 0},
    {"mode": "auto", "representation": "int8"},
    {"mode": "tiered", "rescore": 1},
    {"mode": "hybrid"},
    {"mode": "hybrid", "fusion": "weighted", "representation": "binary"},
    {"mode": "exact", "rerank": True},
    {"mode": "lexical", "rerank": True},
    {"mode": "quantized", "representation": "binary", "rescore": 1, "rerank": True},
    {"mode": "hybrid", "rerank": True, "filter": 'doc_id < "d050"'},
]
GROUPED: list[dict[str, Any]] = [{}, {"group_by": "document"}, {"group_by": "document", "per_document": 3}]


def found(index: Index, k: int, offset: int | None, **options: Any) -> list[list[tuple[str, float]]]:
    answers = index.search(QUERIES, k, offset=offset, **options)
    return [[(hit.chunk_id, hit.score) for hit in hits] for hits in answers]


def places(index: Index, hits: list[tuple[str, float]], options: dict[str, Any]) -> int:
    if "group_by" not in options:
        return len(hits)
    owners = dict(zip(index.chunks["chunk_id"].to_pylist(), index.chunks["doc_id"].to_pylist(), strict=True))
    return len({owners[name] for name, _ in hits})


@pytest.mark.parametrize("grouped", GROUPED, ids=str)
@pytest.mark.parametrize("options", [*EXACT, *DEEP], ids=str)
@pytest.mark.parametrize("size", [3, 20])
def test_pages_are_parts_of_one_large_search(
    varied: Index, options: dict[str, Any], grouped: dict[str, Any], size: int
) -> None:
    asked = {"depth": 40, **options, **grouped}
    whole = found(varied, 40, 0, **asked)
    pages = [found(varied, size, offset, **asked) for offset in range(0, 41 - size, size)]
    for query, every in enumerate(whole):
        joined = [hit for page in pages for hit in page[query]]
        assert joined == every[: len(joined)]
        assert len(set(joined)) == len(joined) > 0
        ends = len(pages) * size
        assert places(varied, joined, grouped) == min(ends, places(varied, every, grouped))
        for page in pages[:-1] if places(varied, every, grouped) == 40 else []:
            assert places(varied, page[query], grouped) == size


@pytest.mark.parametrize("grouped", GROUPED, ids=str)
@pytest.mark.parametrize("options", EXACT, ids=str)
def test_without_an_offset_an_exact_search_is_its_first_page(
    varied: Index, options: dict[str, Any], grouped: dict[str, Any]
) -> None:
    for k in (1, 9, 63):
        assert found(varied, k, None, **options, **grouped) == found(varied, k, 0, **options, **grouped)
    assert found(varied, 5, 9_000, **options, **grouped) == [[], []]


def test_candidates_of_a_page_are_as_many_as_the_depth_says(varied: Index) -> None:
    """Without an offset, a search has fewer candidates, and may find others."""
    rough: dict[str, Any] = {"mode": "tiered", "rescore": 1}
    deeper = found(varied, 3, 0, depth=200, **rough)
    assert deeper == found(varied, 3, 0, mode="exact")
    assert deeper != found(varied, 3, 0, depth=3, **rough) == found(varied, 3, None, depth=200, **rough)


@pytest.mark.parametrize("options", DEEP, ids=str)
def test_a_page_behind_the_depth_that_orders_it_is_refused(varied: Index, options: dict[str, Any]) -> None:
    assert len(varied.search(QUERIES, 5, offset=15, depth=20, **options)[0]) == 5
    with pytest.raises(QueryError, match=r"offset \+ k = 21, but depth = 20.* Give depth = 21 or more"):
        varied.search(QUERIES, 5, offset=16, depth=20, **options)
    # As before, where nobody pages.
    assert varied.search(QUERIES, 21, depth=20, **options)


@pytest.mark.parametrize(("options", "deep"), [*((one, False) for one in EXACT), *((one, True) for one in DEEP)])
def test_an_order_depends_on_depth_or_does_not(varied: Index, options: dict[str, Any], deep: bool) -> None:
    assert depends_on_depth(varied.view, SearchOptions(**options)) == deep


def test_a_representation_that_the_index_was_opened_with_counts(varied: Index, varied_store: str) -> None:
    with (
        open_index(varied_store, "c", representation="binary") as index,
        pytest.raises(QueryError, match="but depth = 100"),
    ):
        index.search(QUERIES, 10, offset=100)
    assert varied.search(QUERIES, 10, offset=100)[0]


def test_a_page_is_not_taken_from_the_answer_to_a_similar_query(varied_store: str) -> None:
    queries = [QUERIES[0], f"{QUERIES[0]} gene"]
    with open_index(varied_store, "c", cache=CacheConfig(semantic=0.01)) as index:
        own = [index.search(query, 5, offset=5)[0] for query in queries]
        assert own[0] != own[1]
        assert index.cache.counts.semantic == 0
        assert index.search(queries[0], 5) == index.search(queries[1], 5)


def test_a_page_of_another_snapshot_is_refused(varied: Index) -> None:
    served = varied.manifest.snapshot_id
    first = varied.answer(QUERIES, search_options({"k": 3, "offset": 0}))
    assert first.snapshot_id == served
    for good in (served, served[:8], None):
        assert varied.search(QUERIES, 3, offset=0, snapshot_id=good) == first.hits
    other = ("0" if served[0] != "0" else "1") + served[1:]
    for wrong in (other, served[:7], "", served[:63] + "x"):
        with pytest.raises(MismatchError, match=f"requires the snapshot '{wrong}', but {served} is searched"):
            varied.search(QUERIES, 3, snapshot_id=wrong)
        with pytest.raises(MismatchError, match="requires the snapshot"):
            varied.search_vectors(varied.vectors[:1], 3, snapshot_id=wrong)


def test_bounds_of_pages() -> None:
    assert search_options({"k": 10, "offset": 9_990}).offset == 9_990
    for k, offset in ((11, 9_990), (1, 10_000), (10, 10**30)):
        with pytest.raises(QueryError, match=r"offset \+ k = \d+: expected 10000 or less"):
            search_options({"k": k, "offset": offset})
    with pytest.raises(QueryError, match="offset = -1: expected 0 or more"):
        search_options({"offset": -1})
    assert search_options({"k": 20_000}).k == 20_000


def test_a_search_by_words_instead_keeps_the_page() -> None:
    asked = SearchOptions(mode="hybrid", k=3, offset=6, snapshot_id="a" * 64, weights=(2, 1), metric="l2", depth=50)
    assert asked.by_words() == SearchOptions(mode="lexical", k=3, offset=6, snapshot_id="a" * 64, depth=50)
