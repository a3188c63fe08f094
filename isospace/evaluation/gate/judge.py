"""Judge a snapshot: collect the figures that its rules are about, and compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import ConfigError, MismatchError, QueryError
from isospace.evaluation.comparison import Comparison, compare_runs
from isospace.evaluation.gate.rules import AGREEMENT, GEOMETRY, LATENCY, Rule, parse_rule
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.gate.verdicts import Compared, Finding, Verdict
from isospace.evaluation.metrics import MEASURES, per_query
from isospace.evaluation.norms import measure_norms, norm_tolerance, sample_rows, vectors_at
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set
from isospace.evaluation.runs import SetRun, answer_set, latencies
from isospace.evaluation.significance import randomization_p
from isospace.evaluation.slices import slices_of
from isospace.search.bm25 import lexical_files
from isospace.search.options import SearchOptions, search_options
from isospace.search.view import View
from isospace.storage.hashing import fingerprint, sha256
from isospace.storage.store import Store
from isospace.transform.isotropy import measure_isotropy

_SAMPLE = 2_000
# What n queries do not show may happen to 3 / n of all. (Hanley and Lippman-Hand, "If nothing goes wrong, is everything
# all right?", 1983.) Losses are rare and large: below that the randomization test passes what it should not.
_RULE_OF_THREE = 3.0
_TIMED_QUERIES = 200


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict, and the comparison behind it, for the report.

    Attributes
    ----------
    verdict
        Not written yet.
    comparison
        With production; None without one, or without queries.
    """

    verdict: Verdict
    comparison: Comparison | None


def gate_set(store: Store, collection: str, spec: GateSpec) -> EvaluationSet | None:
    """Return the set that a gate asks, frozen anew if its files have changed; None if no rule needs queries."""
    if spec.queries:
        given = load_set(spec.set, Path(spec.queries), Path(spec.judgements) if spec.judgements else None)
        freeze_set(store, collection, given, source=spec.queries)
        return given
    if not _needs_queries(spec):
        return None
    return read_set(store, collection, spec.set)


def check_gate(store: Store, collection: str, spec: GateSpec) -> None:
    """Raise what `gate_set` would, before any work is done; nothing is written."""
    if spec.queries:
        load_set(spec.set, Path(spec.queries), Path(spec.judgements) if spec.judgements else None)
    elif _needs_queries(spec):
        read_set(store, collection, spec.set)


def _needs_queries(spec: GateSpec) -> bool:
    return any(parse_rule(rule).subject in ("measure", "agreement", "latency") for rule in spec.rules)


def gate_key(
    store: Store, spec: GateSpec, given: EvaluationSet | None, candidate: Manifest, production: Manifest | None
) -> str:
    """Return the fingerprint of everything that a verdict depends on; a lexical index can change without its snapshot."""
    sides = [
        {
            "snapshot_id": manifest.snapshot_id,
            "files": files_digest(manifest),
            "lexical": _lexical_digest(store, manifest),
        }
        for manifest in (candidate, *([production] if production else []))
    ]
    return fingerprint(
        {"rules": list(spec.rules), "search": spec.search, "set_id": given.set_id if given else None, "sides": sides}
    )


def _lexical_digest(store: Store, manifest: Manifest) -> str | None:
    path = lexical_files(manifest)[1]
    return sha256(store.read(path)) if store.exists(path) else None


def judge(
    spec: GateSpec, given: EvaluationSet | None, candidate: View, production: View | None, *, run_id: str, key: str
) -> Judged:
    """Judge a candidate against what is in production.

    Parameters
    ----------
    spec
        The rules.
    given
        The evaluation set, see `gate_set`.
    candidate, production
        Opened snapshots; rules that compare are left open where there is no production.
    run_id
        Of the run that asks.
    key
        What the verdict depends on, see `gate_key`.

    Raises
    ------
    ConfigError
        If a rule asks for judgements, or for a group of queries, that the set does not have.
    """
    rules = [parse_rule(rule) for rule in spec.rules]
    options = search_options(spec.search)
    figures = _Figures(candidate, production, given, options, rules)
    findings = [_find(rule, figures) for rule in rules]
    manifest = candidate.manifest
    against = production.manifest if production else None
    verdict = Verdict(
        number=0,
        collection=manifest.collection,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id=manifest.space_id,
        against=Compared(snapshot=against.sequence, snapshot_id=against.snapshot_id, space_id=against.space_id)
        if against
        else None,
        evaluation_set=given.name if given else None,
        set_id=given.set_id if given else None,
        set_kind=given.kind if given else None,
        passed=all(finding.passed is not False for finding in findings),
        findings=tuple(findings),
        measures=figures.measures(),
        agreement=figures.agreement(),
        notes=tuple(figures.notes()),
        key=key,
        run_id=run_id,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        report=None,
    )
    return Judged(verdict, figures.comparison)


