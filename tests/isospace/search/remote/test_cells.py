"""A search of published codes scores every row of the cells that it visits, and visits as many as a filter needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from isospace.search.approximate.record import LearnedRecall
from isospace.search.approximate.visits import VisitRule
from isospace.search.remote.cells import RemoteCells
from isospace.search.remote.copy import RemoteCodes
from isospace.search.vector.kernels import Codes
from isospace.search.vector.scoring import score_rows
from isospace.transform.quantizers.int8 import Int8Quantizer
from tests.isospace.search.remote.test_build import WIDTH, arrays, opened, quantizer

CELLS = 7
ROWS = 900
SCALER = Int8Quantizer(np.full(WIDTH, 0.01, np.float32), None)


def learned(**changes: Any) -> LearnedRecall:
    given = {"neighbors": 10, "recall": 0.9, "cells": 1, "most": 1, "gap": 0.0, "rows": 1.0}
    rule = VisitRule.model_validate({**given, "candidates": 1, "reach": -100.0, "error": 0.0, **changes})
    return LearnedRecall(
        space_id="",
        snapshot=1,
        chunks=ROWS,
        queries="set",
        learned_from=1,
        measured_on=1,
        rules=(rule,),
        measured=(),
    )


def searched(folder: Path, rules: LearnedRecall, live: Any = None) -> tuple[RemoteCells, Codes, Any]:
    given = arrays(ROWS, CELLS, text=3)
    group = opened(folder, given, CELLS)
    codes = Codes("int8", SCALER, cast("Any", RemoteCodes([group], group.reader)), None, live)
    whole = Codes("int8", SCALER, given.codes, None, live)
    return RemoteCells([group], group.reader, codes, quantizer(CELLS), rules), whole, given.cells


def best_of(codes: Codes, query: Any, rows: Any, count: int) -> set[int]:
    scores = score_rows(codes, query, rows, "cosine")
    return set(rows[scores >= np.sort(scores)[-count]].tolist())


QUERIES = np.random.default_rng(5).standard_normal((6, WIDTH)).astype(np.float32)
EVERY_NINTH = np.arange(0, ROWS, 9, dtype=np.int64)


@pytest.mark.parametrize("together", [True, False])
def test_all_rows_of_the_nearest_cell_are_scored(tmp_path: Path, together: bool) -> None:
    cells, whole, homes = searched(tmp_path, learned())
    asked = [QUERIES] if together else [QUERIES[n : n + 1] for n in range(len(QUERIES))]
    found, visits = [], []
    for queries in asked:
        some, seen = cells.nearest(queries, 5, metric="cosine", recall=0.9, rows=None, kernels="numpy")
        found, visits = found + some, visits + seen
    centroids = quantizer(CELLS).centroids()
    # One cell has no rows; a query that is nearest to it visits further ones until there are enough.
    order = [[cell for cell in np.argsort(-(centroids @ query)) if (homes == cell).any()] for query in QUERIES]
    for query, near, (rows, scores), visited in zip(QUERIES, order, found, visits, strict=True):
        own = np.flatnonzero(homes == near[0]).astype(np.int64)
        assert set(rows.tolist()) == best_of(whole, query, own, 5)
        assert scores.tolist() == score_rows(whole, query, rows, "cosine").tolist()
        assert (visited.cells, visited.rows, visited.scored) == (1, len(own), len(own))


def test_a_filtered_search_goes_on_while_a_cell_is_within_reach(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    near, _, homes = searched(tmp_path, learned())
    far, whole, _ = searched(tmp_path / "far", learned(reach=100.0))
    for query in QUERIES:
        given: Any = {"metric": "cosine", "recall": 0.9, "rows": EVERY_NINTH, "kernels": "numpy"}
        (little,), (few,) = near.nearest(query[None], 1, **given)
        ((rows, _),), (many,) = far.nearest(query[None], 1, **given)
        assert many.cells == len(np.unique(homes[EVERY_NINTH]))
        assert many.rows == len(EVERY_NINTH)
        assert set(rows.tolist()) == best_of(whole, query, EVERY_NINTH, 1)
        assert few.cells < many.cells
        assert np.isin(little[0], EVERY_NINTH).all()


def test_dead_rows_are_not_found_also_by_exact_searches(tmp_path: Path) -> None:
    live = np.ones(ROWS, bool)
    live[::3] = False
    cells, whole, _ = searched(tmp_path, learned(), live)
    alive = np.flatnonzero(live).astype(np.int64)
    for queries in (QUERIES, QUERIES[:1]):
        exact = cells.exact(queries, 4, metric="cosine", rows=None, kernels="numpy")
        for query, (rows, _) in zip(queries, exact, strict=True):
            assert best_of(whole, query, alive, 4) <= set(rows.tolist())
            assert live[rows].all()
    found, _ = cells.nearest(QUERIES, 4, metric="cosine", recall=0.9, rows=None, kernels="numpy")
    assert all(live[rows].all() for rows, _ in found)


def test_a_search_in_portions_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, whole, _ = searched(tmp_path, learned())
    monkeypatch.setattr("isospace.search.remote.cells._PORTION_BYTES", 1)
    for queries in (QUERIES, QUERIES[:1]):
        for query, (rows, _) in zip(
            queries, cells.exact(queries, 3, metric="cosine", rows=None, kernels="numpy"), strict=True
        ):
            assert set(rows.tolist()) == best_of(whole, query, np.arange(ROWS), 3)


def test_rules_decide_whether_cells_are_visited(tmp_path: Path) -> None:
    cells, _, _ = searched(tmp_path, learned())
    assert cells.can_search(0.9, 10, None)
    assert not cells.can_search(0.95, 10, None)
    assert not cells.can_search(0.9, 11, None)
    # One of the ten neighbors may be expected to pass.
    assert cells.can_search(0.9, 1, np.arange(0, ROWS, 10, dtype=np.int64))
    assert not cells.can_search(0.9, 2, np.arange(0, ROWS, 10, dtype=np.int64))
    assert not cells.can_search(0.9, 1, np.zeros(0, np.int64))


@pytest.mark.parametrize("exact", [True, False])
def test_the_masks_of_a_filter_are_kept_only_if_it_comes_again(tmp_path: Path, exact: bool) -> None:
    cells, _, _ = searched(tmp_path, learned())

    def ask(rows: Any, **keep: bool) -> None:
        if exact:
            cells.exact(QUERIES[:1], 1, metric="cosine", rows=rows, kernels="numpy", **keep)
        else:
            cells.nearest(QUERIES[:1], 1, metric="cosine", recall=0.9, rows=rows, kernels="numpy", **keep)

    ask(EVERY_NINTH)
    # What is left after another search is asked for once: at ten million chunks, its mask takes ten megabytes.
    assert len(cells._kept) == 0
    ask(EVERY_NINTH, keep=True)
    ask(EVERY_NINTH, keep=True)
    assert len(cells._kept) == 1
