"""Ranking in one snapshot: order, ties, words in common, and queries that cannot be ranked."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from isospace.errors import MismatchError, QueryError
from isospace.search.local.copy import LocalCopy
from isospace.search.options import SearchOptions
from isospace.search.vector.kernels import Codes
from isospace.search.view import View
from isospace.transform.quantizer_set import fit_quantizers
from isospace.transform.representations import Float32Spec
from tests.helpers.manifests import manifest

# Row 4 comes first by name; rows 1, 2, and 4 have equal vectors, and so do 3 and 5.
NAMES = ["e", "d", "c", "b", "a", "f"]
VECTORS = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8], [0, 1], [0.6, 0.8], [0, 1]], np.float32)


def view(*, word_scores: list[float] | None = None) -> View:
    specs = (Float32Spec(),)
    quantizers = fit_quantizers(VECTORS, specs)
    codes = {"float32": Codes("float32", quantizers.by_name["float32"], VECTORS)}
    chunks = pa.table({"chunk_id": NAMES, "document": pa.array(range(6), pa.int32())})
    documents = pa.table({"doc_id": NAMES, "metadata": ["{}"] * 6, "year": range(2020, 2026)})
    copy = LocalCopy(codes, chunks, documents, ((0, 6),))
    spec = SimpleNamespace(representations=specs)
    space = SimpleNamespace(
        record=SimpleNamespace(dimension=2, spec=spec), transform=SimpleNamespace(quantizers=quantizers)
    )
    lexical = None
    if word_scores is not None:
        lexical = SimpleNamespace(best=functools.partial(best_of, np.array(word_scores)))
    return View(manifest(1), SimpleNamespace(space=space), copy, lexical, "numpy")  # type: ignore[arg-type]


def best_of(scores: Any, _: str, count: int, rows: Any = None) -> tuple[Any, Any]:
    """Return all rows with a positive score, of those to choose from; `count` is how many of them the view keeps."""
    shared = np.flatnonzero(scores > 0)
    chosen = shared if rows is None else np.intersect1d(shared, rows)
    return chosen, scores[chosen]


def ranked(made: View, query: Any = (0.6, 0.8), **options: Any) -> list[int]:
    found = made.rank(["words"], np.array([query], np.float32), SearchOptions(**options))
    return [row for row, _ in found[0].rows]


@pytest.mark.parametrize(
    ("k", "expected"),
    [(1, [4]), (2, [4, 2]), (3, [4, 2, 1]), (4, [4, 2, 1, 3]), (5, [4, 2, 1, 3, 5]), (9, [4, 2, 1, 3, 5, 0])],
)
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2", "l1"])
def test_rows_come_by_score_and_ties_by_name_however_many_are_wanted(k: int, expected: list[int], metric: str) -> None:
    assert ranked(view(), k=k, metric=metric) == expected


@pytest.mark.parametrize(
    ("expression", "expected"), [("year >= 2022", [4, 2, 3, 5]), ("year == 2020", [0]), ("year < 0", [])]
)
def test_a_filter_leaves_rows_in_their_order(expression: str, expected: list[int]) -> None:
    assert ranked(view(), filter=expression) == expected


@pytest.mark.parametrize(
    ("scores", "expected"), [([0, 1, 0, 2, 0, 1], [3, 1, 5]), ([0] * 6, []), ([1e-6, 0, 0, 0, 0, 0], [0])]
)
def test_words_find_only_what_shares_one(scores: list[float], expected: list[int]) -> None:
    assert ranked(view(word_scores=scores), mode="lexical") == expected
    some = [row for row in expected if row >= 2]
    assert ranked(view(word_scores=scores), mode="lexical", filter="year >= 2022") == some


def test_modes_are_those_that_can_search_here() -> None:
    assert view().modes == ("auto", "exact")
    assert view(word_scores=[0.0] * 6).modes == ("auto", "exact", "lexical", "hybrid")


def test_both_lists_of_a_hybrid_search_are_fused_by_rank() -> None:
    found = view(word_scores=[3, 0, 0, 0, 0, 2]).rank(
        ["x"], np.array([[0.6, 0.8]], np.float32), SearchOptions(mode="hybrid", k=3)
    )
    # Rows 0 and 5 are the sixth and fifth by vectors, and the first and second by words.
    assert [row for row, _ in found[0].rows] == [0, 5, 4]
    assert found[0].rows[0][1] == pytest.approx(1 / 66 + 1 / 61)
    assert found[0].parts["bm25"] == {0: 3.0, 5: 2.0}


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("metric", ["cosine", "dot", "l2"])
def test_a_query_that_is_not_finite_is_refused(bad: float, metric: str) -> None:
    with pytest.raises(QueryError, match="a query vector holds NaN or infinity"):
        ranked(view(), (0.6, bad), metric=metric)


def test_a_query_without_a_direction_or_of_another_dimension_is_refused() -> None:
    with pytest.raises(QueryError, match="is zero and has no direction"):
        ranked(view(), (0.0, 0.0))
    assert len(ranked(view(), (0.0, 0.0), metric="l2")) == 6
    with pytest.raises(MismatchError, match=r"have the shape \(1, 3\); the space expects"):
        ranked(view(), (0.0, 0.0, 1.0))
