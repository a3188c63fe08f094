"""Search the cells of a space: choose cells, estimate the scores of their rows, score the best exactly."""

from __future__ import annotations

import functools
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from isospace.encoding.forks import is_fork_of
from isospace.search.approximate.lists import CellLists, one_thread, require_faiss, rotated
from isospace.search.approximate.record import LearnedRecall
from isospace.search.approximate.visits import NEIGHBORS, VisitRule, cells_within_reach, rule_for, visited_cells
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
_KEPT_MASKS = 16
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
class _Passing:
    """The rows that may be found, as masks of the groups, and counted by cell."""

    masks: tuple[Bools, ...]
    counts: npt.NDArray[np.int64]


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
        self._passing: OrderedDict[int, tuple[Rows, _Passing]] = OrderedDict()
        self._lock = threading.Lock()
        self._process = os.getpid()

    @functools.cached_property
    def centroids(self) -> Float32:
        """(c, k) float32 centroids."""
        return np.ascontiguousarray(self.quantizer.centroids())

    @functools.cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """(c,) rows of each cell, dead ones included."""
        sizes: npt.NDArray[np.int64] = np.sum([group.sizes for group in self.groups], axis=0)
        return sizes

    @functools.cached_property
    def _live_rows(self) -> _Passing | None:
        return None if self.live is None else self._masked(self.live)

    def rule(self, recall: float, count: int, share: float = 1.0) -> VisitRule | None:
        """Return the rule for `count` of the rows of which a share passes a filter; None if none was learned."""
        if self.learned is None or share <= 0.0:
            return None
        return rule_for(self.learned.rules, recall, math.ceil(count / share))

    def can_search(self, recall: float, count: int, rows: Rows | None) -> bool:
        """Return whether cells are visited for a search, or all of the rows scored."""
        total = int(self._firsts[-1])
        if rows is not None and len(rows) <= _FEW_ROWS:
            return False
        return self.rule(recall, count, 1.0 if rows is None else len(rows) / total) is not None

    def nearest(
        self, last: Codes, queries: Float32, count: int, *, metric: Metric, recall: float, rows: Rows | None
    ) -> tuple[list[Scored], list[Visited]]:
        """Find rows near each query; `can_search` must be true.

        Parameters
        ----------
        last
            The codes that scores are computed from.
        queries
            (m, k) float32 vectors of the space.
        count
            Number of rows wanted.
        recall
            The share of the `count` best rows to find, on average.
        rows
            Ascending int64 live rows to search; all live ones if None.

        Returns
        -------
        list of tuple
            As from `isospace.search.vector.rescoring.nearest`.
        list of Visited
            What each query visited.
        """
        total = int(self._firsts[-1])
        passing = self._live_rows if rows is None else self._of_rows(rows)
        share = 1.0 if rows is None else len(rows) / total
        rule = self.rule(recall, count, share)
        if rule is None or self.learned is None:
            raise AssertionError("no rule: can_search is false")
        growth = max(1.0, total / max(self.learned.chunks, 1))
        wanted = rule.rows * growth * share
        products = self._products(queries)
        cells = [
            visited_cells(rule, line, passing=None if passing is None else passing.counts, wanted=wanted)
            for line in products
        ]
        counts = self.sizes if passing is None else passing.counts
        if rows is None:
            candidates = max(count, rule.candidates)
            found = self.ranked(queries, products, cells, candidates, None if passing is None else passing.masks)
            scored = [_best(last, query, near, count, metric) for query, (near, _) in zip(queries, found, strict=True)]
            visits = [
                Visited(len(chosen), int(counts[chosen].sum()), len(near), rule.recall)
                for chosen, (near, _) in zip(cells, found, strict=True)
            ]
            return scored, visits
        if passing is None:
            raise AssertionError("rows have masks")
        parts = [slice(place, place + 1) for place in range(len(queries))]
        each = [
            self._filtered(last, queries[part], products[part], chosen, count, rule, share, passing, metric)
            for part, chosen in zip(parts, cells, strict=True)
        ]
        return [scored for scored, _ in each], [visited for _, visited in each]

    def _filtered(
        self,
        last: Codes,
        query: Float32,
        products: Float32,
        cells: npt.NDArray[np.int64],
        count: int,
        rule: VisitRule,
        share: float,
        passing: _Passing,
        metric: Metric,
    ) -> tuple[Scored, Visited]:
        """Search the rows that pass a filter, until no cell and no estimate promises a better one.

        The rule was learned without a filter. What it says of how far rows reach beyond their cell's centroid, and of
        how much estimates are too low, holds for any rows.
        """
        candidates, looked = max(count, math.ceil(rule.candidates * share)), 0
        while True:
            ((near, estimates),) = self.ranked(query, products, [cells], candidates, passing.masks)
            looked += len(near)
            rows, scores = _best(last, query[0], near, count, metric)
            lowest = _lowest(scores, count, metric)
            more = cells_within_reach(rule, products[0], passing.counts, lowest, cells)
            is_cut = len(near) == candidates and float(estimates[-1]) > lowest - rule.error
            if not len(more) and not is_cut:
                visited = Visited(len(cells), int(passing.counts[cells].sum()), looked, rule.recall)
                return (rows, scores), visited
            cells = np.concatenate([cells, more])
            candidates = 4 * candidates if is_cut else candidates

    def _products(self, queries: Float32) -> Float32:
        if len(queries) > 1:
            products: Float32 = queries @ self.centroids.T
            return products
        # One thread is faster for one query, since several would wait for each other.
        faiss = require_faiss()
        one, line = np.ascontiguousarray(queries[0]), np.empty(len(self.centroids), np.float32)
        faiss.fvec_inner_products_ny(
            faiss.swig_ptr(line), faiss.swig_ptr(one), faiss.swig_ptr(self.centroids), len(one), len(line)
        )
        return line[None]

    def ranked(
        self,
        queries: Float32,
        products: Float32,
        cells: Sequence[npt.NDArray[np.int64]],
        count: int,
        masks: Sequence[Bools] | None = None,
    ) -> list[tuple[Rows, Float32]]:
        """Return the rows of some cells with the best estimates, best first, and these estimates.

        Parameters
        ----------
        products
            (m, c) inner products of the centroids with the queries.
        cells
            The cells of each query.
        count
            Number of rows for each query, if its cells have as many.
        masks
            The rows of each group that may be found; all if None.
        """
        visited = np.full((len(queries), max(max(map(len, cells)), 1)), -1, np.int64)
        closeness = np.zeros(visited.shape, np.float32)
        for place, chosen in enumerate(cells):
            visited[place, : len(chosen)] = chosen
            closeness[place, : len(chosen)] = products[place, chosen]
        turned = np.ascontiguousarray(rotated(queries))
        estimates, rows = [], []
        for number, group in enumerate(self.groups):
            mask = None if masks is None else masks[number]
            with one_thread() if len(queries) == 1 or is_fork_of(self._process) else nullcontext():
                near, own = group.scan(turned, visited, closeness, count, mask)
            estimates.append(np.where(own >= 0, near, -np.inf))
            rows.append(np.where(own >= 0, own + self._firsts[number], -1))
        best, places = np.concatenate(estimates, axis=1), np.concatenate(rows, axis=1)
        if len(self.groups) > 1:
            order = np.lexsort((places, -best), axis=1)[:, :count]
            best, places = np.take_along_axis(best, order, axis=1), np.take_along_axis(places, order, axis=1)
        return [(line[line >= 0], values[line >= 0]) for line, values in zip(places, best, strict=True)]

    def _of_rows(self, rows: Rows) -> _Passing:
        """Return masks and counts of rows; those of a filter that is asked for again are kept."""
        with self._lock:
            kept = self._passing.get(id(rows))
            if kept is not None and kept[0] is rows:
                self._passing.move_to_end(id(rows))
                return kept[1]
        whole = np.zeros(int(self._firsts[-1]), bool)
        whole[rows] = True
        passing = self._masked(whole)
        with self._lock:
            # The rows are kept too: as long as they are, no other array has their ID.
            self._passing[id(rows)] = (rows, passing)
            while len(self._passing) > _KEPT_MASKS:
                self._passing.popitem(last=False)
        return passing

    def _masked(self, whole: Bools) -> _Passing:
        masks = [
            whole[first : first + len(group.cells)] for first, group in zip(self._firsts, self.groups, strict=False)
        ]
        counts = [
            np.bincount(group.cells[mask], minlength=self.quantizer.count)
            for group, mask in zip(self.groups, masks, strict=True)
        ]
        return _Passing(tuple(masks), np.sum(counts, axis=0))


