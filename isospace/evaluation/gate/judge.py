"""Judge a snapshot: evaluate every rule of its gate."""

from __future__ import annotations

import math
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
from isospace.evaluation.gate.verdicts import ComparedSnapshot, Finding, Verdict
from isospace.evaluation.metrics import MEASURES, per_query
from isospace.evaluation.norms import measure_norms, norm_tolerance, sample_rows, vectors_at
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet, freeze_set, read_set, without_forgotten
from isospace.evaluation.reports.quotes import Quote, quote_of
from isospace.evaluation.runs import SetRun, answer_set, latencies
from isospace.evaluation.significance import bootstrap_interval, randomization_p
from isospace.evaluation.slices import slices_of
from isospace.search.lexical_record import lexical_record_path
from isospace.search.options import SearchOptions, search_options
from isospace.search.view import View
from isospace.storage.hashing import fingerprint, sha256
from isospace.storage.store import Store
from isospace.transform.isotropy import measure_isotropy

_SAMPLE = 2_000
# An event that n queries do not show may still affect 3 / n of all queries. (Hanley and Lippman-Hand, "If nothing goes
# wrong, is everything all right?", 1983.) Losses are rare and large: with fewer queries than this rule asks for, the
# randomization test passes too much.
_RULE_OF_THREE = 3.0
_TIMED_QUERIES = 200


@dataclass(frozen=True, slots=True)
class GateResult:
    """A verdict that is not written yet, and the comparison behind it for the report.

    Attributes
    ----------
    comparison
        The comparison with production; None without production or without queries.
    groups
        A quote for each group of queries: its name may be metadata of the documents that answer them.
    """

    verdict: Verdict
    comparison: Comparison | None
    groups: tuple[Quote, ...] = ()


def gate_set(store: Store, collection: str, spec: GateSpec) -> EvaluationSet | None:
    """Return the evaluation set of a gate, frozen again if its files have changed; None if no rule needs queries."""
    query_set = _read_gate_set(store, collection, spec)
    if query_set is not None and spec.queries:
        freeze_set(store, collection, query_set, source=spec.queries)
    return query_set


def check_gate(store: Store, collection: str, spec: GateSpec) -> None:
    """Raise the errors of `gate_set` before any work is done; nothing is written."""
    _read_gate_set(store, collection, spec)


def gate_judgements(store: Store, collection: str, spec: GateSpec) -> EvaluationSet | None:
    """Return the evaluation set of a gate, without freezing it; None if no rule needs judgements."""
    if not any(parse_rule(rule).subject == "measure" for rule in spec.rules):
        return None
    return _read_gate_set(store, collection, spec)


def _read_gate_set(store: Store, collection: str, spec: GateSpec) -> EvaluationSet | None:
    if spec.queries:
        loaded = load_set(spec.set, Path(spec.queries), Path(spec.judgements) if spec.judgements else None)
        return without_forgotten(store, collection, loaded)
    return read_set(store, collection, spec.set) if _needs_queries(spec) else None


def _needs_queries(spec: GateSpec) -> bool:
    return any(parse_rule(rule).needs_queries for rule in spec.rules)


def gate_key(
    store: Store, spec: GateSpec, query_set: EvaluationSet | None, candidate: Manifest, production: Manifest | None
) -> str:
    """Return a fingerprint of everything that a verdict depends on, including the BM25 index beside a snapshot."""
    sides = [
        {
            "snapshot_id": manifest.snapshot_id,
            "files": files_digest(manifest),
            "lexical": _lexical_digest(store, manifest),
        }
        for manifest in (candidate, *([production] if production else []))
    ]
    return fingerprint(
        {
            "rules": list(spec.rules),
            "search": spec.search,
            "set_id": query_set.set_id if query_set else None,
            "sides": sides,
        }
    )


def _lexical_digest(store: Store, manifest: Manifest) -> str | None:
    path = lexical_record_path(manifest)
    return sha256(store.read(path)) if store.exists(path) else None


