"""How alike two rankings are, without judgements.

Source: Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010 (equation 32 is
`rank_biased_overlap`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERSISTENCE = 0.9


def top_overlap(one: Sequence[str], other: Sequence[str], k: int) -> float:
    """Return the share of the first k that both have; of the longer one where both are shorter, 1 for none."""
    size = min(k, max(len(one), len(other)))
    return len(set(one[:k]) & set(other[:k])) / size if size else 1.0


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], *, persistence: float = PERSISTENCE) -> float:
    """Return the extrapolated rank-biased overlap of two rankings, between 0 and 1.

    Parameters
    ----------
    one, other
        Different items each, best first.
    persistence
        p: how deep a reader goes; at 0.9 the first ten ranks carry 86 % of the weight.
    """
    short, long = sorted((one, other), key=len)
    if not short:
        return 1.0 if not long else 0.0
    p, s, depth = persistence, len(short), len(long)
    shared = _shared(short, long)
    known = sum(found / rank * p**rank for rank, found in enumerate(shared, 1))
    beyond = sum(shared[s - 1] * (rank - s) / (s * rank) * p**rank for rank in range(s + 1, depth + 1))
    tail = ((shared[-1] - shared[s - 1]) / depth + shared[s - 1] / s) * p**depth
    return (1 - p) / p * (known + beyond) + tail


def _shared(short: Sequence[str], long: Sequence[str]) -> list[int]:
    """Count the items that both have among their first 1, 2, …, len(long)."""
    in_short, in_long, count, counts = set[str](), set[str](), 0, []
    for rank, item in enumerate(long):
        in_long.add(item)
        if rank < len(short):
            in_short.add(short[rank])
            count += short[rank] in in_long
        count += item in in_short and not (rank < len(short) and short[rank] == item)
        counts.append(count)
    return counts


@dataclass(frozen=True, slots=True)
class QueryAgreement:
    """Two rankings of one query.

    Attributes
    ----------
    overlap
        Share of the first ten that both have.
    rbo
        Rank-biased overlap of the first hundred.
    left, came
        Documents of the first ten that only the one before, or only the one after, has.
    """

    overlap: float
    rbo: float
    left: tuple[str, ...]
    came: tuple[str, ...]


def agree(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], *, k: int = 10
) -> dict[str, QueryAgreement]:
    """Compare the rankings of the queries that both have answered."""
    found = {}
    for name in before.keys() & after.keys():
        one, other = before[name], after[name]
        gone, new = set(one[:k]) - set(other[:k]), set(other[:k]) - set(one[:k])
        found[name] = QueryAgreement(
            top_overlap(one, other, k),
            rank_biased_overlap(one[:100], other[:100]),
            tuple(item for item in one[:k] if item in gone),
            tuple(item for item in other[:k] if item in new),
        )
    return dict(sorted(found.items()))
