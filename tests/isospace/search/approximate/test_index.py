"""Approximate searches find what exact ones do, as often as declared, in any layout, with any filter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isospace.search.approximate.index import ApproximateIndex, best_of
from isospace.search.approximate.learn import interval, learn_recall, recall_of
from isospace.search.approximate.record import LearnedRecall
from isospace.search.approximate.visits import VisitRule
from isospace.search.vector.kernels import Codes
from isospace.search.vector.scoring import Metric, score_rows
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import Int8Spec
from tests.isospace.search.approximate.clustered import Corpus, clustered, exact

CORPUS = clustered()
CUTS = (2_000, 2_400)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lists")


@pytest.fixture(scope="module")
def learned(folder: Path) -> LearnedRecall:
    codes = CORPUS.codes()
    return learn_recall(
        CORPUS.index(folder), codes, codes, CORPUS.queries, source="test", space_id="s", snapshot=1, kernels="numpy"
    )


def best(index: ApproximateIndex, corpus: Corpus, queries: Any, count: int, **given: Any) -> list[list[int]]:
    codes = given.pop("codes", None) or corpus.codes()
    options = {"metric": "cosine", "recall": 0.9, "rows": None, **given}
    found, _ = index.nearest(codes, queries, count, **options)
    return [rows[np.lexsort((rows, -scores))[:count]].tolist() for rows, scores in found]


def test_every_rule_reaches_its_recall_on_other_queries(learned: LearnedRecall) -> None:
    assert {one.neighbors for one in learned.measured} == {1, 10, 100}
    assert (learned.learned_from, learned.measured_on, learned.chunks) == (200, 200, 6_000)
    assert len(learned.rules) == len(learned.measured) >= 15
    for one in learned.measured:
        assert one.low <= one.recall <= one.high
        assert one.recall >= one.declared
    # A lower recall costs less.
    of_ten = [one for one in learned.measured if one.neighbors == 10]
    assert of_ten[0].rows < of_ten[-1].rows < 6_000


@pytest.mark.parametrize("recall", [0.8, 0.95, 0.99])
def test_declared_recall_is_achieved_on_fresh_queries(folder: Path, learned: LearnedRecall, recall: float) -> None:
    # Those with odd numbers: it was learned from the others.
    fresh = CORPUS.queries[1::2]
    index = CORPUS.index(folder, learned=learned)
    found = best(index, CORPUS, fresh, 10, recall=recall)
    truth = np.array([exact(CORPUS, query, 10) for query in fresh])
    shares = recall_of([np.array(one) for one in found], truth)
    assert interval(shares)[1] >= recall


def test_scores_are_exact_and_depend_on_no_layout(folder: Path, learned: LearnedRecall) -> None:
    whole, cut = CORPUS.index(folder, learned=learned), CORPUS.index(folder, CUTS, learned=learned)
    queries = CORPUS.queries[:40]
    one, visits = whole.nearest(CORPUS.codes(), queries, 10, metric="cosine", recall=0.95, rows=None)
    several, visits_of_several = cut.nearest(CORPUS.codes(CUTS), queries, 10, metric="cosine", recall=0.95, rows=None)
    assert [(v.cells, v.rows) for v in visits] == [(v.cells, v.rows) for v in visits_of_several]
    for (rows, scores), (others, other_scores), query in zip(one, several, queries, strict=True):
        assert (rows.tolist(), scores.tolist()) == (others.tolist(), other_scores.tolist())
        expected = (CORPUS.vectors[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        assert scores.tolist() == expected.tolist()


@pytest.mark.parametrize("length", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_the_nearest_candidates_are_those_of_the_metric(metric: Metric, length: float) -> None:
    """What int8 codes are decoded to has not quite unit length, so that distances rank otherwise than products."""
    quantizer = fit_quantizer(Int8Spec(), CORPUS.vectors[:500])
    codes = Codes("int8", quantizer, quantizer.encode(CORPUS.vectors))
    every = np.arange(len(codes), dtype=np.int64)
    for query in CORPUS.queries[:50]:
        scores = score_rows(codes, length * query, every, metric)
        near, own = best_of(codes, length * query, every[::-1], 10, metric)
        assert set(np.lexsort((every, -scores))[:10].tolist()) <= set(near.tolist())
        assert own.tolist() == scores[near].tolist()
        assert len(near) < 100


def test_a_query_finds_the_same_alone_as_in_a_batch(folder: Path, learned: LearnedRecall) -> None:
    index = CORPUS.index(folder, CUTS, learned=learned)
    together = best(index, CORPUS, CORPUS.queries[:50], 10)
    alone = [best(index, CORPUS, CORPUS.queries[n : n + 1], 10)[0] for n in range(50)]
    assert np.mean([set(a) == set(b) for a, b in zip(together, alone, strict=True)]) == 1.0


def test_dead_rows_are_never_found_and_do_not_cost_recall(folder: Path, learned: LearnedRecall) -> None:
    live = np.random.default_rng(1).random(6_000) > 0.3
    index = CORPUS.index(folder, CUTS, live, learned)
    codes = CORPUS.codes(CUTS, live)
    queries = CORPUS.queries[1::2]
    found = best(index, CORPUS, queries, 10, codes=codes, recall=0.95)
    assert all(live[one].all() for one in found)
    truth = np.array([exact(CORPUS, query, 10, np.flatnonzero(live)) for query in queries])
    assert interval(recall_of([np.array(one) for one in found], truth))[1] >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.1])
@pytest.mark.parametrize("kind", ["random", "near", "far"])
def test_declared_recall_holds_with_filters(
    folder: Path, learned: LearnedRecall, share: float, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.approximate.index._FEW_ROWS", 10)
    chance = np.random.default_rng(2)
    side = CORPUS.vectors @ CORPUS.queries[0]
    wanted = {"random": chance.random(6_000), "near": -side, "far": side}[kind]
    rows = np.sort(np.argsort(wanted)[: int(6_000 * share)]).astype(np.int64)
    index = CORPUS.index(folder, CUTS, learned=learned)
    assert index.can_search(0.9, 10, rows)
    queries = CORPUS.queries[1::2]
    found = best(index, CORPUS, queries, 10, rows=rows)
    assert all(np.isin(one, rows).all() for one in found)
    truth = np.array([exact(CORPUS, query, 10, rows) for query in queries])
    assert interval(recall_of([np.array(one) for one in found], truth))[1] >= 0.9


def test_a_search_without_a_rule_or_for_few_rows_scores_all(folder: Path, learned: LearnedRecall) -> None:
    index = CORPUS.index(folder, learned=learned)
    assert index.can_search(0.9, 10, None)
    assert not index.can_search(0.9995, 10, None)
    assert not index.can_search(0.9, 101, None)
    # All rows pass, but they are so few that scoring them takes no longer.
    assert not index.can_search(0.9, 10, np.arange(6_000))
    assert not CORPUS.index(folder).can_search(0.9, 10, None)


def test_what_was_visited_is_told(folder: Path, learned: LearnedRecall) -> None:
    index = CORPUS.index(folder, learned=learned)
    visits = {
        recall: index.nearest(CORPUS.codes(), CORPUS.queries[:60], 10, metric="dot", recall=recall, rows=None)[1]
        for recall in (0.8, 0.99)
    }
    for recall, every in visits.items():
        assert {one.recall for one in every} == {recall}
        assert all(1 <= one.cells <= 32 and 10 <= one.scored <= one.rows < 6_000 for one in every)
    for figure in ("cells", "rows", "scored"):
        low, high = (np.mean([getattr(one, figure) for one in every]) for every in visits.values())
        assert low < high


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_metrics_rank_unit_vectors_alike(folder: Path, learned: LearnedRecall, metric: str) -> None:
    index = CORPUS.index(folder, learned=learned)
    expected = best(index, CORPUS, CORPUS.queries[:20], 10)
    assert best(index, CORPUS, CORPUS.queries[:20], 10, metric=metric) == expected


def test_copies_of_a_text_are_all_found(folder: Path, learned: LearnedRecall, tmp_path: Path) -> None:
    vectors = CORPUS.vectors.copy()
    vectors[100:140] = vectors[5_000]
    copies = Corpus(vectors, CORPUS.queries, CORPUS.cells)
    index = copies.index(tmp_path, CUTS, learned=learned)
    found = best(index, copies, vectors[5_000][None], 41, recall=0.8)[0]
    assert sorted(found) == [*range(100, 140), 5_000]


def test_the_interval_of_a_recall_covers_it() -> None:
    low, high = interval(np.array([1.0, 0.9] * 50))
    assert (low, high) == (pytest.approx(0.95 - 0.00985, abs=2e-4), pytest.approx(0.95 + 0.00985, abs=2e-4))
    assert interval(np.ones(100)) == (pytest.approx(0.97), 1.0)
    assert interval(np.zeros(100)) == (0.0, 0.0)


def test_cells_without_rows_near_the_query_do_not_leave_a_search_empty(folder: Path, learned: LearnedRecall) -> None:
    query = CORPUS.queries[0]
    homes = CORPUS.cells.encode(CORPUS.vectors)
    near = np.argsort(-(CORPUS.cells.centroids() @ query))[:8]
    live = ~np.isin(homes, near)
    index = CORPUS.index(folder, (), live, learned)
    codes = CORPUS.codes((), live)
    for count in (1, 10, 100):
        (found,) = best(index, CORPUS, query[None], count, codes=codes, recall=0.8)
        assert len(found) == count
        assert live[found].all()


@pytest.mark.parametrize("recall", [0.9, 0.99])
def test_declared_recall_holds_where_a_filter_excludes_what_is_near(
    folder: Path, learned: LearnedRecall, recall: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.approximate.index._FEW_ROWS", 10)
    homes = CORPUS.cells.encode(CORPUS.vectors)
    index = CORPUS.index(folder, CUTS, learned=learned)
    found, truth = [], []
    for query in CORPUS.queries[1:200:4]:
        order = np.argsort(-(CORPUS.cells.centroids() @ query))
        rows = np.flatnonzero(np.isin(homes, order[16:])).astype(np.int64)
        found += [np.array(one) for one in best(index, CORPUS, query[None], 10, rows=rows, recall=recall)]
        truth.append(exact(CORPUS, query, 10, rows))
    assert interval(recall_of(found, np.array(truth)))[1] >= recall


@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("length", [0.05, 0.7, 30.0])
def test_the_length_of_a_query_changes_nothing(
    folder: Path, learned: LearnedRecall, metric: str, length: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.approximate.index._FEW_ROWS", 10)
    index = CORPUS.index(folder, CUTS, learned=learned)
    some = np.arange(0, 6_000, 2, dtype=np.int64)
    for rows in (None, some):
        expected = best(index, CORPUS, CORPUS.queries[:30], 10, metric=metric, rows=rows)
        scaled = CORPUS.queries[:30] * np.float32(length)
        found = best(index, CORPUS, scaled, 10, metric=metric, rows=rows)
        same = [len(set(a) & set(b)) for a, b in zip(expected, found, strict=True)]
        # Rounding may change an estimate at the edge.
        assert sum(same) >= 297


def test_the_masks_of_a_filter_are_kept_only_if_it_comes_again(folder: Path, learned: LearnedRecall) -> None:
    index = CORPUS.index(folder, learned=learned)
    rows = np.arange(5_000, dtype=np.int64)
    best(index, CORPUS, CORPUS.queries[:1], 10, rows=rows)
    assert len(index._kept) == 0
    best(index, CORPUS, CORPUS.queries[:1], 10, rows=rows, keep=True)
    best(index, CORPUS, CORPUS.queries[:1], 10, rows=rows, keep=True)
    assert len(index._kept) == 1
    for number in range(20):
        best(index, CORPUS, CORPUS.queries[:1], 10, rows=rows[number:], keep=True)
    assert len(index._kept) == 16


def test_learning_skips_queries_whose_cells_are_empty(folder: Path) -> None:
    homes = CORPUS.cells.encode(CORPUS.vectors)
    live = homes != np.bincount(homes).argmax()
    index, codes = CORPUS.index(folder, (), live), CORPUS.codes((), live)
    made = learn_recall(index, codes, codes, CORPUS.queries, source="t", space_id="s", snapshot=1, kernels="numpy")
    assert made.chunks == int(live.sum())
    assert {rule.neighbors for rule in made.rules} == {1, 10, 100}


def test_a_filtered_search_visits_every_cell_within_reach(
    folder: Path, learned: LearnedRecall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isospace.search.approximate.index._FEW_ROWS", 10)
    rows = np.arange(0, 6_000, 2, dtype=np.int64)
    cells = len(set(CORPUS.cells.encode(CORPUS.vectors[rows]).tolist()))
    for reach, expected in ((2.0, cells), (-1.0, 1)):
        given = {"neighbors": 100, "recall": 0.9, "cells": 1, "most": 1, "gap": 0.0, "rows": 1.0, "candidates": 50}
        rule = VisitRule(**given, reach=reach, error=-1.0)
        index = CORPUS.index(folder, learned=learned.model_copy(update={"rules": (rule,)}))
        # Its nearest cell has more than ten of the rows.
        _, (visited,) = index.nearest(CORPUS.codes(), CORPUS.queries[:1], 10, metric="cosine", recall=0.9, rows=rows)
        assert visited.cells == expected