def _best(codes: Codes, query: Float32, near: Rows, count: int, metric: Metric) -> Scored:
    """Return the candidates that may be among the best, ascending, and their exact scores.

    Products in float32 rule out the others: with 8 sqrt(k) u as the bound of their error, as for exact searches.
    """
    near = np.sort(near)
    if len(near) > 2 * count:
        vectors = codes.quantizer.decode(np.ascontiguousarray(codes.array[near]))
        rough = vectors @ query
        slack = 8.0 * math.sqrt(len(query)) * _FLOAT32_EPSILON * float(np.linalg.norm(query))
        near = near[rough >= np.partition(rough, len(rough) - count)[len(rough) - count] - slack]
    return near, score_rows(codes, query, near, metric)


def _lowest(scores: npt.NDArray[np.float64], count: int, metric: Metric) -> float:
    """Return the inner product of the last of the best rows of unit vectors; -inf if there are fewer."""
    if len(scores) < count:
        return -math.inf
    last = float(np.partition(scores, len(scores) - count)[len(scores) - count])
    # |q - x|^2 = 2 - 2 q x for unit vectors.
    return 1.0 - last * last / 2.0 if metric == "l2" else last


def exact_neighbors(largest: int) -> tuple[int, ...]:
    """Return the numbers of neighbors that rules can be learned for in a collection of `largest` chunks."""
    return tuple(count for count in NEIGHBORS if count * 10 <= largest)
