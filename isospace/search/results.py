"""From queries to the rows of a page: search, rerank, group, select, cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from itertools import groupby
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.search.answer import Clock
from isospace.search.diversity import scaled, select_diverse
from isospace.search.grouping import group, rank_documents
from isospace.search.hits import Hit, RankedRows
from isospace.search.options import WORD_MODES, SearchOptions
from isospace.search.paging import last_place, searched_places
from isospace.search.percentiles import percentile
from isospace.search.vector.topk import Rows
from isospace.search.view import View
from isospace.transform.vectors import Float32

Scorer: TypeAlias = Callable[[str, Sequence[str]], npt.NDArray[np.float64]]
"""Scores of texts for a query, as `Reranker.scores` returns them."""
Place: TypeAlias = list[tuple[int, float]]
"""What takes one place in the order: a row with its score or, with `group_by`, the rows of a document."""


def rank_results(
    view: View,
    texts: Sequence[str] | None,
    vectors: Float32 | None,
    options: SearchOptions,
    *,
    scorer: Scorer | None = None,
    without: Rows | None = None,
    clock: Clock,
) -> list[RankedRows]:
    """Return the rows of the page that `options` ask for, for each query.

    Parameters
    ----------
    texts, vectors
        As for `View.rank`: m queries, and their (m, k) float32 vectors.
    scorer
        What reranks; needed with `rerank`.
    without
        Rows that are no hits, and neither are their documents with `group_by`; none if None.
    clock
        Records the stages `search` and, with `rerank`, `rerank`.

    Raises
    ------
    QueryError
        If the snapshot does not support the options, or the page ends behind `depth`.
    """
    skipped = _skipped(view, without, options)
    # What is left out afterwards takes places before that.
    whole = options.model_copy(update={"k": searched_places(view, options) + len(skipped), "offset": None})
    is_grouped_first = options.group_by is not None and not options.rerank
    ranked = rank_documents(view, texts, vectors, whole) if is_grouped_first else view.rank(texts, vectors, whole)
    clock.lap("search")
    if options.rerank and scorer is not None and texts is not None:
        ranked = [_reranked(view, text, rows, whole, scorer) for text, rows in zip(texts, ranked, strict=True)]
        clock.lap("rerank")
    return [_page(view, rows, options, skipped) for rows in ranked]


def with_percentiles(view: View, hits: Sequence[Hit], options: SearchOptions) -> list[Hit]:
    """Return hits with the percentiles of their cosines; those that have none, such as hits by words, as they are."""
    cosines = [_cosine_of(hit, options) for hit in hits]
    return [
        hit if cosine is None else replace(hit, percentile=percentile(cosine, view.chance))
        for hit, cosine in zip(hits, cosines, strict=True)
    ]


def _reranked(view: View, query: str, ranked: RankedRows, whole: SearchOptions, scorer: Scorer) -> RankedRows:
    if not ranked.rows:
        return ranked
    best = ranked.rows[: whole.depth]
    scores = scorer(query, view.texts(row for row, _ in best))
    order = sorted(range(len(best)), key=lambda place: (-scores[place], place))
    rows = [(best[place][0], float(scores[place])) for place in order]
    parts = {**ranked.parts, "retrieval": dict(ranked.rows), "rerank": dict(rows)}
    # Rows that the reranker did not score follow in the order of the search.
    found = RankedRows([*rows, *ranked.rows[whole.depth :]], parts, ranked.visited)
    return found if whole.group_by is None else group(view, found, whole)


def _page(view: View, ranked: RankedRows, options: SearchOptions, skipped: Set[int]) -> RankedRows:
    lowest = -np.inf if options.min_score is None else options.min_score
    good = [one for one in ranked.rows if one[1] >= lowest]
    members = _members(view, [row for row, _ in good], options)
    places: list[Place] = [
        [one for _, one in rows]
        for member, rows in groupby(zip(members, good, strict=True), key=lambda pair: pair[0])
        if member not in skipped
    ]
    if options.diversity > 0:
        places = _diverse(view, places[: searched_places(view, options)], options)
    first = options.offset or 0
    return RankedRows(
        [one for place in places[first : first + options.k] for one in place], ranked.parts, ranked.visited
    )


def _diverse(view: View, places: list[Place], options: SearchOptions) -> list[Place]:
    """Select diverse places up to the end of the page; a document is compared by its best chunk."""
    rows = np.array([place[0][0] for place in places], np.int64)
    vectors = view.vectors_of(rows)
    relevance = scaled([place[0][1] for place in places])
    return [places[n] for n in select_diverse(relevance, vectors, options.diversity, last_place(options))]


def _skipped(view: View, without: Rows | None, options: SearchOptions) -> Set[int]:
    return frozenset() if without is None else frozenset(_members(view, without.tolist(), options))


def _members(view: View, rows: Sequence[int], options: SearchOptions) -> Sequence[int]:
    """Return what takes a place in the order, for each row: itself, or its document."""
    if options.group_by is None:
        return rows
    members: list[int] = view.documents_of(np.array(rows, np.int64)).tolist()
    return members


def _cosine_of(hit: Hit, options: SearchOptions) -> float | None:
    if options.metric != "cosine" or options.mode in WORD_MODES:
        return None
    if options.mode == "hybrid":
        return hit.scores.get("vector")
    return hit.scores.get("retrieval") if options.rerank else hit.score
