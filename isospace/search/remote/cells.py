"""Search published codes: read the blocks of the cells near a query, and score all of their rows.

A local approximate search estimates scores first, and scores the best candidates. Here the codes of a visited cell are
read anyway, so that all of its rows are scored: of the same cells, no row is missed.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError
from isospace.search.approximate.index import Visited
from isospace.search.approximate.kept import KeptByRows
from isospace.search.approximate.record import LearnedRecall
from isospace.search.approximate.visits import (
    VisitRule,
    cells_within_reach,
    lowest_product,
    rule_for_share,
    visited_cells,
)
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.group import CodeBlock, RemoteGroup
from isospace.search.vector.kernels import Codes, Kernels
from isospace.search.vector.rescoring import Scored, nearest
from isospace.search.vector.scoring import Metric, score_rows
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.vectors import Float32

Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]
Chosen = list[tuple[int, int]]
"""Blocks of codes: numbers of group and block."""

# What a portion of a search holds in memory, besides the blocks that are kept.
_PORTION_BYTES = 16 << 20
# Queries whose blocks are requested together.
_TOGETHER = 8
_FLOAT32_EPSILON = float(np.finfo(np.float32).eps)
LEAST_EXACT_BYTES = 64_000_000
"""Codes up to which an exact search reads all of them, however small the disk cache is."""


@dataclass(frozen=True, slots=True)
class _Passing:
    """The rows that may be found: a mask of all rows, None if all may; and counted by block of each group."""

    mask: Bools | None
    counts: tuple[Counts, ...]
    total: int


class RemoteCells:
    """The published codes of a snapshot; thread-safe.

    Attributes
    ----------
    learned
        The rules of approximate searches; None if none were learned, or the space has no cells.
    """

    def __init__(
        self,
        groups: Sequence[RemoteGroup],
        reader: BlockReader,
        codes: Codes,
        quantizer: CellQuantizer | None,
        learned: LearnedRecall | None,
    ) -> None:
        self.groups, self.reader, self.codes, self.quantizer = tuple(groups), reader, codes, quantizer
        self.learned = learned if quantizer is not None else None
        self._firsts = np.cumsum([0, *map(len, self.groups)], dtype=np.int64)
        self._centroids = None if quantizer is None else np.ascontiguousarray(quantizer.centroids())
        counts = tuple(group.counts for group in self.groups)
        self._live = _Passing(codes.live, counts, int(sum(one.sum() for one in counts)))
        self._kept = KeptByRows[_Passing]()

    @functools.cached_property
    def sizes(self) -> Counts:
        """(c,) live rows of each cell."""
        return self._by_cell(self._live)

    def rule(self, recall: float, count: int, share: float = 1.0) -> VisitRule | None:
        """Return the rule for `count` of the rows of which a share passes a filter; None if none was learned."""
        return None if self.learned is None else rule_for_share(self.learned.rules, recall, count, share)

    def can_search(self, recall: float, count: int, rows: Rows | None) -> bool:
        """Return whether cells are visited for a search, or all of the rows scored."""
        share = 1.0 if rows is None else len(rows) / max(self._live.total, 1)
        return self.rule(recall, count, share) is not None

    def nearest(
        self,
        queries: Float32,
        count: int,
        *,
        metric: Metric,
        recall: float,
        rows: Rows | None,
        kernels: Kernels,
        keep: bool = False,
    ) -> tuple[list[Scored], list[Visited]]:
        """Find rows near each query; `can_search` must be true.

        Parameters
        ----------
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
        passing = self._live if rows is None else self._kept.get(rows, self._of_rows, keep=keep)
        share = passing.total / max(self._live.total, 1)
        rule = self.rule(recall, count, share)
        if rule is None or self.learned is None or self._centroids is None:
            raise AssertionError("no rule: can_search is false")
        growth = max(1.0, self._live.total / max(self.learned.chunks, 1))
        wanted = float(max(count, rule.candidates)) if rows is None else rule.rows * growth * share
        by_cell = self.sizes if rows is None else self._by_cell(passing)
        lengths = np.linalg.norm(queries, axis=1)
        # Not by BLAS, whose threads wait for each other longer than they work for one query.
        units = (queries / lengths[:, None]).astype(np.float32)
        products = np.stack([np.einsum("ij,j->i", self._centroids, unit) for unit in units])
        chosen = [visited_cells(rule, line, by_cell, wanted=wanted) for line in products]
        found: list[Scored] = []
        visits: list[Visited] = []
        for number, (query, line, length, cells) in enumerate(zip(queries, products, lengths, chosen, strict=True)):
            if number % _TOGETHER == 0 and len(queries) > 1:
                near = np.unique(np.concatenate(chosen[number : number + _TOGETHER]))
                self._prefetch(self._blocks(near, passing))
            scored = self._scan(query[None], self._blocks(cells, passing), passing, count, metric, kernels)[0]
            if rows is not None:
                lowest = lowest_product(scored[1], count, is_distance=metric == "l2", length=float(length))
                more = cells_within_reach(rule, line, by_cell, lowest, cells)
                while len(more):
                    further = self._scan(query[None], self._blocks(more, passing), passing, count, metric, kernels)[0]
                    scored, cells = _merged(scored, further, count), np.concatenate([cells, more])
                    lowest = lowest_product(scored[1], count, is_distance=metric == "l2", length=float(length))
                    more = cells_within_reach(rule, line, by_cell, lowest, cells)
            found.append(scored)
            seen = int(by_cell[cells].sum())
            visits.append(Visited(int(np.count_nonzero(by_cell[cells])), seen, seen, recall))
        return found, visits

    def exact(
        self,
        queries: Float32,
        count: int,
        *,
        metric: Metric,
        rows: Rows | None,
        kernels: Kernels,
        keep: bool = False,
    ) -> list[Scored]:
        """Score all rows, or those given; all blocks that have one are read, a portion at a time.

        Raises
        ------
        QueryError
            If these blocks take more than the disk cache may, so that every such search would read them again.
        """
        passing = self._live if rows is None else self._kept.get(rows, self._of_rows, keep=keep)
        chosen = [
            (group, int(block)) for group, counts in enumerate(passing.counts) for block in np.flatnonzero(counts)
        ]
        size, limit = self._size(chosen), max(self.reader.cache.limit, LEAST_EXACT_BYTES)
        if size > limit:
            raise QueryError(
                f"a search that scores every chunk would read {size / 1e6:,.0f} MB of codes from the store, which is "
                f"more than the cache of {limit / 1e6:,.0f} MB keeps. Search approximately (mode approximate, which "
                "needs recipe.transform.cells), raise local_cache_mb, or open the index with a local copy."
            )
        return self._scan(queries, chosen, passing, count, metric, kernels)

    def _scan(
        self, queries: Float32, chosen: Chosen, passing: _Passing, count: int, metric: Metric, kernels: Kernels
    ) -> list[Scored]:
        """Score the passing rows of blocks; return the best of each query, and those that tie with the last."""
        best: list[Scored] = [(np.zeros(0, np.int64), np.zeros(0)) for _ in queries]
        is_plain = len(queries) == 1 and self.codes.squares is None and metric in ("cosine", "dot")
        for portion in self._portions(chosen):
            if is_plain:
                best = [_merged(best[0], self._best(portion, passing, queries[0], count, metric), count)]
                continue
            codes, rows = self._read(portion, passing)
            if not len(rows):
                continue
            scored = nearest(codes, codes, queries, count, metric=metric, rescore=0, rows=None, kernels=kernels)
            best = [
                _merged(known, (rows[near], scores), count) for known, (near, scores) in zip(best, scored, strict=True)
            ]
        return best

    def _best(self, chosen: Chosen, passing: _Passing, query: Float32, count: int, metric: Metric) -> Scored:
        """Return the rows of blocks that may be among the best for one query, and their exact scores.

        Products in float32 rule out the others: with 8 sqrt(k) u as the bound of their error, as for exact searches.
        They are computed block by block, since a block stays near the processor, and not by BLAS, whose threads wait
        for each other longer than they work for one query.
        """
        blocks = self._opened(chosen)
        decode = self.codes.quantizer.decode
        near: list[npt.NDArray[np.float32]] = []
        rows: list[Rows] = []
        for group, block in blocks:
            products = np.einsum("ij,j->i", np.ascontiguousarray(decode(block.codes), np.float32), query)
            own = block.rows + self._firsts[group]
            if passing.mask is not None:
                products[~passing.mask[own]] = -np.inf
            near.append(products)
            rows.append(own)
        rough = np.concatenate([np.zeros(0, np.float32), *near])
        is_near = rough > -np.inf
        if np.count_nonzero(is_near) > count:
            slack = 8.0 * math.sqrt(len(query)) * _FLOAT32_EPSILON * float(np.linalg.norm(query))
            is_near &= rough >= np.partition(rough, len(rough) - count)[len(rough) - count] - slack
        ends = np.cumsum([0, *map(len, rows)])
        kept = [is_near[start:end] for start, end in pairwise(ends.tolist())]
        codes = [block.codes[keep] for (_, block), keep in zip(blocks, kept, strict=True) if keep.any()]
        if not codes:
            return np.zeros(0, np.int64), np.zeros(0)
        chosen_codes = Codes(self.codes.name, self.codes.quantizer, np.concatenate(codes))
        scores = score_rows(chosen_codes, query, np.arange(len(chosen_codes)), metric)
        return np.concatenate(rows)[is_near], scores

    def _opened(self, chosen: Chosen) -> list[tuple[int, CodeBlock]]:
        data = self.reader.read([(self.groups[group].file("codes"), block) for group, block in chosen])
        return [
            (group, self.groups[group].code_block(block, one)) for (group, block), one in zip(chosen, data, strict=True)
        ]

    def _read(self, chosen: Chosen, passing: _Passing) -> tuple[Codes, Rows]:
        """Return the codes of the passing rows of blocks, and these rows."""
        blocks = self._opened(chosen)
        rows = np.concatenate([np.zeros(0, np.int64), *(block.rows + self._firsts[group] for group, block in blocks)])
        codes = np.concatenate([block.codes for _, block in blocks])
        squares = None
        if self.codes.squares is not None:
            squares = np.concatenate([block.squares for _, block in blocks if block.squares is not None])
        if passing.mask is not None:
            keep = passing.mask[rows]
            if not keep.all():
                rows, codes = rows[keep], codes[keep]
                squares = None if squares is None else squares[keep]
        return Codes(self.codes.name, self.codes.quantizer, codes, squares), rows

    def _prefetch(self, chosen: Chosen) -> None:
        for portion in self._portions(chosen):
            self.reader.read([(self.groups[group].file("codes"), block) for group, block in portion])

    def _portions(self, chosen: Chosen) -> Iterator[Chosen]:
        portion: Chosen = []
        filled = 0
        for one in chosen:
            size = self._size([one])
            if portion and filled + size > _PORTION_BYTES:
                yield portion
                portion, filled = [], 0
            portion.append(one)
            filled += size
        if portion:
            yield portion

    def _size(self, chosen: Chosen) -> int:
        spans = (self.groups[group].file("codes").span(block) for group, block in chosen)
        return sum(end - start for start, end in spans)

    def _blocks(self, cells: npt.NDArray[np.int64], passing: _Passing) -> Chosen:
        """Return the blocks of cells that have passing rows, of all groups."""
        found: Chosen = []
        for number, group in enumerate(self.groups):
            if group.places is not None:
                places = group.places[cells]
                found += [(number, int(place)) for place in places[passing.counts[number][places] > 0]]
        return found

    def _by_cell(self, passing: _Passing) -> Counts:
        total = np.zeros(0 if self.quantizer is None else self.quantizer.count, np.int64)
        for group, counts in zip(self.groups, passing.counts, strict=True):
            if group.places is not None:
                total += counts[group.places]
        return total

    def _of_rows(self, rows: Rows) -> _Passing:
        """Return the mask and the counts of rows."""
        mask = np.zeros(int(self._firsts[-1]), bool)
        mask[rows] = True
        counts = []
        for first, group in zip(self._firsts[:-1].tolist(), self.groups, strict=True):
            own = mask[first : first + len(group)]
            counts.append(np.bincount(group.blocks[own], minlength=len(group.counts)).astype(np.int64))
        return _Passing(mask, tuple(counts), len(rows))


def _merged(one: Scored, other: Scored, count: int) -> Scored:
    """Return the best rows of both, and those that tie with the last."""
    rows, scores = (np.concatenate(parts) for parts in zip(one, other, strict=True))
    if len(scores) > count > 0:
        keep = scores >= np.partition(scores, len(scores) - count)[len(scores) - count]
        rows, scores = rows[keep], scores[keep]
    return rows, scores
