"""Every check of an audit with its value, its limit, and the verdict; those that make no sense here are not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from isospace.evaluation.drift import FEWEST_SHIFTED, Drift
from isospace.evaluation.languages import uncovered
from isospace.evaluation.norms import norm_tolerance
from isospace.evaluation.reports.page import Tone
from isospace.evaluation.stored_vectors import StoredVectors
from isospace.operations.audit.alarms import FEWEST_IN_BAND, FEWEST_PER_CELL, Alarm, band_alarms, cell_limit
from isospace.operations.audit.frozen_queries import FrozenResults
from isospace.operations.audit.logged_queries import LogResults
from isospace.operations.audit.measurements import Measurements
from isospace.operations.audit.thresholds import Thresholds
from isospace.transform.vectors import Float64

Verdict = Literal["ok", "alarm", "not run"]
Unit = Literal["number", "cosine", "small", "share", "count", "hours"]


class Check(BaseModel):
    """One check.

    Attributes
    ----------
    value, limit
        None if it was not run, or if the value is not finite.
    bound
        Whether the limit is the largest or the least value that is allowed.
    meaning
        What the value is, in a line.
    reason
        Why it was not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    verdict: Verdict
    meaning: str
    unit: Unit = "number"
    value: float | None = None
    limit: float | None = None
    bound: Literal["at most", "at least"] = "at most"
    reason: str = ""

    @property
    def tone(self) -> Tone:
        """The color of its row."""
        return {"ok": "good", "alarm": "bad", "not run": "plain"}[self.verdict]  # type: ignore[return-value]

    def row(self) -> tuple[str, str, str, str, str]:
        """Return name, value, limit, verdict, and meaning for a table."""
        meaning = f"{self.meaning}: {self.reason}" if self.reason else self.meaning
        if self.limit is None:
            return self.name, "–", "–", self.verdict, meaning
        value = "not finite" if self.value is None else _text(self.value, self.unit)
        limit = f"{self.limit:g}" if self.unit == "number" else _text(self.limit, self.unit)
        return self.name, value, f"{self.bound} {limit}", self.verdict, meaning


HEAD = ("check", "value", "limit", "verdict", "meaning")
"""The head of a table of rows."""


def summary(checks: Sequence[Check]) -> str:
    """Count checks by verdict, in a sentence."""
    counts = {verdict: sum(check.verdict == verdict for check in checks) for verdict in ("ok", "alarm", "not run")}
    words = [f"{counts['ok']} in order", f"{counts['alarm']} in alarm"]
    words += [f"{counts['not run']} not run, for the reasons below"] if counts["not run"] else []
    return f"{len(checks)} checks: {', '.join(words)}."


def skipped(checks: Sequence[Check]) -> dict[str, list[str]]:
    """Return the names of the checks that were not run, by reason."""
    found: dict[str, list[str]] = {}
    for check in checks:
        if check.verdict == "not run":
            found.setdefault(check.reason, []).append(check.name)
    return found


def checks_of(
    measured: Measurements,
    alarms: Sequence[Alarm],
    limits: Thresholds,
    *,
    age: float,
    waiting: float | None,
    is_held: bool,
) -> tuple[Check, ...]:
    """Return all checks of an opened snapshot.

    Parameters
    ----------
    alarms
        The alarms of the same audit: they decide the verdicts.
    age
        Hours since the snapshot was committed.
    waiting
        Hours that a newer snapshot has been waiting for the alias; None if there is none.
    is_held
        Whether the alias is held, so that a newer snapshot waits on purpose.
    """
    table = _Table({alarm.name for alarm in alarms})
    return (
        Check(name="files", verdict="ok", meaning="every file has the content that the manifest says"),
        Check(name="handshake", verdict="ok", meaning="model, transform, and segments belong together"),
        *_stored(table, measured, limits),
        *_corpus(table, measured, limits),
        *_frozen(table, measured, limits),
        *_logged(table, measured, limits),
        *_alias(table, age, waiting or 0.0, limits, is_held=is_held),
    )


def unopened_checks(alarms: Sequence[Alarm]) -> tuple[Check, ...]:
    """Return the checks of a snapshot that could not be opened: nothing else can be measured."""
    return tuple(
        Check(name=alarm.name, verdict="alarm", meaning=alarm.message, value=alarm.figure, limit=alarm.limit)
        for alarm in alarms
    )


class _Table:
    """Builds checks whose verdict is whether there is an alarm of that name."""

    def __init__(self, alarmed: set[str]) -> None:
        self.alarmed = alarmed

    def judged(
        self,
        name: str,
        value: float,
        limit: float,
        meaning: str,
        *,
        unit: Unit = "number",
        bound: Literal["at most", "at least"] = "at most",
        is_alarm: bool | None = None,
    ) -> Check:
        alarm = name in self.alarmed if is_alarm is None else is_alarm
        return Check(
            name=name,
            verdict="alarm" if alarm else "ok",
            meaning=meaning,
            unit=unit,
            value=value if np.isfinite(value) else None,
            limit=limit,
            bound=bound,
        )

    @staticmethod
    def skipped(name: str, meaning: str, reason: str) -> Check:
        return Check(name=name, verdict="not run", meaning=meaning, reason=reason)


