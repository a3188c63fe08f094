"""Choose a fit by held-out retrieval, and record the evidence.

The documents that answer queries are split into halves. On the first half, candidates are ranked by nDCG@10, and the
simplest of those that tie with the best is selected. On the second half, it has to beat `none` in a paired
randomization test; otherwise `none` is chosen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.errors import FitError
from isospace.evaluation.significance import bootstrap_interval, randomization_p
from isospace.pipeline.fit.evidence import Evidence
from isospace.pipeline.fit.trial import Trial, ndcg, transformed
from isospace.storage.hashing import sha256
from isospace.transform.fit import Estimates, fit
from isospace.transform.spec import AutoSpec, FitSpec
from isospace.transform.vectors import Float64

# If nearly every query finds its answer first, the queries cannot distinguish candidates.
_TOO_EASY = 0.9
_FEWEST_A_HALF = 5


@dataclass(frozen=True, slots=True)
class CandidateResult:
    """The results of one candidate.

    Attributes
    ----------
    fit
        The fit in words.
    choosing, held_back
        Mean nDCG@10 on the half that ranks candidates, and on the held-out half; None if it could not be fitted.
    gain
        Mean difference from `none` on the held-out half.
    interval
        95 percent bootstrap interval of the gain.
    p
        P-value of the one-sided paired randomization test against `none` on the held-out half.
    refused
        Why it could not be fitted.
    """

    fit: str
    choosing: float | None
    held_back: float | None
    gain: float | None
    interval: tuple[float, float] | None
    p: float | None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen fit, and the evidence for it.

    Attributes
    ----------
    reason
        Why it was chosen, in a sentence.
    source
        What the queries were.
    queries
        Number of documents (or judged queries) in the half that ranks, and in the held-out half.
    tried
        The results of all candidates, `none` first.
    """

    chosen: FitSpec
    reason: str
    source: str
    queries: tuple[int, int]
    tried: tuple[CandidateResult, ...]
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        return {**asdict(self), "chosen": self.chosen.model_dump(mode="json")}


def choose(estimates: Estimates, evidence: Evidence, spec: AutoSpec, *, normalize: bool) -> Choice:
    """Compare candidates on the trials of the evidence.

    Parameters
    ----------
    estimates
        Of the documents' sample; means of queries are taken from the trials.
    evidence
        With at least one trial.
    spec
        `recipe.transform.fit`.
    normalize
        Whether vectors are brought to unit length.

    Returns
    -------
    Choice

    Raises
    ------
    FitError
        If there are too few queries.
    """
    names = np.array([name for trial in evidence.trials for name in trial.names])
    documents, place = np.unique(names, return_inverse=True)
    first = np.array([_is_first(name) for name in documents])
    if not min(first.sum(), (~first).sum()) >= _FEWEST_A_HALF:
        raise FitError(
            f"{len(first)} queries fall into halves of {first.sum()} and {(~first).sum()}; expected {_FEWEST_A_HALF} "
            "or more in each. Provide more queries, or set recipe.transform.fit.kind to something other than auto."
        )
    # One mean for all trials, computed on the first half only.
    ranking = np.concatenate([trial.queries for trial in evidence.trials])[first[place]]
    known = estimates.with_queries(ranking)
    candidates = [FitSpec(), *(c for c in spec.candidates if c.kind != "none")]
    plain = _retrieval(known, candidates[0], evidence.trials, place, normalize=normalize)
    results: list[Float64 | str] = [plain]
    for candidate in candidates[1:]:
        try:
            results.append(_retrieval(known, candidate, evidence.trials, place, normalize=normalize))
        except FitError as error:
            results.append(str(error))
    tried = tuple(_tried(c, values, plain, first) for c, values in zip(candidates, results, strict=True))
    best = _simplest_of_the_best(results, first, spec.p_value)
    counts = int(first.sum()), int((~first).sum())
    warnings = []
    if plain[first].mean() > _TOO_EASY:
        warnings.append(
            f"the queries are too easy to tell fits apart: nDCG@10 is {plain[first].mean():.3f} without any. "
            "Provide recipe.transform.queries.file, or set recipe.transform.queries.pseudo to the other kind."
        )
    chosen, reason = _decide(candidates, tried, best, spec.p_value)
    return Choice(chosen, reason, evidence.trial_source, counts, tried, tuple(warnings))


def _retrieval(
    estimates: Estimates, candidate: FitSpec, trials: Sequence[Trial], place: npt.NDArray[np.int64], *, normalize: bool
) -> Float64:
    """Return nDCG@10 under a fit, averaged by document; `place` is the document of each query."""
    # No minimum sample: retrieval will show whether it was large enough.
    fitted = fit(estimates, candidate, min_ratio=0.0)
    values = np.concatenate([ndcg(trial, *transformed(fitted, trial, normalize=normalize)) for trial in trials])
    # Several queries for one document are not independent evidence.
    return np.bincount(place, values) / np.bincount(place)


def _decide(
    candidates: Sequence[FitSpec], tried: Sequence[CandidateResult], best: int, level: float
) -> tuple[FitSpec, str]:
    figures = tried[best]
    if best == 0 or figures.p is None or figures.gain is None:
        return candidates[0], f"none: no candidate ranked higher{_nearest(tried)}"
    result = f"{figures.fit}: {figures.gain:+.4f} nDCG@10 against none on held-out queries, p = {figures.p:.4f}"
    if figures.p < level and figures.gain > 0:
        return candidates[best], f"{result}, below {level:g}"
    return candidates[0], f"none: the best candidate was not significantly better ({result}, not below {level:g})"


def _nearest(tried: Sequence[CandidateResult]) -> str:
    others = [other for other in tried[1:] if other.choosing is not None]
    if not others or tried[0].choosing is None:
        return "; none could be fitted"
    nearest = max(others, key=lambda other: other.choosing or 0.0)
    return f"; the best was {nearest.fit} with nDCG@10 {nearest.choosing:.4f} against {tried[0].choosing:.4f}"


def _simplest_of_the_best(results: Sequence[Float64 | str], first: npt.NDArray[np.bool_], level: float) -> int:
    """Return the first candidate after `none` that the best does not beat significantly; 0 if `none` is the best."""
    ranked = {number: values[first] for number, values in enumerate(results) if isinstance(values, np.ndarray)}
    best = max(ranked, key=lambda number: (ranked[number].mean(), -number))
    if best == 0:
        return 0
    for number, values in ranked.items():
        if number and (number == best or randomization_p(ranked[best] - values) >= level):
            return number
    return best


def _tried(candidate: FitSpec, values: Float64 | str, plain: Float64, first: npt.NDArray[np.bool_]) -> CandidateResult:
    if isinstance(values, str):
        return CandidateResult(candidate.describe(), None, None, None, None, None, refused=values)
    rest = values[~first] - plain[~first]
    return CandidateResult(
        fit=candidate.describe(),
        choosing=float(values[first].mean()),
        held_back=float(values[~first].mean()),
        gain=float(rest.mean()),
        interval=bootstrap_interval(rest),
        p=randomization_p(rest),
    )


def _is_first(name: str) -> bool:
    """Return whether a query is in the first half, by its name, so that all queries of a document are on one side."""
    return int(sha256(name.encode())[:8], 16) % 2 == 0
