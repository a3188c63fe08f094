"""Search the cells of a space: choose cells, estimate the scores of their rows, score the best exactly."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.search.approximate.kept import KeptByRows
from isospace.search.approximate.lists import CellLists, one_thread, require_faiss, rotated
from isospace.search.approximate.record import LearnedRecall
from isospace.search.approximate.visits import (
    NEIGHBORS,
    VisitRule,
    cells_within_reach,
    lowest_product,
    rule_for_share,
    visited_cells,
)
from isospace.search.vector.kernels import Codes
from isospace.search.vector.rescoring import Scored
from isospace.search.vector.scoring import Metric, score_rows
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.vectors import Float32

FROM_ROWS = 100_000
"""Live rows from which mode `auto` is approximate, measured: below, an exact search takes a few milliseconds."""
# Passing rows up to which all of them are scored: that takes as long as visiting cells.
_FEW_ROWS = 20_000
# Passing rows near a query, compared with what their share in all rows would give, from which a filter counts as
# unrelated to the query.
_NEAR_SHARE = 0.7
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
Bools: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Visited:
    """What a query visited.

    Attributes
    ----------
    cells, rows
        How many cells, and how many rows in them that could be found.
    scored
        How many rows were scored exactly.
    recall
        The recall that was declared.
    """

    cells: int
    rows: int
    scored: int
    recall: float


@dataclass(frozen=True, slots=True)
class Passing:
    """The rows that may be found: as bits for each group, None if all may; and counted by cell.

    Where the rows are in other processes, `bits` is what these know them by.
    """

    bits: Any
    counts: npt.NDArray[np.int64]
    total: int


@dataclass(frozen=True, slots=True)
class UnitQuery:
    """One query, scaled to unit length."""

    vector: Float32
    """(k,) as it was given."""
    length: float
    turned: Float32
    """(1, k) of unit length, rotated."""
    products: Float32
    """(c,) inner products of the centroids with it, at unit length."""


class ApproximateIndex:
    """The lists of all groups of a snapshot; thread-safe.

    Attributes
    ----------
    learned
        The rules; None if none were learned, so that searches stay exact.
    """

    def __init__(
        self,
        groups: Sequence[CellLists],
        quantizer: CellQuantizer,
        learned: LearnedRecall | None,
        live: Bools | None,
    ) -> None:
        self.groups, self.quantizer, self.learned, self.live = tuple(groups), quantizer, learned, live
        self._firsts = np.cumsum([0, *(len(group.cells) for group in groups)])
        self._kept = KeptByRows[Passing]()

    @functools.cached_property
    def centroids(self) -> Float32:
        """(c, k) float32 centroids."""
        return np.ascontiguousarray(self.quantizer.centroids())

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(c,) live rows of each cell."""
        return self.live_rows.counts

    @functools.cached_property
    def live_rows(self) -> Passing:
        """All live rows."""
        if self.live is not None:
            return self._masked(self.live)
        counts = np.sum([np.bincount(one.cells, minlength=self.quantizer.count) for one in self.groups], axis=0)
        return Passing(None, counts, int(self._firsts[-1]))

    def rule(self, recall: float, count: int, share: float = 1.0) -> VisitRule | None:
        """Return the rule for `count` of the rows of which a share passes a filter; None if none was learned."""
        return None if self.learned is None else rule_for_share(self.learned.rules, recall, count, share)

    def can_search(self, recall: float, count: int, rows: Rows | None) -> bool:
        """Return whether cells are visited for a search, or all of the rows scored."""
        if rows is None:
            return self.rule(recall, count) is not None
        return len(rows) > _FEW_ROWS and self.rule(recall, count, len(rows) / self.live_rows.total) is not None

    def nearest(
        self,
        last: Codes,
        queries: Float32,
        count: int,
        *,
        metric: Metric,
        recall: float,
        rows: Rows | None,
        keep: bool = False,
    ) -> tuple[list[Scored], list[Visited]]:
        """Find rows near each query; `can_search` must be true.

        Parameters
        ----------
        last
            The codes that scores are computed from.
        queries
            (m, k) float32 vectors of the space, of any length but zero.
        count
            Number of rows wanted.
        recall
            The share of the `count` best rows to find, on average.
        rows
            Ascending int64 live rows to search; all live ones if None.
        keep
            Whether the same array of rows will be asked for again.

        Returns
        -------
        list of tuple
            As from `isospace.search.vector.rescoring.nearest`.
        list of Visited
            What each query visited.
        """
        passing = self.live_rows if rows is None else self.passing(rows, keep)
        share = passing.total / max(self.live_rows.total, 1)
        rule = self.rule(recall, count, share)
        if rule is None or self.learned is None:
            raise AssertionError("no rule: can_search is false")
        # The rules may be from a smaller snapshot.
        growth = max(1.0, self.live_rows.total / max(self.learned.chunks, 1))
        prepared = self._prepared(queries)
        if rows is None:
            each = self._plain(last, prepared, count, rule, metric)
        else:
            wanted = rule.rows * growth * share
            each = [self._filtered(last, query, count, rule, metric, passing, share, wanted) for query in prepared]
        visits = [Visited(*figures, recall) for _, figures in each]
        return [scored for scored, _ in each], visits

    def _prepared(self, queries: Float32) -> list[UnitQuery]:
        lengths = np.linalg.norm(queries, axis=1)
        units = np.ascontiguousarray(queries / lengths[:, None], np.float32)
        turned = np.ascontiguousarray(rotated(units))
        parts = [slice(place, place + 1) for place in range(len(queries))]
        products = units @ self.centroids.T if len(units) > 1 else self._products(units[0])[None]
        return [
            UnitQuery(vector, float(length), turned[part], line)
            for vector, length, part, line in zip(queries, lengths, parts, products, strict=True)
        ]

    def _products(self, unit: Float32) -> Float32:
        """Return the products with one query, by one thread: several would wait for each other."""
        faiss = require_faiss()
        line = np.empty(len(self.centroids), np.float32)
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(line), faiss.swig_ptr(unit), faiss.swig_ptr(self.centroids), len(unit), len(line)
        )
        return line

    def _plain(
        self, last: Codes, queries: Sequence[UnitQuery], count: int, rule: VisitRule, metric: Metric
    ) -> list[tuple[Scored, tuple[int, int, int]]]:
        passing, candidates = self.live_rows, max(count, rule.candidates)
        cells = [visited_cells(rule, query.products, passing.counts, wanted=candidates) for query in queries]
        found = self.ranked_each(queries, cells, candidates, passing.bits)
        near = [rows for rows, _ in found]
        scored = self.best_each(last, queries, near, count, metric)
        return [
            (best, (len(visited), int(passing.counts[visited].sum()), len(rows)))
            for best, visited, rows in zip(scored, cells, near, strict=True)
        ]

    def _filtered(
        self,
        last: Codes,
        query: UnitQuery,
        count: int,
        rule: VisitRule,
        metric: Metric,
        passing: Passing,
        share: float,
        wanted: float,
    ) -> tuple[Scored, tuple[int, int, int]]:
        """Search the rows that pass a filter, until no cell and no estimate promises a better one.

        The rule was learned without a filter, from rows near queries. Where a filter leaves few rows near the query, it
        says nothing: then all passing rows are estimated, and their estimates trusted half as much.
        """
        own = visited_cells(rule, query.products, self.sizes, wanted=0.0)
        is_near = passing.counts[own].sum() >= _NEAR_SHARE * share * self.sizes[own].sum()
        error = rule.error if is_near else 2.0 * rule.error
        if is_near:
            cells = visited_cells(rule, query.products, passing.counts, wanted=wanted)
            cells = cells[passing.counts[cells] > 0]
        else:
            cells = np.flatnonzero(passing.counts).astype(np.int64)
        candidates, looked = max(count, math.ceil(rule.candidates * share)), 0
        while True:
            ((near, estimates),) = self.ranked_each([query], [cells], candidates, passing.bits)
            looked += len(near)
            ((rows, scores),) = self.best_each(last, [query], [near], count, metric)
            lowest = lowest_product(scores, count, is_distance=metric == "l2", length=query.length)
            more = cells_within_reach(rule, query.products, passing.counts, lowest, cells)
            is_cut = len(near) == candidates and float(estimates[-1]) > lowest - error
            if not len(more) and not is_cut:
                return (rows, scores), (len(cells), int(passing.counts[cells].sum()), looked)
            cells = np.concatenate([cells, more])
            candidates = 4 * candidates if is_cut else candidates

    def ranked_each(
        self, queries: Sequence[UnitQuery], cells: Sequence[npt.NDArray[np.int64]], count: int, bits: Any
    ) -> list[tuple[Rows, Float32]]:
        """Return what `ranked` does, for each query and its cells."""
        return [
            self.ranked(query.turned, query.products, visited, count, bits)
            for query, visited in zip(queries, cells, strict=True)
        ]

    def best_each(
        self, last: Codes, queries: Sequence[UnitQuery], near: Sequence[Rows], count: int, metric: Metric
    ) -> list[Scored]:
        """Return the candidates of each query that may be among the best, and their exact scores from `last`."""
        return [best_of(last, query.vector, rows, count, metric) for query, rows in zip(queries, near, strict=True)]

    def ranked(
        self,
        turned: Float32,
        products: Float32,
        cells: npt.NDArray[np.int64],
        count: int,
        bits: Sequence[npt.NDArray[np.uint8]] | None = None,
    ) -> tuple[Rows, Float32]:
        """Return the rows of some cells with the best estimates, best first, and these estimates.

        Parameters
        ----------
        turned
            (1, k) query of unit length, rotated.
        products
            (c,) inner products of the centroids with the query.
        cells
            The cells to visit.
        count
            Number of rows, if the cells have as many.
        bits
            The rows of each group that may be found; all if None.
        """
        visited = np.ascontiguousarray(cells[None], np.int64)
        closeness = np.ascontiguousarray(products[cells][None], np.float32)
        found = []
        # faiss's threads wait for each other longer than they work for one query; a fork has none of them.
        with one_thread():
            for number, group in enumerate(self.groups):
                mask = None if bits is None else bits[number]
                near, own = group.scan(turned, visited, closeness, count, mask)
                is_row = own[0] >= 0
                found.append((own[0][is_row] + self._firsts[number], near[0][is_row]))
        if len(found) == 1:
            return found[0]
        rows, estimates = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.lexsort((rows, -estimates))[:count]
        return rows[order], estimates[order]

    def passing(self, rows: Rows, keep: bool) -> Passing:
        """Return the masks and counts of rows; those of a filter that is asked for again are kept."""
        return self._kept.get(rows, self._of_rows, keep=keep)

    def _of_rows(self, rows: Rows) -> Passing:
        whole = np.zeros(int(self._firsts[-1]), bool)
        whole[rows] = True
        return self._masked(whole)

    def _masked(self, whole: Bools) -> Passing:
        starts = self._firsts[:-1].tolist()
        masks = [whole[at : at + len(group.cells)] for at, group in zip(starts, self.groups, strict=True)]
        counts = [
            np.bincount(group.cells[mask], minlength=self.quantizer.count)
            for group, mask in zip(self.groups, masks, strict=True)
        ]
        bits = tuple(np.packbits(mask, bitorder="little") for mask in masks)
        return Passing(bits, np.sum(counts, axis=0), int(np.count_nonzero(whole)))


