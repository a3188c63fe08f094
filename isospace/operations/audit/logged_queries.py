"""Measure logged answers: their snapshots, their queries, and the agreement of a candidate."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from isospace.collection.alias_entry import AliasEntry
from isospace.collection.alias_log import read_log
from isospace.evaluation.drift import Drift, classify
from isospace.operations.audit.metrics import ENCODED, compare_rows
from isospace.operations.audit.query_log import LoggedAnswer
from isospace.search.view import View
from isospace.storage.store import Store
from isospace.transform.vectors import Float32, Float64

_MOST_LOGGED = 2_000


@dataclass(frozen=True, slots=True)
class LogResults:
    """Measurements of the logged answers.

    Attributes
    ----------
    stale, unverified
        Share of answers from a snapshot that the alias did not name at the time, and from one that was not verified.
    reproduced
        Smallest cosine of a logged query vector with its text embedded again; None without texts and vectors.
    wrong
        Share of these beyond the tolerance.
    drift
        Logged query vectors compared with those of the frozen queries.
    top
        (n,) best scores of vector searches.
    overlap, rbo, compared
        Mean agreement with the candidate that also answered, and the number of answers compared.
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
    answers: list[LoggedAnswer],
    frozen: Float32 | None,
    *,
    tolerance: float,
    seed: int,
) -> LogResults:
    """Measure logged answers; `frozen` are the (m, k) vectors of the frozen queries, if there are any."""
    history = read_log(store, view.manifest.collection, alias, removed=True)
    stale = [_was_stale(answer, history) for answer in answers]
    own = [answer for answer in answers if answer.space_id == view.manifest.space_id and answer.vector is not None]
    own = [own[n] for n in np.random.default_rng(seed).permutation(len(own))[:_MOST_LOGGED]]
    fitting = [
        answer
        for answer in own
        if answer.vector is not None and answer.vector.shape == (view.space.space.record.dimension,)
    ]
    vectors = (
        np.stack([answer.vector for answer in fitting if answer.vector is not None])
        if fitting
        else np.zeros((0, 1), np.float32)
    )
    reproduced, wrong = _queries_reproduced(view, fitting, tolerance, len(own) - len(fitting))
    drift = None
    if frozen is not None and len(vectors):
        # By hash: audits are kept longer than logged queries, and must not quote them.
        drift = classify(frozen, vectors, [answer.query_sha256[:16] for answer in fitting], seed=seed)
    compared = [answer for answer in answers if answer.overlap is not None and answer.rbo is not None]
    return LogResults(
        count=len(answers),
        stale=float(np.mean(stale)) if answers else 0.0,
        unverified=float(np.mean([not answer.verified for answer in answers])) if answers else 0.0,
        reproduced=reproduced,
        wrong=wrong,
        drift=drift,
        top=np.array([answer.scores[0] for answer in own if answer.scores and answer.cosine], np.float64),
        overlap=float(np.mean([answer.overlap for answer in compared if answer.overlap is not None]))
        if compared
        else None,
        rbo=float(np.mean([answer.rbo for answer in compared if answer.rbo is not None])) if compared else None,
        compared=len(compared),
    )


def _queries_reproduced(
    view: View, answers: list[LoggedAnswer], tolerance: float, misshapen: int
) -> tuple[float | None, float]:
    """Embed logged queries again, and compare them with the vectors that were searched.

    Return the smallest cosine, and the share of vectors beyond the tolerance; vectors of the wrong shape count as such.
    """
    with_text = [answer for answer in answers if answer.text is not None and answer.vector is not None][:ENCODED]
    if not with_text:
        return (0.0, 1.0) if misshapen else (None, 0.0)
    again = view.space.embed([answer.text or "" for answer in with_text], "query")
    searched = np.stack([answer.vector for answer in with_text if answer.vector is not None])
    cosines, wrong = compare_rows(searched, again, tolerance)
    return float(cosines.min()), (int(wrong.sum()) + misshapen) / (len(with_text) + misshapen)


def _was_stale(answer: LoggedAnswer, history: list[AliasEntry], grace_seconds: float = 120.0) -> bool:
    """Return whether the alias had left the answer's snapshot more than the grace period earlier.

    The grace period is the time that services may take to follow an alias.
    """
    named: set[str] = set()
    for entry in history:
        moved = datetime.fromisoformat(entry.at)
        if moved <= answer.at:
            if (answer.at - moved).total_seconds() > grace_seconds:
                named = set()
            named.add(entry.snapshot_id)
    return bool(history) and answer.snapshot_id not in named
