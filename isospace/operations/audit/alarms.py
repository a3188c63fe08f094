"""Turn measurements into alarms; each gives the value found, the limit, and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from isospace.collection.cell_sizes import CellSizes
from isospace.evaluation.baseline_sample import Reference
from isospace.evaluation.drift import FEWEST_SHIFTED, Drift
from isospace.evaluation.languages import uncovered
from isospace.evaluation.norms import norm_tolerance
from isospace.evaluation.stored_vectors import StoredVectors
from isospace.operations.audit.frozen_queries import FrozenResults
from isospace.operations.audit.logged_queries import LogResults
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.metrics import ReproducedVectors
from isospace.operations.audit.thresholds import Thresholds
from isospace.transform.vectors import Float64

FEWEST_PER_CELL = 32
"""Vectors per cell from which on the imbalance of cells is not chance."""

FEWEST_IN_BAND = 20
"""Queries whose best scores make a band."""

REFIT = "Refit with `isospace refit CONFIG`, and promote the new snapshot only through the gate."
RESTORE = "Run `isospace verify`; restore the files, or rebuild them with `isospace refit CONFIG`."


class Alarm(BaseModel):
    """A figure beyond its limit, which a person has to look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    figure: float | None
    limit: float | None
    message: str
    remedy: str

    def describe(self) -> str:
        """Describe the alarm in one line."""
        return f"{self.name}: {self.message} {self.remedy}"


def judge(measured: Measurements, limits: Thresholds) -> list[Alarm]:
    """Return the alarms that measurements of a snapshot raise."""
    normalizes = measured.view.space.space.record.spec.normalization == "l2"
    pairs = measured.stored.after.mean_cosine
    alarms = [
        *stored_alarms(
            measured.stored, measured.reference, limits, normalizes=normalizes, drifts=not measured.drift_problem
        ),
        *reproduced_alarms(measured.reproduced, measured.tolerance),
        *cell_alarms(measured.cells, measured.view.space.space.provenance, limits),
        *corpus_alarms(measured.corpus.drift, measured.corpus.copies, measured.reference, limits),
        *language_alarms(measured.languages, measured.model_languages, limits),
    ]
    if measured.frozen is not None:
        alarms += frozen_alarms(measured.frozen, pairs, limits)
    if measured.logged is not None:
        alarms += logged_alarms(measured.logged, measured.query_tolerance, pairs, limits)
    return alarms


def language_alarms(shares: Mapping[str, float], named: Sequence[str] | None, limits: Thresholds) -> Iterator[Alarm]:
    """Yield an alarm for each language of the corpus that the model's card does not name."""
    for code, share in uncovered(shares, named, limits.uncovered_share).items():
        yield _alarm(
            "language",
            share,
            limits.uncovered_share,
            f"{share:.1%} of sampled chunks are in {code!r}; the model's card names {', '.join(named or ())}.",
            "Move them to a separate collection with a model for that language, or try a multilingual model with "
            "`isospace compare-models`.",
        )


def stored_alarms(
    stored: StoredVectors, reference: Reference, limits: Thresholds, *, normalizes: bool, drifts: bool
) -> Iterator[Alarm]:
    """Yield alarms about vector lengths, isotropy, shifted dimensions, and saturation.

    Without `drifts`, a shift since the fit is no reason for one, see `drift_problem`.
    """
    error, allowed = stored.norms.largest_error, norm_tolerance(stored.finest, limits.norm_error)
    if normalizes and stored.is_float and not error <= allowed:
        yield _alarm(
            "norms",
            error,
            allowed,
            f"the lengths of stored vectors range from {stored.norms.smallest:.6g} to {stored.norms.largest:.6g}; "
            f"expected 1 within {allowed:g}. Some vectors were stored without normalization.",
            RESTORE,
        )
    if not stored.after.mean_cosine <= limits.mean_cosine:
        yield _alarm(
            "anisotropy",
            stored.after.mean_cosine,
            limits.mean_cosine,
            f"the mean cosine of random pairs of chunks is {stored.after.mean_cosine:.3f} (raw vectors at the fit: "
            f"{stored.before.mean_cosine:.3f}); expected at most {limits.mean_cosine:g}. The vectors lie in a narrow "
            "cone.",
            "Set recipe.transform.fit.kind=auto and refit: it compares the transforms that could help.",
        )
    spread, are_many = stored.shifts.spread, min(stored.sampled) >= FEWEST_SHIFTED
    if are_many and (collapsed := [int(n) for n in np.flatnonzero(spread < limits.collapsed_ratio)]):
        yield _alarm(
            "collapsed dimensions",
            float(len(collapsed)),
            0.0,
            f"{len(collapsed)} of {len(spread)} dimensions have less than {limits.collapsed_ratio:g} times the "
            f"standard deviation that they had at the fit: {_some(collapsed)}.",
            RESTORE,
        )
    shifted = [int(n) for n in np.argsort(-stored.shifts.psi) if stored.shifts.psi[n] > limits.psi]
    if drifts and are_many and len(shifted) > limits.shifted_share * len(spread):
        yield _alarm(
            "shifted dimensions",
            len(shifted) / len(spread),
            limits.shifted_share,
            f"{len(shifted)} of {len(spread)} dimensions have shifted since snapshot {reference.snapshot}: their "
            f"population stability index exceeds {limits.psi:g} (up to {stored.shifts.psi.max():.2f}, in dimension "
            f"{shifted[0]}, with KS {stored.shifts.ks[shifted[0]]:.2f}).",
            f"The corpus has moved away from the one that the space was fitted on. {REFIT}",
        )
    for name, share in stored.saturated.items():
        if share > stored.saturated_before[name] + limits.saturated_share:
            yield _alarm(
                "saturation",
                share,
                stored.saturated_before[name] + limits.saturated_share,
                f"{share:.2%} of components exceed the range of {name}; at the fit it was "
                f"{stored.saturated_before[name]:.2%}.",
                REFIT,
            )


