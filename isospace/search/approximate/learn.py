"""Learn how many cells searches must visit, from queries whose exact neighbors are found by scoring all rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import ConfigError
from isospace.search.approximate.index import ApproximateIndex, exact_neighbors
from isospace.search.approximate.lists import rotated
from isospace.search.approximate.record import LearnedRecall, MeasuredRecall
from isospace.search.approximate.visits import RECALLS, VisitRule, learn_reach, learn_rule, visited_cells
from isospace.search.vector.kernels import Codes, Kernels
from isospace.search.vector.rescoring import nearest
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.cells import Cells
from isospace.transform.vectors import Float32, Float64

FEWEST = 50
"""Queries to learn from, and as many to measure on, at least."""
# Of the neighbors that may be missed, so many may be in cells that are not visited; the rest, among rows whose
# estimates are too low.
_SHARE_OF_CELLS = 0.75
# Rules are also learned for recalls between those that can be declared, and above: where the rule for a recall just
# fails on other queries, the next one visits little more.
_LEARNED = (*sorted({*RECALLS, 0.85, 0.925, 0.965, 0.985, 0.9925, 0.9975}), 0.9995)
_BLOCK = 100
_QUANTILE = 1.96


def learn_recall(
    index: ApproximateIndex,
    first: Codes,
    last: Codes,
    queries: Float32,
    *,
    source: str,
    space_id: str,
    snapshot: int,
    kernels: Kernels = "auto",
) -> LearnedRecall:
    """Learn rules from half of the queries, and measure them on the other half.

    Parameters
    ----------
    first, last
        The codes that an exact search scans, and those that scores are computed from.
    queries
        (m, k) float32 vectors of the space; those with even numbers are learned from.
    source
        Where the queries are from.

    Raises
    ------
    ConfigError
        If there are too few queries.
    """
    if len(queries) < 2 * FEWEST:
        raise ConfigError(f"{len(queries)} queries to learn recall from; expected {2 * FEWEST} or more.")
    # Rules hold for queries of unit length, to which searches scale theirs.
    queries = np.ascontiguousarray(queries / np.linalg.norm(queries, axis=1, keepdims=True), np.float32)
    total = first.live_count
    counts = exact_neighbors(total)
    truth, scores = _exact(first, last, queries, max(counts), kernels)
    learned, held_out = slice(0, None, 2), slice(1, None, 2)
    rules = [
        rule
        for count in counts
        for rule in _rules(index, queries[learned], truth[learned, :count], scores[learned, :count])
    ]
    made = LearnedRecall(
        space_id=space_id,
        snapshot=snapshot,
        chunks=total,
        queries=source,
        learned_from=len(queries[learned]),
        measured_on=len(queries[held_out]),
        rules=tuple(rules),
        measured=(),
    )
    tested = ApproximateIndex(index.groups, index.quantizer, made, index.live)
    measured = [_measure(tested, last, queries[held_out], truth[held_out], rule) for rule in rules]
    kept = declared_rules(rules, measured)
    return made.model_copy(
        update={"rules": tuple(rule for rule, _ in kept), "measured": tuple(one for _, one in kept)},
    )


def declared_rules(
    rules: Sequence[VisitRule], measured: Sequence[MeasuredRecall]
) -> list[tuple[VisitRule, MeasuredRecall]]:
    """Return for each recall the first rule, learned for that or more, that reached it on other queries.

    If no rule reached a recall, searches that declare it are exact.
    """
    kept = []
    for count in dict.fromkeys(rule.neighbors for rule in rules):
        for recall in RECALLS:
            able = [
                (rule, one)
                for rule, one in zip(rules, measured, strict=True)
                if rule.neighbors == count and rule.recall >= recall and one.recall >= recall
            ]
            if able:
                rule, one = min(able, key=lambda pair: pair[0].recall)
                kept.append((rule.model_copy(update={"recall": recall}), one.model_copy(update={"declared": recall})))
    return kept


def recall_of(found: Sequence[Rows], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return the (m,) shares of the true neighbors that were found."""
    return np.array([np.isin(own, near).mean() for near, own in zip(found, truth, strict=True)])


