"""Maximal marginal relevance against its definition, alone and in searches of every kind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isospace.errors import QueryError
from isospace.search.diversity import scaled, select_diverse
from isospace.search.hits import Hit
from isospace.search.index import Index
from isospace.search.options import SearchOptions, search_options

QUERIES = ["the protein of a cell", "a gene in the search index"]
MODES: list[dict[str, Any]] = [
    {"mode": "exact"},
    {"mode": "exact", "metric": "l2"},
    {"mode": "quantized"},
    {"mode": "quantized", "representation": "binary", "rescore": 0},
    {"mode": "lexical"},
    {"mode": "hybrid"},
    {"mode": "hybrid", "fusion": "weighted"},
    {"mode": "exact", "rerank": True},
    {"mode": "exact", "filter": 'doc_id >= "d030"', "scope": 'doc_id < "d050"'},
]


def by_definition(relevance: list[float], vectors: np.ndarray, diversity: float, count: int) -> list[int]:
    """Select by the formula of the paper, with every cosine computed anew."""

    def cosine(one: int, other: int) -> float:
        left, right = vectors[one].astype(np.float64), vectors[other].astype(np.float64)
        length = math.sqrt(float((left**2).sum())) * math.sqrt(float((right**2).sum()))
        return float(np.round((left * right).sum() / length, 9)) if length else 0.0

    selected: list[int] = []
    while len(selected) < min(count, len(relevance)):
        margins = {
            n: (1 - diversity) * relevance[n] - diversity * max((cosine(n, s) for s in selected), default=0.0)
            for n in range(len(relevance))
            if n not in selected
        }
        selected.append(max(margins, key=lambda n: (margins[n], -n)))
    return selected


vectors_of = st.lists(st.lists(st.integers(-3, 3), min_size=3, max_size=3), min_size=0, max_size=9)


@given(vectors_of, st.sampled_from([0.0, 0.25, 0.5, 0.9, 1.0]), st.integers(0, 12), st.randoms(use_true_random=False))
@settings(deadline=None)
def test_it_selects_by_the_definition(rows: list[list[int]], diversity: float, count: int, chance: Any) -> None:
    vectors = np.array(rows, np.float32).reshape(-1, 3)
    relevance = sorted((chance.randint(0, 4) / 4 for _ in rows), reverse=True)
    found = select_diverse(np.array(relevance), vectors, diversity, count)
    assert found == by_definition(relevance, vectors, diversity, count)


def test_an_example_by_hand() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 2], [-1, 0]], np.float32)
    relevance = np.array([1.0, 0.9, 0.5, 0.0])
    assert select_diverse(relevance, vectors, 0.0, 4) == [0, 1, 2, 3]
    # 0.5 x 0.5 - 0 is more than 0 + 0.5 x 1, and than 0.45 - 0.5: a cosine below 0 counts, too.
    assert select_diverse(relevance, vectors, 0.5, 4) == [0, 3, 2, 1]
    assert select_diverse(relevance, vectors, 0.3, 4) == [0, 2, 1, 3]
    # Relevance counts nothing; all are equal at first.
    assert select_diverse(relevance, vectors, 1.0, 2) == [0, 3]


def test_equal_candidates_come_by_place() -> None:
    assert select_diverse(np.ones(4), np.tile(np.float32([0.3, 0.1]), (4, 1)), 0.7, 4) == [0, 1, 2, 3]
    assert select_diverse(np.ones(3), np.zeros((3, 2), np.float32), 0.7, 3) == [0, 1, 2]


def test_scores_are_scaled() -> None:
    assert scaled([-1.0, -3.0, -2.0]).tolist() == [1.0, 0.0, 0.5]
    assert scaled([7.0, 7.0]).tolist() == [1.0, 1.0]
    assert scaled([]).tolist() == []


def selected(index: Index, whole: list[Hit], diversity: float, count: int) -> list[str]:
    """Select from the hits of a search without diversity."""
    rows = {name: n for n, name in enumerate(index.chunks["chunk_id"].to_pylist())}
    vectors = index.vectors[[rows[hit.chunk_id] for hit in whole]]
    places = by_definition(scaled([hit.score for hit in whole]).tolist(), vectors, diversity, count)
    return [whole[place].chunk_id for place in places]


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("grouped", [{}, {"group_by": "document"}], ids=str)
@pytest.mark.parametrize("diversity", [0.3, 0.7])
def test_hits_and_documents_are_selected_from_the_best_ones(
    varied: Index, options: dict[str, Any], grouped: dict[str, Any], diversity: float
) -> None:
    asked = {**options, **grouped, "depth": 30, "offset": 0}
    for query in QUERIES:
        whole = varied.search(query, 30, **asked)[0]
        found = varied.search(query, 8, diversity=diversity, **asked)[0]
        assert [hit.chunk_id for hit in found] == selected(varied, whole, diversity, 8)
        scores = {hit.chunk_id: hit.score for hit in whole}
        assert all(hit.score == scores[hit.chunk_id] for hit in found)


@pytest.mark.parametrize("options", MODES, ids=str)
@pytest.mark.parametrize("grouped", [{}, {"group_by": "document", "per_document": 2}], ids=str)
def test_pages_of_diverse_hits_are_parts_of_one_selection(
    varied: Index, options: dict[str, Any], grouped: dict[str, Any]
) -> None:
    asked = {**options, **grouped, "depth": 40, "diversity": 0.5}
    whole = varied.search(QUERIES, 40, offset=0, **asked)
    pages = [varied.search(QUERIES, 5, offset=offset, **asked) for offset in range(0, 40, 5)]
    for query, every in enumerate(whole):
        assert [hit for page in pages for hit in page[query]] == every
        assert len({hit.chunk_id for hit in every}) == len(every) > 5
        usual = varied.search(QUERIES[query], 40, offset=0, **{**asked, "diversity": 0.0})[0]
        assert {hit.chunk_id for hit in every} == {hit.chunk_id for hit in usual}
        assert every[0] == usual[0]
        assert every != usual
    with pytest.raises(QueryError, match="depth = 40, which determines"):
        varied.search(QUERIES, 5, offset=36, **asked)


def test_chunks_that_say_the_same_make_way(varied: Index) -> None:
    repeated = varied.view.texts([varied.chunks.num_rows - 1])[0]
    usual, diverse = (
        {hit.text for hit in varied.search(repeated, 30, depth=100, diversity=diversity)[0]} for diversity in (0.0, 0.8)
    )
    assert len(usual) + 3 < len(diverse)
    # More hits than the depth: from as many is selected.
    assert len(varied.search(repeated, 50, diversity=0.8, depth=10)[0]) == 50


def test_more_like_this_can_be_diverse(varied: Index) -> None:
    name = varied.chunks["chunk_id"][varied.chunks.num_rows - 1].as_py()
    usual = varied.more_like(name, 30, offset=0, depth=30)
    found = varied.more_like(name, 5, diversity=0.6, depth=30)
    assert [hit.chunk_id for hit in found] == selected(varied, usual, 0.6, 5)


def test_the_candidates_are_as_many_as_the_depth_says_also_if_examples_are_filtered_out(varied: Index) -> None:
    names = varied.chunks["chunk_id"].to_pylist()[-30:]
    asked: dict[str, Any] = {"filter": 'doc_id < "d050"', "depth": 5}
    usual = varied.more_like(names, 5, offset=0, **asked)
    found = varied.more_like(names, 5, diversity=0.9, **asked)
    assert {hit.chunk_id for hit in found} == {hit.chunk_id for hit in usual}
    assert [hit.chunk_id for hit in found] == selected(varied, usual, 0.9, 5)


def test_nothing_found_is_nothing_selected(varied: Index) -> None:
    assert varied.search("zzz", 5, mode="lexical", diversity=0.5) == [[]]
    assert varied.search("cell", 5, filter='doc_id == "none"', diversity=0.5) == [[]]


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(bad: float) -> None:
    with pytest.raises(QueryError, match="diversity"):
        search_options({"diversity": bad})
    assert SearchOptions(mode="exact", diversity=0.4).by_words().diversity == 0.4