def cell_limit(provenance: Mapping[str, Any], limits: Thresholds) -> float | None:
    """Return the largest imbalance of cells that is allowed, given the provenance of their space.

    None if it does not say what the imbalance was at the fit.
    """
    at_fit = provenance.get("cells", {}).get("imbalance")
    return None if at_fit is None else limits.cell_imbalance * float(at_fit)


def cell_alarms(cells: CellSizes | None, provenance: Mapping[str, Any], limits: Thresholds) -> Iterator[Alarm]:
    """Yield an alarm if cells divide the snapshot far less evenly than the sample that they were fitted on."""
    limit = cell_limit(provenance, limits)
    if cells is None or limit is None or cells.vectors < FEWEST_PER_CELL * cells.count:
        return
    if cells.imbalance > limit:
        yield _alarm(
            "uneven cells",
            cells.imbalance,
            limit,
            f"the imbalance of the {cells.count:,} cells is {cells.imbalance:.2f}; expected at most {limit:.2f}, "
            f"{limits.cell_imbalance:g} times that at the fit. The largest holds {cells.largest_share:.1%} of the "
            "vectors, so that approximate searches there are slow.",
            f"The corpus has moved away from the one that the cells were fitted on. {REFIT}",
        )


def reproduced_alarms(reproduced: ReproducedVectors, tolerance: float) -> Iterator[Alarm]:
    """Yield an alarm if re-encoded chunks differ from the stored vectors."""
    if reproduced.wrong:
        yield _alarm(
            "stored vectors",
            reproduced.smallest_cosine,
            tolerance,
            f"{len(reproduced.wrong)} of {reproduced.count} re-encoded chunks differ from their stored vectors "
            f"(smallest cosine {reproduced.smallest_cosine:.4f}; expected at least {tolerance:g}, and equal lengths): "
            f"{_some(reproduced.wrong)}. They were embedded with another checkpoint, prompt, or transform.",
            RESTORE,
        )


def corpus_alarms(drift: Drift | None, copies: float, reference: Reference, limits: Thresholds) -> Iterator[Alarm]:
    """Yield alarms about chunks that were added since the fit."""
    if drift is not None and _has_drifted(drift, limits):
        most = ", ".join(name for name, _ in drift.most[:5])
        yield _alarm(
            "corpus drift",
            drift.auc,
            limits.drift_auc,
            f"a classifier separates chunks added since snapshot {reference.snapshot} from the fit's sample with an "
            f"AUC of {drift.auc:.3f} (p = {drift.p:.2g}); expected at most {limits.drift_auc:g}. Most unusual: {most}.",
            f"If the domain has changed for good: {REFIT[0].lower()}{REFIT[1:]} Otherwise exclude these documents.",
        )
    if copies > reference.duplicates + limits.duplicate_share:
        yield _alarm(
            "duplicates",
            copies,
            reference.duplicates + limits.duplicate_share,
            f"{copies:.1%} of chunks are copies of a chunk of another document; at the fit it was "
            f"{reference.duplicates:.1%}.",
            "Duplicates crowd out other hits. Check whether a source is read twice.",
        )


