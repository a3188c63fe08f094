"""From figures to alarms: each says what was found, what is expected, and what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

import numpy as np
from pydantic import BaseModel, ConfigDict

from isospace.evaluation.baseline_sample import Reference
from isospace.evaluation.drift import FEWEST_SHIFTED, Drift
from isospace.evaluation.languages import uncovered
from isospace.evaluation.norms import norm_tolerance
from isospace.evaluation.stored_vectors import StoredVectors
from isospace.operations.audit.frozen_queries import Frozen
from isospace.operations.audit.logged_queries import Logged
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.metrics import Reproduced
from isospace.operations.audit.thresholds import Thresholds
from isospace.transform.vectors import Float64

REFIT = "Fit again with runtime.refit=true, behind the gate."
MENDED = "Run `isospace verify`; restore the files, or run the flow with runtime.refit=true."


class Alarm(BaseModel):
    """What a person has to look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    figure: float | None
    limit: float | None
    message: str
    remedy: str

    def describe(self) -> str:
        """Return it as a line."""
        return f"{self.name}: {self.message} {self.remedy}"


def judge(measured: Measurements, limits: Thresholds) -> list[Alarm]:
    """Return the alarms that measurements of a snapshot raise."""
    normalizes = measured.view.space.space.record.spec.normalization == "l2"
    pairs = measured.stored.after.mean_cosine
    alarms = [
        *stored_alarms(measured.stored, measured.reference, limits, normalizes=normalizes),
        *reproduced_alarms(measured.reproduced, measured.tolerance),
        *corpus_alarms(measured.corpus.drift, measured.corpus.copies, measured.reference, limits),
        *language_alarms(measured.languages, measured.model_languages, limits),
    ]
    if measured.frozen is not None:
        alarms += frozen_alarms(measured.frozen, pairs, limits)
    if measured.logged is not None:
        alarms += logged_alarms(measured.logged, measured.tolerance, pairs, limits)
    return alarms


def language_alarms(shares: Mapping[str, float], named: Sequence[str] | None, limits: Thresholds) -> Iterator[Alarm]:
    """Yield an alarm for a language of the corpus that the model was not made for."""
    for code, share in uncovered(shares, named, limits.uncovered_share).items():
        yield _alarm(
            "language",
            share,
            limits.uncovered_share,
            f"{share:.1%} of a sample of chunks are in {code!r}; the card of the model names {', '.join(named or ())}.",
            "Keep them in a collection of their own with a model for that language, or compare a multilingual one "
            "(flows.compare_models).",
        )


def stored_alarms(
    found: StoredVectors, reference: Reference, limits: Thresholds, *, normalizes: bool
) -> Iterator[Alarm]:
    """Yield alarms about lengths, isotropy, shifts and saturation."""
    error, allowed = found.norms.largest_error, norm_tolerance(found.finest, limits.norm_error)
    if normalizes and found.is_float and not error <= allowed:
        yield _alarm(
            "norms",
            error,
            allowed,
            f"lengths of stored vectors lie between {found.norms.smallest:.6g} and {found.norms.largest:.6g}; expected "
            f"1 within {allowed:g}. Unnormalized vectors were mixed in.",
            MENDED,
        )
    if not found.after.mean_cosine <= limits.mean_cosine:
        yield _alarm(
            "anisotropy",
            found.after.mean_cosine,
            limits.mean_cosine,
            f"mean cosine of different chunks is {found.after.mean_cosine:.3f} (raw, at the fit "
            f"{found.before.mean_cosine:.3f}); expected at most {limits.mean_cosine:g}. The vectors lie in a narrow "
            "cone.",
            "Compare what could be done with recipe.transform.fit.kind=auto.",
        )
    spread, are_many = found.shifts.spread, min(found.sampled) >= FEWEST_SHIFTED
    if are_many and (collapsed := [int(n) for n in np.flatnonzero(spread < limits.collapsed_ratio)]):
        yield _alarm(
            "collapsed dimensions",
            float(len(collapsed)),
            0.0,
            f"{len(collapsed)} of {len(spread)} dimensions vary less than {limits.collapsed_ratio:g} x as much as at "
            f"the fit: {_some(collapsed)}.",
            MENDED,
        )
    shifted = [int(n) for n in np.argsort(-found.shifts.psi) if found.shifts.psi[n] > limits.psi]
    if are_many and len(shifted) > limits.shifted_share * len(spread):
        yield _alarm(
            "shifted dimensions",
            len(shifted) / len(spread),
            limits.shifted_share,
            f"{len(shifted)} of {len(spread)} dimensions have a population stability index above {limits.psi:g}, the "
            f"largest {found.shifts.psi.max():.2f} (dimension {shifted[0]}, KS {found.shifts.ks[shifted[0]]:.2f}), "
            f"since snapshot {reference.snapshot}.",
            f"The corpus is no longer what the space was fitted on. {REFIT}",
        )
    for name, share in found.saturated.items():
        if share > found.saturated_before[name] + limits.saturated_share:
            yield _alarm(
                "saturation",
                share,
                found.saturated_before[name] + limits.saturated_share,
                f"{share:.2%} of components exceed the range of {name}, {found.saturated_before[name]:.2%} at the fit.",
                REFIT,
            )


