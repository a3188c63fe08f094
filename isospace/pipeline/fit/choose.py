"""Choose a fit by held-out retrieval, and keep the evidence.

The documents that queries ask for are split in halves. On the first half the candidates are ranked by nDCG@10, and the
simplest of those that tie with the best is taken; on the second half that one has to beat `none` in a paired
randomization test. What it is not better than with confidence, it does not replace.
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

# Where nearly every query finds its answer first, candidates cannot be told apart.
_TOO_EASY = 0.9
_FEWEST_A_HALF = 5


@dataclass(frozen=True, slots=True)
class Tried:
    """A candidate and how it did.

    Attributes
    ----------
    fit
        In words.
    choosing, held_back
        Mean nDCG@10 on the half that ranks candidates, and on the half that was held back; None if it could not be
        fitted.
    gain
        Mean difference from `none` on the half held back.
    interval
        95 per cent bootstrap interval of the gain.
    p
        Of the one-sided paired randomization test against `none`, on the half held back.
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
    """What was chosen, and why.

    Attributes
    ----------
    chosen
        The fit.
    reason
        In a sentence.
    source
        What the queries were.
    queries
        How many documents (or judged queries) are asked for: in the half that ranks, and in the half held back.
    tried
        All candidates, `none` first.
    warnings
        What a person should look at.
    """

    chosen: FitSpec
    reason: str
    source: str
    queries: tuple[int, int]
    tried: tuple[Tried, ...]
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
    asked, place = np.unique(names, return_inverse=True)
    first = np.array([_is_first(name) for name in asked])
    if not min(first.sum(), (~first).sum()) >= _FEWEST_A_HALF:
        raise FitError(
            f"{len(first)} queries fall into halves of {first.sum()} and {(~first).sum()}; expected {_FEWEST_A_HALF} "
            "or more in each. Give more queries, or a fit instead of auto."
        )
    # One mean for all trials, of the first half alone.
    ranking = np.concatenate([trial.queries for trial in evidence.trials])[first[place]]
    known = estimates.with_queries(ranking)
    candidates = [FitSpec(), *(c for c in spec.candidates if c.kind != "none")]
    plain = _retrieval(known, candidates[0], evidence.trials, place, normalize=normalize)
    found: list[Float64 | str] = [plain]
    for candidate in candidates[1:]:
        try:
            found.append(_retrieval(known, candidate, evidence.trials, place, normalize=normalize))
        except FitError as error:
            found.append(str(error))
    tried = tuple(_tried(c, values, plain, first) for c, values in zip(candidates, found, strict=True))
    best = _simplest_of_the_best(found, first, spec.p_value)
    counts = int(first.sum()), int((~first).sum())
    warnings = []
    if plain[first].mean() > _TOO_EASY:
        warnings.append(
            f"the queries are too easy to tell fits apart: nDCG@10 is {plain[first].mean():.3f} without any. Give "
            "recipe.transform.queries.file, or set recipe.transform.queries.pseudo to the other kind."
        )
    chosen, reason = _decide(candidates, tried, best, spec.p_value)
    return Choice(chosen, reason, evidence.trial_source, counts, tried, tuple(warnings))


def _retrieval(
    estimates: Estimates, candidate: FitSpec, trials: Sequence[Trial], place: npt.NDArray[np.int64], *, normalize: bool
) -> Float64:
    """Return the nDCG@10 of each document asked for under a fit; `place` names the document of each query."""
    # How small the sample is will show.
    fitted = fit(estimates, candidate, min_ratio=0.0)
    values = np.concatenate([ndcg(trial, *transformed(fitted, trial, normalize=normalize)) for trial in trials])
    # Several queries for one document are not several pieces of evidence.
    return np.bincount(place, values) / np.bincount(place)


def _decide(candidates: Sequence[FitSpec], tried: Sequence[Tried], best: int, level: float) -> tuple[FitSpec, str]:
    figures = tried[best]
    if best == 0 or figures.p is None or figures.gain is None:
        return candidates[0], f"none: no candidate ranked above it{_nearest(tried)}"
    said = f"{figures.fit}: {figures.gain:+.4f} nDCG@10 against none on held-back queries, p = {figures.p:.4f}"
    if figures.p < level and figures.gain > 0:
        return candidates[best], f"{said}, below {level:g}"
    return candidates[0], f"none: the best candidate was not better with confidence ({said}, not below {level:g})"


def _nearest(tried: Sequence[Tried]) -> str:
    others = [other for other in tried[1:] if other.choosing is not None]
    if not others or tried[0].choosing is None:
        return "; none could be fitted"
    nearest = max(others, key=lambda other: other.choosing or 0.0)
    return f"; the best was {nearest.fit} with nDCG@10 {nearest.choosing:.4f} against {tried[0].choosing:.4f}"


def _simplest_of_the_best(found: Sequence[Float64 | str], first: npt.NDArray[np.bool_], level: float) -> int:
    """Return the first candidate after none that the best one does not beat; 0 if none is the best."""
    ranked = {number: values[first] for number, values in enumerate(found) if isinstance(values, np.ndarray)}
    best = max(ranked, key=lambda number: (ranked[number].mean(), -number))
    if best == 0:
        return 0
    for number, values in ranked.items():
        if number and (number == best or randomization_p(ranked[best] - values) >= level):
            return number
    return best


def _tried(candidate: FitSpec, values: Float64 | str, plain: Float64, first: npt.NDArray[np.bool_]) -> Tried:
    if isinstance(values, str):
        return Tried(candidate.describe(), None, None, None, None, None, refused=values)
    rest = values[~first] - plain[~first]
    return Tried(
        fit=candidate.describe(),
        choosing=float(values[first].mean()),
        held_back=float(values[~first].mean()),
        gain=float(rest.mean()),
        interval=bootstrap_interval(rest),
        p=randomization_p(rest),
    )


def _is_first(name: str) -> bool:
    """Tell whether a query is of the first half, by its name: whatever asks for one document is on one side."""
    return int(sha256(name.encode())[:8], 16) % 2 == 0
