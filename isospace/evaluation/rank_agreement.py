"""How similar two rankings are, without judgements.

Source: Webber, Moffat and Zobel, "A similarity measure for indefinite rankings", 2010 (equation 32 is
`rank_biased_overlap`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERSISTENCE = 0.9


def top_overlap(one: Sequence[str], other: Sequence[str], k: int) -> float:
    """Return the share of the top k that both rankings have; 1 if both are empty."""
    size = min(k, max(len(one), len(other)))
    return len(set(one[:k]) & set(other[:k])) / size if size else 1.0


def rank_biased_overlap(one: Sequence[str], other: Sequence[str], *, persistence: float = PERSISTENCE) -> float:
    """Return the extrapolated rank-biased overlap of two rankings, between 0 and 1.

    Parameters
    ----------
    one, other
        Rankings without repetitions, best first.
    persistence
        p, the probability that a reader goes on to the next rank; at 0.9, the top ten carry 86 percent of the weight.
    """
    short, long = sorted((one, other), key=len)
    if not short:
        return 1.0 if not long else 0.0
    p, s, depth = persistence, len(short), len(long)
    shared = _shared(short, long)
    known = sum(count / rank * p**rank for rank, count in enumerate(shared, 1))
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
    """The agreement of two rankings for one query.

    Attributes
    ----------
    overlap
        Share of the top ten that both have.
    rbo
        Rank-biased overlap of the top hundred.
    left, came
        Documents that are in the top ten only before, or only after.
    """

    overlap: float
    rbo: float
    left: tuple[str, ...]
    came: tuple[str, ...]


def agree(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], *, k: int = 10
) -> dict[str, QueryAgreement]:
    """Compare the rankings of the queries that both sides have answered."""
    agreement = {}
    for name in before.keys() & after.keys():
        one, other = before[name], after[name]
        gone, new = set(one[:k]) - set(other[:k]), set(other[:k]) - set(one[:k])
        agreement[name] = QueryAgreement(
            top_overlap(one, other, k),
            rank_biased_overlap(one[:100], other[:100]),
            tuple(item for item in one[:k] if item in gone),
            tuple(item for item in other[:k] if item in new),
        )
    return dict(sorted(agreement.items()))