def judge(
    spec: GateSpec, query_set: EvaluationSet | None, candidate: View, production: View | None, *, run_id: str, key: str
) -> GateResult:
    """Judge a candidate, and compare it with production.

    Parameters
    ----------
    spec
        The rules.
    query_set
        The evaluation set, see `gate_set`.
    candidate, production
        Opened snapshots; without production, rules that compare are skipped.
    run_id
        ID of the run, recorded in the verdict.
    key
        Fingerprint of what the verdict depends on, see `gate_key`.

    Raises
    ------
    ConfigError
        If a rule needs judgements, or a group of queries, that the set does not have.
    """
    rules = [parse_rule(rule) for rule in spec.rules]
    options = search_options(spec.search)
    inputs = _RuleInputs(candidate, production, query_set, options, rules)
    findings = [_evaluate(rule, inputs) for rule in rules]
    manifest = candidate.manifest
    against = production.manifest if production else None
    verdict = Verdict(
        number=0,
        collection=manifest.collection,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id=manifest.space_id,
        against=ComparedSnapshot(snapshot=against.sequence, snapshot_id=against.snapshot_id, space_id=against.space_id)
        if against
        else None,
        evaluation_set=query_set.name if query_set else None,
        set_id=query_set.set_id if query_set else None,
        set_kind=query_set.kind if query_set else None,
        passed=all(finding.passed is not False for finding in findings),
        findings=tuple(findings),
        measures=inputs.measures(),
        agreement=inputs.agreement(),
        notes=tuple(inputs.notes()),
        key=key,
        run_id=run_id,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        report=None,
    )
    return GateResult(verdict, inputs.comparison, quoted_groups(query_set, inputs.groups))


class _RuleInputs:
    """The inputs that rules refer to, each computed only if needed, and at most once."""

    def __init__(
        self,
        candidate: View,
        production: View | None,
        query_set: EvaluationSet | None,
        options: SearchOptions,
        rules: Sequence[Rule],
    ) -> None:
        self.candidate, self.production, self.query_set, self.options = candidate, production, query_set, options
        self.production_options, self.problems = options, list[str]()
        self.after: SetRun | None = None
        self.comparison: Comparison | None = None
        self.groups: Mapping[str, Mapping[str, Sequence[str]]] = {}
        in_rules = [rule.name for rule in rules if rule.subject == "measure"]
        self.names = tuple(dict.fromkeys([*MEASURES, *in_rules]))
        if query_set is None:
            return
        self.after = answer_set(candidate, query_set, options)
        if query_set.judged:
            self.groups = slices_of(query_set, *([production] if production else []), candidate)
        if production is not None:
            try:
                before = answer_set(production, query_set, options)
            except (QueryError, MismatchError) as error:
                # Production may store other representations, or have no BM25 index.
                self.production_options = SearchOptions()
                self.problems.append(f"production was searched with mode auto: {error}")
                before = answer_set(production, query_set, self.production_options)
            self.comparison = compare_runs(query_set, before, self.after, measures=self.names, groups=self.groups)

    def values(self, name: str, group: tuple[str, str] | None) -> tuple[dict[str, float] | None, dict[str, float]]:
        """Return the values of a metric for every query, in production and in the candidate."""
        if self.query_set is None or self.after is None or not self.query_set.judged:
            raise ConfigError(
                f"gate rule on {name}: needs an evaluation set with judgements. Set recipe.gate.judgements, or use a "
                "judged set as recipe.gate.set."
            )
        if self.comparison is not None:
            before, after = self.comparison.values[name]
        else:
            before, after = None, per_query(self.after.documents, self.query_set.judged, [name])[name]
        if group is None:
            return before, after
        names = self.groups.get(group[0], {}).get(group[1])
        if names is None:
            known = ", ".join(f"{column}={value}" for column, parts in self.groups.items() for value in parts) or "none"
            raise ConfigError(
                f"gate rule for {group[0]}={group[1]}: the evaluation set has no such group. Groups: {known}."
            )
        sides = [
            {key: side[key] for key in names if key in side} if side is not None else None for side in (before, after)
        ]
        return sides[0], sides[1] or {}

    def geometry(self, name: str) -> float:
        """Return a figure of the candidate's isotropy."""
        vectors = vectors_at(self.candidate, sample_rows(self.candidate, _SAMPLE, seed=0))
        return float(getattr(measure_isotropy(vectors), GEOMETRY[name]))

    def latency_ratio(self, name: str) -> tuple[float, float, float] | None:
        """Return the candidate's percentile, production's, and their ratio."""
        if self.production is None or self.query_set is None:
            return None
        some = dict(list(self.query_set.queries.items())[:_TIMED_QUERIES])
        few = EvaluationSet(self.query_set.name, "unjudged", some)
        both = latencies([(self.candidate, self.options), (self.production, self.production_options)], few)
        after, before = (float(np.percentile(seconds, LATENCY[name])) for seconds in both)
        return after, before, after / before if before else math.nan

    def measures(self) -> dict[str, Any]:
        """Return the candidate's metrics, with differences if there is a production snapshot."""
        if self.comparison is not None:
            return {name: json_figures(asdict(difference)) for name, difference in self.comparison.measures.items()}
        if self.query_set is None or self.after is None or not self.query_set.judged:
            return {}
        values = per_query(self.after.documents, self.query_set.judged, self.names)
        return {name: {"after": json_figures(_mean(by_query))} for name, by_query in values.items()}

    def agreement(self) -> dict[str, float]:
        """Return how much both snapshots agree."""
        found = {"overlap": self.comparison.overlap, "rbo": self.comparison.rbo} if self.comparison else {}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def notes(self) -> list[str]:
        """Return notes on how far the figures can be trusted."""
        notes = list(self.problems)
        if self.query_set is not None and self.query_set.kind == "pseudo":
            notes.append("the queries are pseudo-queries made from the corpus, which are easier than queries of people")
        if self.after is not None and self.after.absent:
            notes.append(f"{self.after.absent} relevant documents of the set are not in this snapshot")
        return notes


