"""Rank the variants of a model comparison: which is best, which is worse beyond chance, which nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from isospace.evaluation.significance import bootstrap_interval, randomization_p
from isospace.operations.compare_models.compare import Entry


@dataclass(frozen=True, slots=True)
class FailedVariant:
    """A variant that could not be embedded or measured, and why, in one line."""

    encoder: str
    transform: str
    reason: str

    @property
    def name(self) -> str:
        """Encoder and transform, as a label."""
        return f"{self.encoder}, {self.transform}"


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """The outcome of a model comparison: entries by nDCG@10, the best first, and the variants that failed."""

    entries: tuple[Entry, ...]
    failed: tuple[FailedVariant, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the outcome by name."""
        return {
            "outcome": self.describe(),
            "entries": [entry.as_dict() for entry in self.entries],
            "failed": [asdict(one) for one in self.failed],
        }

    def describe(self) -> str:
        """Return in a few sentences which variant is best, and whether the others are worse beyond chance."""
        best, others = self.entries[0], self.entries[1:]
        equal = [entry for entry in others if entry.verdict == "no difference"]
        worse = len(others) - len(equal)
        highest = f"{best.title} has the highest nDCG@10 ({best.ndcg_10:.4f})"
        if not others:
            sentences = [f"{best.title} is the only variant that was measured (nDCG@10 {best.ndcg_10:.4f})."]
        elif not equal:
            sentences = [f"{highest}, and the other {_counted(len(others))} worse beyond chance."]
        else:
            names = ", ".join(entry.title for entry in equal)
            sentences = [f"{highest}, but there is no difference beyond chance from {names}."]
            smallest = min((best, *equal), key=lambda entry: entry.bytes)
            if smallest.bytes < best.bytes:
                sentences.append(f"Of these, {smallest.title} is the smallest ({smallest.bytes:,} bytes per vector).")
            if worse:
                sentences.append(f"The other {_counted(worse)} worse.")
        if self.failed:
            sentences.append(f"{len(self.failed)} of {len(self.entries) + len(self.failed)} variants failed.")
        return " ".join(sentences)


def rank(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """Order entries by nDCG@10, mark the Pareto front, and compare each with the best on the same queries."""
    best, *others = mark_front(entries)
    return (best, *(_compared(entry, best) for entry in others))


def mark_front(entries: Sequence[Entry]) -> list[Entry]:
    """Mark the Pareto front of nDCG@10, bytes and device hours; best nDCG@10 first."""
    marked = [
        replace(entry, on_front=not any(_dominates(other, entry) for other in entries if other is not entry))
        for entry in entries
    ]
    return sorted(marked, key=lambda entry: (-entry.ndcg_10, entry.bytes, entry.encoder, entry.transform))


def _compared(entry: Entry, best: Entry) -> Entry:
    differences = np.array([entry.by_query[name] - best.by_query[name] for name in sorted(best.by_query)])
    low, high = bootstrap_interval(differences)
    return replace(
        entry,
        difference=float(differences.mean()),
        interval=(low, high),
        p=randomization_p(differences, two_sided=True),
        verdict="worse" if high < 0.0 else "no difference",
    )


def _dominates(one: Entry, other: Entry) -> bool:
    """Return whether `one` is at least as good as `other` in everything, and better in something."""
    pairs = [(-one.ndcg_10, -other.ndcg_10), (one.bytes, other.bytes)]
    if one.device_hours is not None and other.device_hours is not None:
        pairs.append((one.device_hours, other.device_hours))
    return all(mine <= theirs for mine, theirs in pairs) and any(mine < theirs for mine, theirs in pairs)


def _counted(count: int) -> str:
    return f"{count} variants are" if count != 1 else "variant is"
