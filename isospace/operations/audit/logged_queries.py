"""What the log of answers shows: by which snapshots, to which queries, how alike to a candidate's."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from isospace.collection.alias import AliasEntry, alias_history
from isospace.evaluation.drift import Drift, classify
from isospace.operations.audit.metrics import ENCODED, compare_rows
from isospace.operations.audit.query_log import Answered
from isospace.search.view import View
from isospace.storage.store import Store
from isospace.transform.vectors import Float32, Float64

_MOST_LOGGED = 2_000


@dataclass(frozen=True, slots=True)
class Logged:
    """What the log of answers shows.

    Attributes
    ----------
    count
        Answers since the time asked for.
    stale, unverified
        Shares of answers from a snapshot that the alias did not name then, and of those from one that was not verified.
    reproduced
        Smallest cosine of a logged query vector with its text embedded again; None without texts and vectors.
    wrong
        Share of these beyond the tolerance.
    drift
        Of logged query vectors against the frozen queries.
    top
        (n,) best scores of vector searches.
    overlap, rbo, compared
        Agreement with the candidate that was asked beside production, and how often.
    """

    count: int
    stale: float
    unverified: float
    reproduced: float | None
    wrong: float
    drift: Drift | None
    top: Float64
    overlap: float | None
    rbo: float | None
    compared: int


def measure_logged(
    store: Store,
    view: View,
    alias: str,
    answers: list[Answered],
    frozen: Float32 | None,
    *,
    tolerance: float,
    seed: int,
) -> Logged:
    """Measure what was answered: by which snapshots, to which queries, how alike to a candidate's."""
    history = alias_history(store, view.manifest.collection, alias)
    stale = [_was_stale(answer, history) for answer in answers]
    own = [one for one in answers if one.space_id == view.manifest.space_id and one.vector is not None]
    own = [own[n] for n in np.random.default_rng(seed).permutation(len(own))[:_MOST_LOGGED]]
    fitting = [
        one for one in own if one.vector is not None and one.vector.shape == (view.space.space.record.dimension,)
    ]
    vectors = (
        np.stack([one.vector for one in fitting if one.vector is not None]) if fitting else np.zeros((0, 1), np.float32)
    )
    reproduced, wrong = _queries_reproduced(view, fitting, tolerance, len(own) - len(fitting))
    drift = None
    if frozen is not None and len(vectors):
        drift = classify(frozen, vectors, [one.text or one.query_sha256[:16] for one in fitting], seed=seed)
    compared = [one for one in answers if one.overlap is not None and one.rbo is not None]
    return Logged(
        count=len(answers),
        stale=float(np.mean(stale)) if answers else 0.0,
        unverified=float(np.mean([not one.verified for one in answers])) if answers else 0.0,
        reproduced=reproduced,
        wrong=wrong,
        drift=drift,
        top=np.array([one.scores[0] for one in own if one.scores and one.cosine], np.float64),
        overlap=float(np.mean([one.overlap for one in compared if one.overlap is not None])) if compared else None,
        rbo=float(np.mean([one.rbo for one in compared if one.rbo is not None])) if compared else None,
        compared=len(compared),
    )


def _queries_reproduced(
    view: View, answers: list[Answered], tolerance: float, misshapen: int
) -> tuple[float | None, float]:
    """Embed logged queries again; return the smallest cosine with the vectors that were searched, and the share beyond it."""
    texted = [one for one in answers if one.text is not None and one.vector is not None][:ENCODED]
    if not texted:
        return (0.0, 1.0) if misshapen else (None, 0.0)
    again = view.space.embed([one.text or "" for one in texted], "query")
    searched = np.stack([one.vector for one in texted if one.vector is not None])
    found, wrong = compare_rows(searched, again, tolerance)
    return float(found.min()), (int(wrong.sum()) + misshapen) / (len(texted) + misshapen)


def _was_stale(answer: Answered, history: list[AliasEntry], grace_seconds: float = 120.0) -> bool:
    """Tell whether an answer came from a snapshot that the alias no longer named for longer than services take to follow."""
    named: set[str] = set()
    for entry in history:
        moved = datetime.fromisoformat(entry.at)
        if moved <= answer.at:
            if (answer.at - moved).total_seconds() > grace_seconds:
                named = set()
            named.add(entry.snapshot_id)
    return bool(history) and answer.snapshot_id not in named