def quoted_groups(
    query_set: EvaluationSet | None, groups: Mapping[str, Mapping[str, Sequence[str]]]
) -> tuple[Quote, ...]:
    """Return a quote for each group of queries whose name is metadata of documents, or a part of their URI."""
    if query_set is None:
        return ()
    parts = [
        names for column, values in groups.items() if column not in query_set.attributes for names in values.values()
    ]
    return tuple(
        quote for names in parts for quote in quote_of(doc for name in names for doc in query_set.answers(name))
    )


def _evaluate(rule: Rule, inputs: _RuleInputs) -> Finding:
    if rule.is_relative and inputs.production is None:
        return _finding(rule, None, None, "there is no production snapshot to compare with")
    match rule.subject:
        case "norms":
            if not inputs.candidate.finest.is_float:
                stored = inputs.candidate.finest.name
                return _finding(rule, None, None, f"only {stored} codes are stored, whose norms are not exact")
            norms = measure_norms(inputs.candidate)
            allowed = norm_tolerance(inputs.candidate.finest.name, rule.value)
            detail = f"norms are between {norms.smallest:.9g} and {norms.largest:.9g}"
            if allowed > rule.value:
                detail += f"; {inputs.candidate.finest.name} rounds by up to {allowed:.2g}"
            return _finding(rule, bool(norms.largest_error <= allowed), norms.largest_error, detail)
        case "geometry":
            value = inputs.geometry(rule.name)
            return _within_bound(rule, value, f"{rule.name} is {value:.4f}")
        case "agreement":
            value = getattr(inputs.comparison, AGREEMENT[rule.name])
            return _within_bound(rule, value, f"{rule.name} with production is {value:.4f}")
        case "approximate":
            return _evaluate_approximate(rule, inputs.candidate)
        case "latency":
            after, before, ratio = inputs.latency_ratio(rule.name) or (math.nan, math.nan, math.nan)
            detail = f"{1000 * after:.2f} ms against {1000 * before:.2f} ms, {ratio:.2f} x"
            return _finding(rule, ratio <= rule.value, ratio, detail)
        case _:
            return _evaluate_metric(rule, inputs)