def best_of(codes: Codes, query: Float32, near: Rows, count: int, metric: Metric) -> Scored:
    """Return the candidates that may be among the best, ascending, and their exact scores.

    Scores of the same metric in float32 rule out the others: with 8 sqrt(k) u as the bound of the error of products, as
    for exact searches. The vectors of the space have unit length, but what compact codes are decoded to has not.
    """
    near = np.sort(near)
    if len(near) > 2 * count:
        vectors = codes.quantizer.decode(np.ascontiguousarray(codes.array[near]))
        rough = vectors @ query
        size = float(np.linalg.norm(query))
        if metric == "l2":
            # |q - x|^2 = |q|^2 - 2 (q x - |x|^2 / 2)
            squares = np.einsum("ij,ij->i", vectors, vectors)
            rough -= squares / 2.0
            size += float(squares.max())
        slack = 8.0 * math.sqrt(len(query)) * _FLOAT32_EPSILON * size
        near = near[rough >= np.partition(rough, len(rough) - count)[len(rough) - count] - slack]
    return near, score_rows(codes, query, near, metric)


def exact_neighbors(largest: int) -> tuple[int, ...]:
    """Return the numbers of neighbors that rules can be learned for in a collection of `largest` chunks."""
    return tuple(count for count in NEIGHBORS if count * 10 <= largest)