def reproduced_alarms(found: Reproduced, tolerance: float) -> Iterator[Alarm]:
    """Yield an alarm if a text encoded again is not what is stored."""
    if found.wrong:
        yield _alarm(
            "stored vectors",
            found.smallest_cosine,
            tolerance,
            f"{len(found.wrong)} of {found.count} chunks encoded again are not what is stored (cosine down to "
            f"{found.smallest_cosine:.4f}, expected {tolerance:g}): {_some(found.wrong)}. Another checkpoint, prompt "
            "or transform made them.",
            MENDED,
        )


def corpus_alarms(drift: Drift | None, copies: float, reference: Reference, limits: Thresholds) -> Iterator[Alarm]:
    """Yield alarms about what came into the corpus since the fit."""
    if drift is not None and _has_drifted(drift, limits):
        most = ", ".join(name for name, _ in drift.most[:5])
        yield _alarm(
            "corpus drift",
            drift.auc,
            limits.drift_auc,
            f"a classifier tells chunks that came since snapshot {reference.snapshot} from the fit's sample with an "
            f"AUC of {drift.auc:.3f} (p = {drift.p:.2g}); expected at most {limits.drift_auc:g}. Most unlike: {most}.",
            f"If the domain has changed for good: {REFIT[0].lower()}{REFIT[1:]} Else keep these documents out.",
        )
    if copies > reference.duplicates + limits.duplicate_share:
        yield _alarm(
            "duplicates",
            copies,
            reference.duplicates + limits.duplicate_share,
            f"{copies:.1%} of chunks are copies of another document's, {reference.duplicates:.1%} at the fit.",
            "Copies crowd out other hits. Look for a source that is read twice.",
        )


def frozen_alarms(found: Frozen, pairs: float, limits: Thresholds) -> Iterator[Alarm]:
    """Yield alarms about the frozen queries."""
    if found.compared_with is not None and found.overlap < 1.0 - limits.agreement:
        worst = f" Most: {found.changed[0][0]!r}." if found.changed else ""
        yield _alarm(
            "agreement",
            found.overlap,
            1.0 - limits.agreement,
            f"the frozen queries of {found.name} share {found.overlap:.1%} of their first ten with what they found in "
            f"snapshot {found.compared_with}, among documents that both have; expected at least "
            f"{1.0 - limits.agreement:.0%}.{worst}",
            "Compare the two with `isospace compare`.",
        )
    if found.ndcg is not None and found.ndcg_before is not None and found.ndcg < found.ndcg_before - limits.ndcg:
        yield _alarm(
            "retrieval",
            found.ndcg,
            found.ndcg_before - limits.ndcg,
            f"nDCG@10 of {found.name} is {found.ndcg:.4f}, {found.ndcg_before:.4f} at snapshot {found.compared_with}; "
            f"expected a loss of at most {limits.ndcg:g}.",
            "Compare the two with `isospace compare`; go back with `isospace rollback`.",
        )
    yield from band_alarms(found.top, pairs, f"the frozen queries of {found.name}", limits)