def _stored(table: _Table, measured: Measurements, limits: Thresholds) -> Iterator[Check]:
    stored, reproduced = measured.stored, measured.reproduced
    yield _norms(table, measured, limits)
    meaning = "mean cosine of random pairs of chunks; high if all vectors look alike"
    yield table.judged("anisotropy", stored.after.mean_cosine, limits.mean_cosine, meaning)
    yield from _dimensions(table, stored, measured.drift_problem, limits)
    for name, share in stored.saturated.items():
        before, meaning = stored.saturated_before[name], f"share of components beyond the range of {name}"
        limit = before + limits.saturated_share
        yield table.judged("saturation", share, limit, meaning, unit="share", is_alarm=share > limit)
    if not stored.saturated:
        yield table.skipped("saturation", "share of components beyond the range of int8", "no int8 codes are stored")
    yield from _cells(table, measured, limits)
    meaning = f"smallest cosine of {reproduced.count:,} stored vectors with their re-encoded texts"
    smallest, tolerance = reproduced.smallest_cosine, measured.tolerance
    yield table.judged("stored vectors", smallest, tolerance, meaning, unit="cosine", bound="at least")


def _cells(table: _Table, measured: Measurements, limits: Thresholds) -> Iterator[Check]:
    """Yield the check of cells, only for a space that has them."""
    cells, limit = measured.cells, cell_limit(measured.view.space.space.provenance, limits)
    if cells is None:
        return
    name, meaning = "uneven cells", "imbalance of the cells; 1 if all hold equally many vectors"
    if cells.vectors < FEWEST_PER_CELL * cells.count or limit is None:
        few = f"{cells.vectors:,} vectors are too few for {cells.count:,} cells"
        yield table.skipped(
            name, meaning, few if limit is not None else "the space does not say what it was at the fit"
        )
    else:
        yield table.judged(name, cells.imbalance, limit, meaning)


def _norms(table: _Table, measured: Measurements, limits: Thresholds) -> Check:
    stored, meaning = measured.stored, "largest distance of the length of a vector from 1"
    if measured.view.space.space.record.spec.normalization != "l2":
        return table.skipped("norms", meaning, "the space does not normalize")
    if not stored.is_float:
        return table.skipped("norms", meaning, "only codes are stored, whose lengths are not exact")
    allowed = norm_tolerance(stored.finest, limits.norm_error)
    return table.judged("norms", stored.norms.largest_error, allowed, meaning, unit="small")


def _dimensions(table: _Table, stored: StoredVectors, problem: str, limits: Thresholds) -> Iterator[Check]:
    collapsed = "dimensions that hardly vary any more"
    shifted = f"share of dimensions that have moved since the fit (PSI above {limits.psi:g})"
    few = min(stored.sampled)
    reason = f"{few} different texts are too few" if few < FEWEST_SHIFTED else ""
    if reason:
        yield table.skipped("collapsed dimensions", collapsed, reason)
    else:
        count = float((stored.shifts.spread < limits.collapsed_ratio).sum())
        yield table.judged("collapsed dimensions", count, 0.0, collapsed, unit="count")
    if problem or reason:
        yield table.skipped("shifted dimensions", shifted, problem or reason)
    else:
        share = float((stored.shifts.psi > limits.psi).mean())
        yield table.judged("shifted dimensions", share, limits.shifted_share, shifted, unit="share")


def _corpus(table: _Table, measured: Measurements, limits: Thresholds) -> Iterator[Check]:
    corpus = measured.corpus
    few = f"{corpus.new_chunks:,} new chunks are too few, or from too few documents"
    meaning = "how well a classifier tells new chunks from those of the fit (AUC); 0.5 is chance"
    yield _drift(table, "corpus drift", corpus.drift, meaning, measured.drift_problem or few, limits)
    yield table.judged(
        "duplicates",
        corpus.copies,
        measured.reference.duplicates + limits.duplicate_share,
        "share of chunks that are copies of a chunk of another document",
        unit="share",
    )
    meaning = "largest share of chunks in a language that the model's card does not name"
    if not measured.languages or not measured.model_languages:
        missing = "the model's card names no language" if measured.languages else "no language was recognized"
        yield table.skipped("language", meaning, missing)
        return
    shares = uncovered(measured.languages, measured.model_languages, 0.0).values()
    yield table.judged("language", max(shares, default=0.0), limits.uncovered_share, meaning, unit="share")


def _drift(table: _Table, name: str, drift: Drift | None, meaning: str, missing: str, limits: Thresholds) -> Check:
    if drift is None:
        return table.skipped(name, meaning, missing)
    return table.judged(name, drift.auc, limits.drift_auc, meaning)