def _evaluate_approximate(rule: Rule, candidate: View) -> Finding:
    """Compare the recall of approximate searches, measured when they were learned, with a bound."""
    count, index = int(rule.name), candidate.approximate
    recall = candidate.default_recall
    used = None if index is None else index.rule(recall, count)
    if index is None or index.learned is None or used is None:
        return _finding(rule, None, None, f"searches for {count} hits with a recall of {recall:g} are exact")
    (measured,) = [
        one for one in index.learned.measured if (one.neighbors, one.declared) == (used.neighbors, used.recall)
    ]
    detail = (
        f"recall@{measured.neighbors} of approximate searches is {measured.recall:.4f} (95 % interval "
        f"{measured.low:.4f} to {measured.high:.4f}) over {index.learned.measured_on} queries, with a declared recall "
        f"of {measured.declared:g}"
    )
    return _within_bound(rule, measured.recall, detail)


def _evaluate_metric(rule: Rule, inputs: _RuleInputs) -> Finding:
    before, after = inputs.values(rule.name, rule.group)
    mean = _mean(after)
    if rule.sense != "not_worse":
        return _within_bound(rule, mean, f"{rule.name} is {mean:.4f} over {len(after)} queries")
    if before is None:
        return _finding(rule, None, None, "there is no production snapshot to compare with")
    names = sorted(after)
    differences = np.array([after[name] - before[name] for name in names])
    gain = _mean(dict(zip(names, differences, strict=True)))
    low, high = bootstrap_interval(differences)
    detail = (
        f"{rule.name} {mean:.4f} against {mean - gain:.4f}, difference {gain:+.4f} (95 % interval {low:+.4f} to "
        f"{high:+.4f}) over {len(names)} queries"
    )
    if rule.p is None:
        return _finding(rule, gain >= -rule.value, gain, detail)
    needed = _RULE_OF_THREE / rule.value
    if len(names) < needed:
        few = f"{detail}: too few, since they cannot rule out a loss of {_RULE_OF_THREE / len(names):.2g}"
        return _finding(rule, False, gain, f"{few}; needs {np.ceil(needed):.0f} queries, or a wider margin")
    p = randomization_p(differences + rule.value)
    return _finding(
        rule, p < rule.p, gain, f"{detail}; p = {p:.4f} for a loss below {rule.value:g}, required: below {rule.p:g}"
    )


def _mean(values: Mapping[str, float]) -> float:
    """Return the mean over queries; NaN without queries."""
    return float(np.mean(list(values.values()))) if values else math.nan


def _within_bound(rule: Rule, value: float, detail: str) -> Finding:
    passed = value >= rule.value if rule.sense == "at_least" else value <= rule.value
    return _finding(rule, bool(passed), value, detail)


def _finding(rule: Rule, passed: bool | None, figure: float | None, detail: str) -> Finding:
    """Return the finding of a rule. A rule that was not skipped fails if its figure or its bound is not finite."""
    signs = {"at_least": ">=", "at_most": "<=", "ratio": "<=", "not_worse": ">="}
    value = -rule.value if rule.sense == "not_worse" else rule.value
    expected = f"{signs[rule.sense]} {value:g}" + (" x" if rule.sense == "ratio" else "")
    if passed is not None and (problem := _not_finite(rule, figure)):
        passed, detail = False, f"{detail}: {problem}"
    finite = None if figure is None or not math.isfinite(figure) else figure
    return Finding(rule=rule.text, passed=passed, figure=finite, expected=expected, detail=detail)


def _not_finite(rule: Rule, figure: float | None) -> str:
    """Return which number of a rule is missing or not finite; empty if all are."""
    if figure is None or not math.isfinite(figure):
        return f"the figure is {figure}, which proves nothing; check the stored vectors and the queries"
    if not math.isfinite(rule.value) or not math.isfinite(rule.p or 0.0):
        return f"the bound is {rule.value}, p {rule.p}; expected finite numbers in the rule"
    return ""


def json_figures(value: Any) -> Any:
    """Return a figure, or a container of figures, with None for NaN and infinity, which JSON does not have."""
    match value:
        case dict():
            return {key: json_figures(item) for key, item in value.items()}
        case list() | tuple():
            return [json_figures(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value