def frozen_alarms(frozen: FrozenResults, pairs: float, limits: Thresholds) -> Iterator[Alarm]:
    """Yield alarms about the frozen queries."""
    if frozen.compared_with is not None and frozen.overlap < 1.0 - limits.agreement:
        # By ID: an alarm is recorded, and the text of a pseudo-query is a sentence of a document.
        worst = f" Most changed: query {frozen.changed[0].query_id}." if frozen.changed else ""
        yield _alarm(
            "agreement",
            frozen.overlap,
            1.0 - limits.agreement,
            f"the top ten of the frozen queries of {frozen.name} overlap by {frozen.overlap:.1%} with those of "
            f"snapshot {frozen.compared_with}, among documents that both have; expected at least "
            f"{1.0 - limits.agreement:.0%}.{worst}",
            "Compare the two snapshots with `isospace compare`.",
        )
    if frozen.ndcg is not None and frozen.ndcg_before is not None and frozen.ndcg < frozen.ndcg_before - limits.ndcg:
        yield _alarm(
            "retrieval",
            frozen.ndcg,
            frozen.ndcg_before - limits.ndcg,
            f"nDCG@10 of {frozen.name} is {frozen.ndcg:.4f}, down from {frozen.ndcg_before:.4f} in snapshot "
            f"{frozen.compared_with}; expected a loss of at most {limits.ndcg:g}.",
            "Compare the two snapshots with `isospace compare`; return to the old one with `isospace rollback`.",
        )
    yield from band_alarms(frozen.top, pairs, f"the frozen queries of {frozen.name}", limits)


def logged_alarms(logged: LogResults, tolerance: float, pairs: float, limits: Thresholds) -> Iterator[Alarm]:
    """Yield alarms about logged answers."""
    if logged.stale > limits.stale_share:
        yield _alarm(
            "stale answers",
            logged.stale,
            limits.stale_share,
            f"{logged.stale:.1%} of {logged.count} logged answers came from a snapshot that the alias no longer named; "
            f"expected at most {limits.stale_share:.0%}.",
            "Check /readyz of the services: one of them cannot follow the alias.",
        )
    if logged.unverified > limits.stale_share:
        yield _alarm(
            "unverified answers",
            logged.unverified,
            limits.stale_share,
            f"{logged.unverified:.1%} of {logged.count} logged answers came from a snapshot that was opened without "
            f"the handshake; expected at most {limits.stale_share:.0%}.",
            "Serve with `isospace serve`, which always runs the handshake.",
        )
    if logged.wrong > 0 and logged.reproduced is not None:
        yield _alarm(
            "query vectors",
            logged.reproduced,
            tolerance,
            f"{logged.wrong:.1%} of the logged queries differ from the vectors that were searched when they are "
            f"embedded again (smallest cosine {logged.reproduced:.4f}, expected at least {tolerance:g}). The client "
            "dropped a prompt, left out a step, or used another model.",
            "Have clients send texts, or get their vectors from this space's /v1/embeddings with input_type query.",
        )
    if logged.drift is not None and _has_drifted(logged.drift, limits):
        most = ", ".join(name for name, _ in logged.drift.most[:5])
        yield _alarm(
            "query drift",
            logged.drift.auc,
            limits.drift_auc,
            f"a classifier separates logged queries from the frozen ones with an AUC of {logged.drift.auc:.3f} "
            f"(p = {logged.drift.p:.2g}); expected at most {limits.drift_auc:g}. Most unusual, by "
            f"query_sha256: {most}.",
            "The frozen queries no longer represent what users ask: freeze newer ones with `isospace sets add`.",
        )
    yield from band_alarms(logged.top, pairs, "the logged queries", limits)


def band_alarms(top: Float64, pairs: float, whose: str, limits: Thresholds) -> Iterator[Alarm]:
    """Yield an alarm if the best scores lie in a narrow band close to the mean cosine of random pairs.

    `top` holds the (n,) best scores, `pairs` the mean cosine.
    """
    if len(top) < FEWEST_IN_BAND:
        return
    low, high = (float(np.percentile(top, p)) for p in (5, 95))
    contrast = float(top.mean()) - pairs
    if high - low < limits.top_spread and contrast < limits.top_contrast:
        yield _alarm(
            "narrow band",
            high - low,
            limits.top_spread,
            f"the best scores of {whose} lie between {low:.4f} and {high:.4f} (5th and 95th percentile), close to the "
            f"mean cosine of random chunks, {pairs:.4f}: all chunks look alike. Expected a spread of at least "
            f"{limits.top_spread:g}, or a mean at least {limits.top_contrast:g} higher.",
            RESTORE,
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
    """Yield alarms about an alias that lags.

    `newest` is the number, time, and verdict of a newer snapshot.
    """
    hours = (now - committed_at).total_seconds() / 3600
    if limits.age_hours is not None and hours > limits.age_hours:
        yield _alarm(
            "stale alias",
            hours,
            limits.age_hours,
            f"{alias} names snapshot {snapshot}, committed {hours:.0f} hours ago; expected at most "
            f"{limits.age_hours:g}.",
            "Find out why no run has committed since.",
        )
    if newest is None:
        return
    number, at, verdict = newest
    waited = (now - at).total_seconds() / 3600
    if waited > limits.lag_hours:
        why = f" Its gate verdict: {verdict}." if verdict else ""
        yield _alarm(
            "stale alias",
            waited,
            limits.lag_hours,
            f"{alias} names snapshot {snapshot}, but snapshot {number} has been waiting for {waited:.0f} hours; "
            f"expected at most {limits.lag_hours:g}.{why}",
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
