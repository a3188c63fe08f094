"""Fuse ranked lists into one.

Sources: Cormack, Clarke and Buettcher, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
methods", 2009 (k = 60); Bruch, Gai and Ingber, "An analysis of fusion functions for hybrid retrieval", 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

RRF_K = 60
Ranking: TypeAlias = Sequence[tuple[int, float]]
"""Rows with their scores, best first."""


def reciprocal_rank_fusion(rankings: Sequence[Ranking], weights: Sequence[float]) -> dict[int, float]:
    """Add weight / (60 + rank) over the lists, ranks from 1; scores are not used."""
    fused: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, (row, _) in enumerate(ranking, start=1):
            fused[row] = fused.get(row, 0.0) + weight / (RRF_K + rank)
    return fused


def weighted_fusion(rankings: Sequence[Ranking], weights: Sequence[float]) -> dict[int, float]:
    """Add weight x score over the lists, with each list's scores scaled to 0 (worst) to 1 (best)."""
    fused: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        scores = [score for _, score in ranking]
        low, span = min(scores, default=0.0), max(scores, default=0.0) - min(scores, default=0.0)
        for row, score in ranking:
            fused[row] = fused.get(row, 0.0) + weight * ((score - low) / span if span else 1.0)
    return fused
