"""Which cells a query visits, for a recall that was declared.

The cells are visited by the inner product of their centroid with the query. How many are needed was learned from
queries whose nearest neighbors are known, for several numbers of neighbors. A rule says it in one of two ways: the same
number of cells for all queries, or all cells whose product is at most a gap below that of the first one, which gives
hard queries more cells than easy ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from isospace.transform.vectors import Float32, Float64

NEIGHBORS = (1, 10, 100, 1_000)
"""Numbers of neighbors that rules are learned for."""
RECALLS = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
"""Recalls that can be declared."""


# How many times as many cells as with a fixed number a hard query may visit.
_FACTORS = (2, 4)


class VisitRule(BaseModel):
    """What a search visits for a recall and a number of neighbors.

    Attributes
    ----------
    neighbors, recall
        What it is declared for.
    cells, most
        The fewest and the most cells that a query visits.
    gap
        Also visited is any cell whose centroid's inner product with the query is at most this much below the largest.
    rows
        Rows that a learning query visited, on average.
    candidates
        How many of these are scored exactly, by estimated score.
    reach
        By how much the inner product of a neighbor with the query exceeds that of its cell's centroid, at most.
    error
        By how much it exceeds its estimate, at most.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    neighbors: int
    recall: float
    cells: int
    most: int
    gap: float
    rows: float
    candidates: int
    reach: float
    error: float


def rule_for(rules: Sequence[VisitRule], recall: float, neighbors: int) -> VisitRule | None:
    """Return the rule for at least a recall, and at least a number of neighbors; None if there is none."""
    able = [rule for rule in rules if rule.recall >= recall and rule.neighbors >= neighbors]
    return min(able, key=lambda rule: (rule.neighbors, rule.recall), default=None)


def rule_for_share(rules: Sequence[VisitRule], recall: float, count: int, share: float) -> VisitRule | None:
    """Return the rule for `count` of the rows of which a share passes a filter; None if there is none."""
    return rule_for(rules, recall, math.ceil(count / share)) if share > 0.0 else None


def visited_cells(
    rule: VisitRule, products: Float32, passing: npt.NDArray[np.int64], *, wanted: float
) -> npt.NDArray[np.int64]:
    """Return the cells that a query visits, nearest first.

    Parameters
    ----------
    products
        (c,) inner products of the centroids with the query.
    passing
        (c,) rows of each cell that may be found.
    wanted
        How many such rows to visit at least, if there are as many: there may be few in the cells near the query.
    """
    least = products.max() - np.float32(rule.gap)
    near = max(int(np.count_nonzero(products >= least)), rule.cells)
    count = min(near, rule.most, len(products))
    lowest = -np.partition(-products, count - 1)[count - 1]
    nearest = np.flatnonzero(products >= lowest)
    chosen: npt.NDArray[np.int64] = nearest[np.argsort(-products[nearest], kind="stable")][:count].astype(np.int64)
    if passing[chosen].sum() >= wanted:
        return chosen
    order = np.argsort(-products, kind="stable")
    seen = np.cumsum(passing[order])
    # The first place at which enough rows have been seen; all cells if there are too few.
    enough = int(np.searchsorted(seen, min(wanted, float(seen[-1])))) + 1
    chosen = order[: max(count, enough)].astype(np.int64)
    return chosen