def _frozen(table: _Table, measured: Measurements, limits: Thresholds) -> Iterator[Check]:
    frozen = measured.frozen
    agreement = "overlap of the top ten of the frozen queries with the baseline's, among documents that both have"
    retrieval = "nDCG@10 of the frozen queries"
    if frozen is None:
        missing = "there is no evaluation set; freeze queries with `isospace sets add` or `isospace sets make`"
        yield table.skipped("agreement", agreement, missing)
        yield table.skipped("retrieval", retrieval, missing)
        return
    if frozen.compared_with is None:
        lost = "the files of the baseline are gone" if measured.lost_baseline else "this audit is the baseline"
        yield table.skipped("agreement", agreement, lost)
    else:
        least = 1.0 - limits.agreement
        yield table.judged("agreement", frozen.overlap, least, agreement, unit="share", bound="at least")
    yield _retrieval(table, frozen, retrieval, limits)
    yield _band(table, "narrow band", frozen.top, measured.stored, "the frozen queries", limits)


def _retrieval(table: _Table, frozen: FrozenResults, meaning: str, limits: Thresholds) -> Check:
    if frozen.ndcg is None:
        return table.skipped("retrieval", meaning, "the set has no judgements")
    if frozen.ndcg_before is None:
        return table.skipped("retrieval", meaning, f"nDCG@10 is {frozen.ndcg:.4f}; there is no baseline yet")
    return table.judged("retrieval", frozen.ndcg, frozen.ndcg_before - limits.ndcg, meaning, bound="at least")


def _logged(table: _Table, measured: Measurements, limits: Thresholds) -> Iterator[Check]:
    logged = measured.logged
    if logged is None:
        for name, meaning in _LOGGED.items():
            yield table.skipped(name, meaning, "no answers were logged; serve with --log to audit queries, too")
        return
    for name, share in (("stale answers", logged.stale), ("unverified answers", logged.unverified)):
        yield table.judged(name, share, limits.stale_share, _LOGGED[name], unit="share")
    yield _query_vectors(table, logged, measured.query_tolerance)
    few = "too few queries, or no frozen ones to compare with"
    yield _drift(table, "query drift", logged.drift, _LOGGED["query drift"], few, limits)
    yield _band(table, "narrow band of logged queries", logged.top, measured.stored, "the logged queries", limits)


def _alias(table: _Table, age: float, waiting: float, limits: Thresholds, *, is_held: bool) -> Iterator[Check]:
    name, meaning = "stale alias", "how long a newer snapshot has been waiting for the alias"
    if is_held:
        yield table.skipped(name, meaning, "the alias is held, so that newer snapshots wait on purpose")
    else:
        # Two checks raise the same alarm: its name does not tell which of them did.
        yield table.judged(name, waiting, limits.lag_hours, meaning, unit="hours", is_alarm=waiting > limits.lag_hours)
    if limits.age_hours is not None:
        old = "how long ago the snapshot that the alias names was committed"
        yield table.judged(name, age, limits.age_hours, old, unit="hours", is_alarm=age > limits.age_hours)


def _query_vectors(table: _Table, logged: LogResults, tolerance: float) -> Check:
    name, meaning = "query vectors", _LOGGED["query vectors"]
    if logged.reproduced is None:
        return table.skipped(name, meaning, "no texts were logged")
    return table.judged(name, logged.reproduced, tolerance, meaning, unit="cosine", bound="at least")


def _band(table: _Table, name: str, top: Float64, stored: StoredVectors, whose: str, limits: Thresholds) -> Check:
    meaning = (
        f"spread of the best scores of {whose}, 5th to 95th percentile; an alarm only if they are also within "
        f"{limits.top_contrast:g} of the cosine of random pairs"
    )
    if len(top) < FEWEST_IN_BAND:
        return table.skipped(name, meaning, f"{len(top)} queries are too few")
    low, high = (float(np.percentile(top, p)) for p in (5, 95))
    is_alarm = any(band_alarms(top, stored.after.mean_cosine, whose, limits))
    return table.judged(name, high - low, limits.top_spread, meaning, bound="at least", is_alarm=is_alarm)


_LOGGED = {
    "stale answers": "share of logged answers from a snapshot that the alias no longer named",
    "unverified answers": "share of logged answers from a snapshot that was opened without the handshake",
    "query vectors": "smallest cosine of a logged query vector with its text, embedded again",
    "query drift": "how well a classifier tells logged queries from frozen ones (AUC); 0.5 is chance",
}


def _text(value: float, unit: Unit) -> str:
    match unit:
        case "share":
            return f"{value:.1%}"
        case "count":
            return f"{value:,.0f}"
        case "hours":
            return f"{value:,.1f} h"
        case "cosine":
            return f"{value:.6f}"
        case "small":
            return f"{value:.2g}"
        case "number":
            return f"{value:.4f}"