def logged_alarms(found: Logged, tolerance: float, pairs: float, limits: Thresholds) -> Iterator[Alarm]:
    """Yield alarms about the answers that were logged."""
    if found.stale > limits.stale_share:
        yield _alarm(
            "stale answers",
            found.stale,
            limits.stale_share,
            f"{found.stale:.1%} of {found.count} logged answers came from a snapshot that the alias no longer named; "
            f"expected at most {limits.stale_share:.0%}.",
            "Look at /readyz of the services: one cannot follow the alias.",
        )
    if found.unverified > limits.stale_share:
        yield _alarm(
            "unverified answers",
            found.unverified,
            limits.stale_share,
            f"{found.unverified:.1%} of {found.count} logged answers came from a snapshot that was opened without "
            "its handshake.",
            "Serve with `isospace serve`, which runs it.",
        )
    if found.wrong > 0 and found.reproduced is not None:
        yield _alarm(
            "query vectors",
            found.reproduced,
            tolerance,
            f"{found.wrong:.1%} of the logged queries that were embedded again are not what was searched (cosine down "
            f"to {found.reproduced:.4f}, expected {tolerance:g}): a prompt was dropped, a step left out, or another "
            "model asked.",
            "Have clients send texts, or take their vectors from this space's /v1/embeddings with input_type query.",
        )
    if found.drift is not None and _has_drifted(found.drift, limits):
        most = ", ".join(repr(name) for name, _ in found.drift.most[:5])
        yield _alarm(
            "query drift",
            found.drift.auc,
            limits.drift_auc,
            f"a classifier tells logged queries from the frozen ones with an AUC of {found.drift.auc:.3f} "
            f"(p = {found.drift.p:.2g}); expected at most {limits.drift_auc:g}. Most unlike: {most}.",
            "People ask for other things than the set does: freeze newer queries with `isospace sets add`.",
        )
    yield from band_alarms(found.top, pairs, "the logged queries", limits)


def band_alarms(top: Float64, pairs: float, whose: str, limits: Thresholds) -> Iterator[Alarm]:
    """Yield an alarm if all best scores lie in a narrow band, close to the mean cosine of random `pairs`."""
    if len(top) < 20:
        return
    low, high = (float(np.percentile(top, p)) for p in (5, 95))
    contrast = float(top.mean()) - pairs
    if high - low < limits.top_spread and contrast < limits.top_contrast:
        yield _alarm(
            "narrow band",
            high - low,
            limits.top_spread,
            f"the best scores of {whose} lie between {low:.4f} and {high:.4f} (5th and 95th percentile), where chunks "
            f"drawn at random have {pairs:.4f}; expected {limits.top_spread:g} apart, or {limits.top_contrast:g} "
            "above: all look alike.",
            MENDED,
        )


def alias_alarms(
    *,
    alias: str,
    snapshot: int,
    committed_at: datetime,
    newest: tuple[int, datetime, str] | None,
    now: datetime,
    limits: Thresholds,
) -> Iterator[Alarm]:
    """Yield alarms about an alias that was left behind; `newest` is number, time and verdict of a newer snapshot."""
    hours = (now - committed_at).total_seconds() / 3600
    if limits.age_hours is not None and hours > limits.age_hours:
        yield _alarm(
            "stale alias",
            hours,
            limits.age_hours,
            f"{alias} names snapshot {snapshot}, committed {hours:.0f} hours ago; expected at most "
            f"{limits.age_hours:g}.",
            "Look why no run has committed since.",
        )
    if newest is None:
        return
    number, at, verdict = newest
    waited = (now - at).total_seconds() / 3600
    if waited > limits.lag_hours:
        why = f" Its gate: {verdict}." if verdict else ""
        yield _alarm(
            "stale alias",
            waited,
            limits.lag_hours,
            f"{alias} names snapshot {snapshot}, and snapshot {number} has waited for {waited:.0f} hours; expected at "
            f"most {limits.lag_hours:g}.{why}",
            "Promote it, or find out why it was rejected.",
        )


def _has_drifted(drift: Drift, limits: Thresholds) -> bool:
    return drift.auc > limits.drift_auc and drift.p < limits.drift_p


def _some(items: object) -> str:
    named = [str(item) for item in items]  # type: ignore[attr-defined]
    return ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")


def _alarm(name: str, figure: float, limit: float, message: str, remedy: str) -> Alarm:
    finite = figure if np.isfinite(figure) else None
    return Alarm(name=name, figure=finite, limit=limit, message=message, remedy=remedy)