def cells_within_reach(
    rule: VisitRule, products: Float32, passing: npt.NDArray[np.int64], lowest: float, visited: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the cells that may still have a row better than the last hit.

    A filter may leave rows in few cells, far from the query. How many cells queries need without it then says little.
    How far a neighbor reaches beyond its cell's centroid does not depend on the filter.

    Parameters
    ----------
    passing
        (c,) rows of each cell that pass the filter.
    lowest
        The inner product of the last hit; -inf if there are too few.
    visited
        The cells that were visited.
    """
    is_near = (products >= lowest - rule.reach) & (passing > 0)
    is_near[visited] = False
    return np.flatnonzero(is_near).astype(np.int64)


def lowest_product(scores: Float64, count: int, *, is_distance: bool, length: float) -> float:
    """Return the inner product of the query, at unit length, with the last of the best rows; -inf if there are fewer.

    Parameters
    ----------
    scores
        (n,) of the rows, in any order.
    is_distance
        Whether they are negated distances, not inner products.
    length
        Of the query.
    """
    if len(scores) < count:
        return -math.inf
    last = float(np.partition(scores, len(scores) - count)[len(scores) - count])
    # |q - x|^2 = |q|^2 + 1 - 2 q x for unit vectors x.
    product = (length * length + 1.0 - last * last) / 2.0 if is_distance else last
    return product / length


def learn_reach(products: Float32, homes: npt.NDArray[np.integer[Any]], scores: Float64, *, recall: float) -> float:
    """Return the reach of `VisitRule`: that of enough of each query's neighbors, on average.

    Parameters
    ----------
    products, homes, recall
        As for `learn_rule`.
    scores
        (m, k) inner products of the neighbors with the queries.
    """
    return _smallest(scores - np.take_along_axis(products, homes.astype(np.int64), axis=1), recall)


def learn_rule(
    products: Float32,
    homes: npt.NDArray[np.integer[Any]],
    sizes: npt.NDArray[np.int64],
    *,
    recall: float,
) -> tuple[int, int, float, float]:
    """Choose the rule that visits the fewest rows while enough of the true neighbors are in the visited cells.

    Parameters
    ----------
    products
        (m, c) inner products of the centroids with m queries.
    homes
        (m, k) cell of each of the k nearest neighbors of each query.
    sizes
        (c,) rows of each cell.
    recall
        The recall to reach, by a standard error more than that on average: the queries are a sample.

    Returns
    -------
    cells, most, gap, rows
        As in `VisitRule`; gap is 0 where a number of cells is better.
    """
    own = np.take_along_axis(products, homes.astype(np.int64), axis=1)
    # The rank of a cell: how many are nearer. Equal ones count as nearer, so that ties cannot flatter.
    order = np.sort(-products, axis=1)
    ranks = np.stack([np.searchsorted(line, -mine, side="right") for line, mine in zip(order, own, strict=True)])
    gaps = products.max(axis=1, keepdims=True) - own
    by_size = np.cumsum(sizes[np.argsort(-products, axis=1, kind="stable")], axis=1)
    fixed = int(_smallest(ranks, recall))
    best = (fixed, fixed, 0.0, float(by_size[:, fixed - 1].mean()))
    for factor in _FACTORS:
        # A limit for hard queries, which would visit thousands of cells for one more neighbor in a hundred.
        most = min(factor * fixed, products.shape[1])
        limited = np.where(ranks <= most, gaps, np.inf)
        least = _smallest(limited, recall)
        if not np.isfinite(least):
            continue
        gap = float(np.nextafter(np.float32(least), np.float32(np.inf)))
        counts = np.minimum((products >= products.max(axis=1, keepdims=True) - np.float32(gap)).sum(axis=1), most)
        rows = float(np.take_along_axis(by_size, counts[:, None] - 1, axis=1).mean())
        if rows < best[3]:
            best = (1, most, gap, rows)
    return best


def _smallest(costs: npt.NDArray[Any], recall: float) -> float:
    """Return the smallest cost up to which enough of each query's neighbors are found, on average."""
    levels = np.unique(costs)
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        if _reaches((costs <= levels[middle]).mean(axis=1), recall):
            high = middle
        else:
            low = middle + 1
    return float(levels[low])


def _reaches(recalls: npt.NDArray[np.float64], wanted: float) -> bool:
    error = recalls.std(ddof=1) / np.sqrt(len(recalls)) if len(recalls) > 1 else 0.0
    return bool(recalls.mean() - error >= wanted)