class _Figures:
    """What the rules are about, computed once, and only what is asked for."""

    def __init__(
        self,
        candidate: View,
        production: View | None,
        given: EvaluationSet | None,
        options: SearchOptions,
        rules: Sequence[Rule],
    ) -> None:
        self.candidate, self.production, self.given, self.options = candidate, production, given, options
        self.production_options, self.problems = options, list[str]()
        self.after: SetRun | None = None
        self.comparison: Comparison | None = None
        self.groups: Mapping[str, Mapping[str, Sequence[str]]] = {}
        named = [rule.name for rule in rules if rule.subject == "measure"]
        self.names = tuple(dict.fromkeys([*MEASURES, *named]))
        if given is None:
            return
        self.after = answer_set(candidate, given, options)
        if given.judged:
            self.groups = slices_of(given, *([production] if production else []), candidate)
        if production is not None:
            try:
                before = answer_set(production, given, options)
            except (QueryError, MismatchError) as error:
                # It may store other representations, or no lexical index.
                self.production_options = SearchOptions()
                self.problems.append(f"production was searched with mode auto: {error}")
                before = answer_set(production, given, self.production_options)
            self.comparison = compare_runs(given, before, self.after, measures=self.names, groups=self.groups)

    def values(self, name: str, group: tuple[str, str] | None) -> tuple[dict[str, float] | None, dict[str, float]]:
        """Return a measure of every query, in production and in the candidate."""
        if self.given is None or self.after is None or not self.given.judged:
            raise ConfigError(
                f"gate rule on {name}: needs a set with judgements. Give gate.judgements, or a judged gate.set."
            )
        if self.comparison is not None:
            before, after = self.comparison.values[name]
        else:
            before, after = None, per_query(self.after.documents, self.given.judged, [name])[name]
        if group is None:
            return before, after
        names = self.groups.get(group[0], {}).get(group[1])
        if names is None:
            known = ", ".join(f"{column}={value}" for column, parts in self.groups.items() for value in parts) or "none"
            raise ConfigError(f"gate rule for {group[0]}={group[1]}: the set has no such group. Groups: {known}.")
        kept = [
            {key: side[key] for key in names if key in side} if side is not None else None for side in (before, after)
        ]
        return kept[0], kept[1] or {}

    def geometry(self, name: str) -> float:
        """Return a figure of isotropy of the candidate."""
        vectors = vectors_at(self.candidate, sample_rows(self.candidate, _SAMPLE, seed=0))
        return float(getattr(measure_isotropy(vectors), GEOMETRY[name]))

    def latency_ratio(self, name: str) -> tuple[float, float, float] | None:
        """Return the candidate's percentile, production's, and their ratio."""
        if self.production is None or self.given is None:
            return None
        some = dict(list(self.given.queries.items())[:_TIMED_QUERIES])
        few = EvaluationSet(self.given.name, "unjudged", some)
        both = latencies([(self.candidate, self.options), (self.production, self.production_options)], few)
        after, before = (float(np.percentile(seconds, LATENCY[name])) for seconds in both)
        return after, before, after / before

    def measures(self) -> dict[str, Any]:
        """Return measures of the candidate, with differences where there is a production."""
        if self.comparison is not None:
            return {name: asdict(found) for name, found in self.comparison.measures.items()}
        if self.given is None or self.after is None or not self.given.judged:
            return {}
        values = per_query(self.after.documents, self.given.judged, self.names)
        return {name: {"after": float(np.mean(list(found.values())))} for name, found in values.items()}

    def agreement(self) -> dict[str, float]:
        """Return how alike both answer."""
        return {"overlap": self.comparison.overlap, "rbo": self.comparison.rbo} if self.comparison else {}

    def notes(self) -> list[str]:
        """Tell what bears on how far the figures can be trusted."""
        notes = list(self.problems)
        if self.given is not None and self.given.kind == "pseudo":
            notes.append("the queries are pseudo-queries made from the corpus: easier than people's")
        if self.after is not None and self.after.absent:
            notes.append(f"{self.after.absent} relevant documents of the set are not in this snapshot")
        return notes