def interval(values: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % confidence interval of the mean of shares of neighbors: of Student's t for many values.

    Where all shares are 1, the normal approximation would say that there is no doubt; the rule of three bounds the
    share of queries that miss anything (Hanley and Lippman-Hand, 1983).
    """
    mean, count = float(values.mean()), len(values)
    half = _QUANTILE * float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else 1.0
    low = min(mean - half, 1.0 - 3.0 / count) if half == 0.0 else mean - half
    return max(0.0, low), min(1.0, mean + half)


def _exact(
    first: Codes, last: Codes, queries: Float32, count: int, kernels: Kernels
) -> tuple[npt.NDArray[np.int64], Float64]:
    """Return the (m, count) rows nearest to each query, best first, and their scores."""
    rescore = 4 if last is not first else 0
    found, values = [], []
    for start in range(0, len(queries), _BLOCK):
        block = queries[start : start + _BLOCK]
        scored = nearest(first, last, block, count, metric="cosine", rescore=rescore, rows=None, kernels=kernels)
        for rows, scores in scored:
            order = np.lexsort((rows, -scores))[:count]
            found.append(rows[order])
            values.append(scores[order])
    return np.stack(found), np.stack(values)


def _rules(index: ApproximateIndex, queries: Float32, truth: npt.NDArray[np.int64], scores: Float64) -> list[VisitRule]:
    cells = np.concatenate([group.cells for group in index.groups])
    homes, products = cells[truth], queries @ index.centroids.T
    count = truth.shape[1]
    rules = []
    for recall in _LEARNED:
        missed = 1.0 - recall
        fewest, most, gap, rows = learn_rule(products, homes, index.sizes, recall=1.0 - _SHARE_OF_CELLS * missed)
        reach = learn_reach(products, homes, scores, recall=1.0 - _SHARE_OF_CELLS * missed)
        rule = VisitRule(
            neighbors=count,
            recall=recall,
            cells=fewest,
            most=most,
            gap=gap,
            rows=rows,
            candidates=1,
            reach=reach,
            error=0.0,
        )
        rules.append(rule)
    estimated = _estimated(index, cells, queries, products, truth, scores, rules)
    finished = []
    for rule, (ranks, errors) in zip(rules, estimated, strict=True):
        part = 1.0 - (1.0 - _SHARE_OF_CELLS) * (1.0 - rule.recall)
        needed = {"candidates": max(count, _quantile(ranks, part) + 1), "error": float(_quantile(errors, part))}
        finished.append(rule.model_copy(update=needed))
    return finished


def _estimated(
    index: ApproximateIndex,
    cells: Cells,
    queries: Float32,
    products: Float32,
    truth: npt.NDArray[np.int64],
    scores: Float64,
    rules: Sequence[VisitRule],
) -> list[tuple[list[int], list[float]]]:
    """Return for each rule, and each neighbor in a cell it visits: its place among the estimates, and their error.

    The error is by how much the neighbor's score exceeds its estimate. A limited number of rows is ranked, once for all
    rules: a neighbor beyond has that number for its place, and counts with the error of the last one.
    """
    most = min(40 * truth.shape[1] + 2_000, int(index.sizes.sum()))
    found: list[tuple[list[int], list[float]]] = [([], []) for _ in rules]
    turned = np.ascontiguousarray(rotated(queries))
    for place, (line, own, values) in enumerate(zip(products, truth, scores, strict=True)):
        visited = [visited_cells(rule, line, index.sizes, wanted=truth.shape[1]) for rule in rules]
        near, estimates = index.ranked(turned[place : place + 1], line, np.unique(np.concatenate(visited)), most)
        homes, order = cells[near], np.argsort(near)
        at = order[np.minimum(np.searchsorted(near, own, sorter=order), len(near) - 1)]
        is_ranked = near[at] == own
        errors = values - estimates[np.where(is_ranked, at, len(near) - 1)]
        for one, (ranks, exceeding) in zip(visited, found, strict=True):
            is_visited = np.zeros(index.quantizer.count, bool)
            is_visited[one] = True
            places = np.cumsum(is_visited[homes])[at] - 1
            is_found = is_visited[cells[own]]
            ranks += np.where(is_ranked, places, most)[is_found].tolist()
            exceeding += errors[is_found].tolist()
    return found


def _quantile(values: Sequence[float], part: float) -> Any:
    """Return the smallest value that a part of the values does not exceed; 0 without values."""
    return sorted(values)[math.ceil(part * len(values)) - 1] if values else 0


def _measure(
    index: ApproximateIndex, last: Codes, queries: Float32, truth: npt.NDArray[np.int64], rule: VisitRule
) -> MeasuredRecall:
    found, visits = [], []
    for start in range(0, len(queries), _BLOCK):
        scored, visited = index.nearest(
            last, queries[start : start + _BLOCK], rule.neighbors, metric="cosine", recall=rule.recall, rows=None
        )
        found += [rows[np.lexsort((rows, -scores))[: rule.neighbors]] for rows, scores in scored]
        visits += visited
    recalls = recall_of(found, truth[:, : rule.neighbors])
    low, high = interval(recalls)
    return MeasuredRecall(
        neighbors=rule.neighbors,
        declared=rule.recall,
        recall=float(recalls.mean()),
        low=low,
        high=high,
        cells=float(np.mean([one.cells for one in visits])),
        rows=float(np.mean([one.rows for one in visits])),
    )
