"""Thresholds, and what a cosine means beside those of unrelated chunks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from isospace.errors import QueryError
from isospace.search.index import Index
from isospace.search.options import SearchOptions, search_options
from isospace.search.percentiles import SAMPLED, chance_cosines, percentile, sampled

QUERY = "the protein of a cell"


def test_cosines_are_those_of_pairs_of_different_documents() -> None:
    chance = np.random.default_rng(3)
    vectors = chance.normal(size=(40, 8)).astype(np.float32)
    vectors[7] = 0
    owners = chance.integers(0, 6, 40)
    expected = []
    for one, other in itertools.combinations(range(40), 2):
        if owners[one] != owners[other]:
            lengths = float(np.linalg.norm(vectors[one]) * np.linalg.norm(vectors[other]))
            expected.append(float(vectors[one] @ vectors[other]) / lengths if lengths else 0.0)
    assert chance_cosines(vectors, owners) == pytest.approx(sorted(expected), abs=1e-6)


@pytest.mark.parametrize(("chunks", "documents", "pairs"), [(0, 1, 0), (1, 1, 0), (5, 1, 0), (2, 2, 1), (3, 3, 3)])
def test_few_chunks_have_few_pairs(chunks: int, documents: int, pairs: int) -> None:
    vectors = np.ones((chunks, 4), np.float32)
    assert len(sampled(np.arange(chunks))) == chunks
    assert len(chance_cosines(vectors, np.arange(chunks) % documents)) == pairs


def test_of_many_chunks_a_sample_is_taken_from_the_first_to_the_last() -> None:
    vectors = np.tile(np.float32([1, 0]), (10_000, 1))
    vectors[[0, -1]] = [[0, 1], [0, 1]]
    rows = sampled(np.arange(10_000))
    found = chance_cosines(vectors[rows], rows)
    assert len(found) == SAMPLED * (SAMPLED - 1) // 2 == 32_640
    # The first and the last are alike, and at right angles to all others.
    assert (found == 0).sum() == 2 * (SAMPLED - 2)
    assert (found == 1).sum() == 32_640 - 2 * (SAMPLED - 2)


def test_a_percentile_counts_what_is_lower() -> None:
    chance = np.array([-0.5, 0.0, 0.25, 0.25, 1.0])
    assert [percentile(one, chance) for one in (-1.0, -0.5, -0.4, 0.25, 0.3, 1.0, 1.1)] == [
        0.0, 0.0, 20.0, 40.0, 80.0, 80.0, 100.0
    ]  # fmt: skip
    # Equal but for rounding.
    assert percentile(1.0 + 1e-12, chance) == percentile(1.0 - 1e-12, chance) == 80.0
    assert percentile(0.5, np.zeros(0)) is None
    assert percentile(0.5, np.arange(3) / 3) == 66.667


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"mode": "exact"}, None),
        ({"mode": "quantized", "representation": "binary"}, None),
        ({"mode": "exact", "group_by": "document"}, None),
        ({"mode": "exact", "diversity": 0.5}, None),
        ({"mode": "hybrid"}, "vector"),
        ({"mode": "exact", "rerank": True}, "retrieval"),
        ({"mode": "hybrid", "rerank": True}, "vector"),
    ],
    ids=str,
)
def test_hits_found_by_their_cosine_have_its_percentile(
    varied: Index, options: dict[str, Any], name: str | None
) -> None:
    hits = varied.search(QUERY, 50, explain=True, **options)[0]
    chance = varied.view.chance
    for hit in hits:
        cosine = hit.score if name is None else hit.scores.get(name)
        expected = None if cosine is None else 100 * float((chance < cosine - 1e-9).mean())
        assert hit.percentile == (None if expected is None else pytest.approx(expected, abs=0.001))
    assert any(hit.percentile is not None for hit in hits)
    assert all(hit.percentile is None for hit in varied.search(QUERY, 5, **options)[0])


@pytest.mark.parametrize(
    "options", [{"mode": "lexical"}, {"metric": "l2"}, {"mode": "lexical", "rerank": True}], ids=str
)
def test_what_is_no_cosine_has_no_percentile(varied: Index, options: dict[str, Any]) -> None:
    assert {hit.percentile for hit in varied.search(QUERY, 5, explain=True, **options)[0]} == {None}


def test_a_snapshot_always_says_the_same(varied: Index) -> None:
    owners = varied.view.copy.chunks["document"].to_numpy()
    rows = sampled(varied.view.copy.rows)
    again = chance_cosines(varied.view.vectors_of(rows), owners[rows])
    assert again.tobytes() == varied.view.chance.tobytes()
    name = varied.chunks["chunk_id"][0].as_py()
    assert all(hit.percentile is not None for hit in varied.more_like(name, 3, explain=True))


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "exact"},
        {"mode": "exact", "metric": "l2"},
        {"mode": "quantized", "rescore": 0},
        {"mode": "tiered"},
        {"mode": "exact", "group_by": "document", "per_document": 5},
    ],
    ids=str,
)
def test_what_scores_lower_than_a_threshold_is_left_out(varied: Index, options: dict[str, Any]) -> None:
    asked = {**options, "offset": 0, "depth": 60}
    whole = varied.search(QUERY, 60, **asked)[0]
    lowest = sorted(hit.score for hit in whole)[len(whole) // 3]
    expected = [hit for hit in whole if hit.score >= lowest]
    assert 0 < len(expected) < len(whole)
    assert varied.search(QUERY, 60, min_score=lowest, **asked)[0] == expected
    if "group_by" not in options:
        pages = [varied.search(QUERY, 10, min_score=lowest, **{**asked, "offset": n})[0] for n in range(0, 60, 10)]
        assert [hit for page in pages for hit in page] == expected
    assert varied.search(QUERY, 60, min_score=1e9, **asked) == [[]]
    diverse = varied.search(QUERY, 60, min_score=lowest, diversity=0.9, **asked)[0]
    assert {hit.chunk_id for hit in diverse} == {hit.chunk_id for hit in expected}


@pytest.mark.parametrize("options", [{"mode": "lexical"}, {"mode": "sparse"}, {"mode": "hybrid"}, {"rerank": True}])
def test_a_threshold_for_scores_that_do_not_compare_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(QueryError, match=r"min_score = 0\.5: mode \w+, rerank \w+: expected mode auto"):
        search_options({"min_score": 0.5, **options})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "high"])
def test_a_threshold_that_is_no_number_is_refused(bad: object) -> None:
    with pytest.raises(QueryError, match="min_score"):
        search_options({"min_score": bad})


def test_a_search_by_words_instead_has_no_threshold() -> None:
    assert SearchOptions(min_score=0.5, explain=True).by_words() == SearchOptions(mode="lexical", explain=True)