def _find(rule: Rule, figures: _Figures) -> Finding:
    if rule.is_relative and figures.production is None:
        return _finding(rule, None, None, "there is no production to compare with")
    match rule.subject:
        case "norms":
            if not figures.candidate.finest.is_float:
                stored = figures.candidate.finest.name
                return _finding(rule, None, None, f"{stored} codes are stored alone, which are of no exact length")
            norms = measure_norms(figures.candidate)
            allowed = norm_tolerance(figures.candidate.finest.name, rule.value)
            detail = f"lengths lie between {norms.smallest:.9g} and {norms.largest:.9g}"
            if allowed > rule.value:
                detail += f"; {figures.candidate.finest.name} rounds by up to {allowed:.2g}"
            return _finding(rule, bool(norms.largest_error <= allowed), norms.largest_error, detail)
        case "geometry":
            found = figures.geometry(rule.name)
            return _bounded(rule, found, f"{rule.name} is {found:.4f}")
        case "agreement":
            found = getattr(figures.comparison, AGREEMENT[rule.name])
            return _bounded(rule, found, f"{rule.name} with production is {found:.4f}")
        case "latency":
            after, before, ratio = figures.latency_ratio(rule.name) or (0.0, 0.0, 0.0)
            detail = f"{1000 * after:.2f} ms against {1000 * before:.2f} ms, {ratio:.2f} x"
            return _finding(rule, ratio <= rule.value, ratio, detail)
        case _:
            return _measured(rule, figures)


def _measured(rule: Rule, figures: _Figures) -> Finding:
    before, after = figures.values(rule.name, rule.group)
    mean = float(np.mean(list(after.values())))
    if rule.sense != "not_worse":
        return _bounded(rule, mean, f"{rule.name} is {mean:.4f} over {len(after)} queries")
    if before is None:
        return _finding(rule, None, None, "there is no production to compare with")
    names = sorted(after)
    moved = np.array([after[name] - before[name] for name in names])
    lost = float(moved.mean())
    detail = f"{rule.name} {mean:.4f} against {mean - lost:.4f}, difference {lost:+.4f} over {len(names)} queries"
    if rule.p is None:
        return _finding(rule, lost >= -rule.value, lost, detail)
    needed = int(np.ceil(_RULE_OF_THREE / rule.value))
    if len(names) < needed:
        few = f"{detail}: too few to show it, since a loss that none of them meets may be {_RULE_OF_THREE / len(names):.2g}"
        return _finding(rule, False, lost, f"{few}; needs {needed} queries, or a wider margin")
    p = randomization_p(moved + rule.value)
    return _finding(
        rule, p < rule.p, lost, f"{detail}, p = {p:.4f} that it is not worse by {rule.value:g} (needs {rule.p:g})"
    )


def _bounded(rule: Rule, found: float, detail: str) -> Finding:
    # NaN holds no bound.
    passed = found >= rule.value if rule.sense == "at_least" else found <= rule.value
    return _finding(rule, bool(passed), found, detail)


def _finding(rule: Rule, passed: bool | None, figure: float | None, detail: str) -> Finding:
    signs = {"at_least": ">=", "at_most": "<=", "ratio": "<=", "not_worse": ">="}
    value = -rule.value if rule.sense == "not_worse" else rule.value
    expected = f"{signs[rule.sense]} {value:g}" + (" x" if rule.sense == "ratio" else "")
    finite = None if figure is None or not np.isfinite(figure) else figure
    return Finding(rule=rule.text, passed=passed, figure=finite, expected=expected, detail=detail)
