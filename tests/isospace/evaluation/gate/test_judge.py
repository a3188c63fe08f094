"""Rules at their bounds: what exactly meets one, what does not, and what a verdict depends on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from isospace.collection.snapshot import Manifest
from isospace.evaluation.gate import judge
from isospace.evaluation.gate.judge import _evaluate_metric, _finding, gate_key
from isospace.evaluation.gate.rules import parse_rule
from isospace.evaluation.gate.spec import GateSpec
from isospace.evaluation.gate.verdicts import Finding
from isospace.evaluation.query_sets import EvaluationSet
from isospace.search.lexical_record import lexical_record_path
from isospace.storage.store import open_store
from tests.helpers.manifests import file_ref, manifest, part_record

TESTED = "ndcg@10 not worse than production by more than 0.1 at p < 0.05"
UNTESTED = "ndcg@10 not worse than production by more than 0.25"


def measured(text: str, after: list[float], before: list[float] | None = None) -> Finding:
    """Evaluate a rule on the values of a metric for each query."""
    sides = [None if side is None else {str(n): v for n, v in enumerate(side)} for side in (before, after)]
    return _evaluate_metric(parse_rule(text), SimpleNamespace(values=lambda *_: tuple(sides)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("p", "passed"), [(0.0499, True), (0.05, False), (0.0501, False), (math.nan, False)])
def test_p_has_to_be_below_the_level(monkeypatch: pytest.MonkeyPatch, p: float, passed: bool) -> None:
    monkeypatch.setattr(judge, "randomization_p", lambda _: p)
    assert measured(TESTED, [0.5] * 40, [0.5] * 40).passed is passed


@pytest.mark.parametrize(("loss", "passed"), [(0.0, True), (0.05, True), (0.15, False), (-0.2, True)])
def test_a_loss_has_to_be_shown_to_be_below_the_margin(loss: float, passed: bool) -> None:
    before = [0.5 + 0.01 * (n % 7) for n in range(60)]
    found = measured(TESTED, [value - loss for value in before], before)
    assert found.passed is passed
    assert found.figure == pytest.approx(-loss)


@pytest.mark.parametrize(("queries", "passed"), [(29, False), (30, True), (31, True)])
def test_three_queries_for_each_margin_are_enough(queries: int, passed: bool) -> None:
    found = measured(TESTED, [0.5] * queries, [0.5] * queries)
    assert found.passed is passed
    assert ("needs 30 queries" in found.detail) is not passed


@pytest.mark.parametrize(("loss", "passed"), [(0.25, True), (0.2500001, False), (0.0, True), (0.125, True)])
def test_a_loss_of_exactly_the_margin_is_no_worse_than_the_margin(loss: float, passed: bool) -> None:
    assert measured(UNTESTED, [0.5 - loss] * 4, [0.5] * 4).passed is passed


@pytest.mark.parametrize(
    ("text", "value", "passed"),
    [
        ("recall@10 >= 0.5", 0.5, True),
        ("recall@10 >= 0.5", 0.4999, False),
        ("recall@10 <= 0.5", 0.5, True),
        ("recall@10 <= 0.5", 0.5001, False),
    ],
)
def test_a_figure_of_exactly_the_bound_meets_it(text: str, value: float, passed: bool) -> None:
    assert measured(text, [value] * 3).passed is passed


@pytest.mark.parametrize("figure", [None, math.nan, math.inf, -math.inf])
def test_a_figure_that_is_no_number_fails_whatever_was_found(figure: float | None) -> None:
    found = _finding(parse_rule("recall@10 >= 0.5"), True, figure, "detail")
    assert (found.passed, found.figure) == (False, None)
    assert "which proves nothing" in found.detail
    assert _finding(parse_rule("recall@10 >= 0.5"), None, figure, "left out").passed is None


@pytest.mark.parametrize("change", [{"value": math.nan}, {"value": math.inf}, {"p": math.nan}, {"p": math.inf}])
def test_a_bound_that_is_no_number_fails_whatever_was_found(change: dict[str, float]) -> None:
    assert _finding(parse_rule(TESTED), True, 0.0, "detail").passed is True
    found = _finding(replace(parse_rule(TESTED), **change), True, 0.0, "detail")
    assert found.passed is False
    assert "expected finite numbers in the rule" in found.detail


def test_a_verdict_depends_on_rules_queries_and_the_files_of_both_sides(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    mine, other = manifest(2), manifest(2, parts=(part_record("one", segment=file_ref("segment/repaired")),))
    assert mine.snapshot_id == other.snapshot_id
    spec, given = GateSpec(rules=("recall@10 >= 0.5",)), EvaluationSet("s", "judged", {"q": "x"}, {"q": {"d": 1}})

    def key(candidate: Manifest, production: Manifest | None, used: GateSpec = spec, of: EvaluationSet | None = given):
        return gate_key(store, used, of, candidate, production)

    deleted = manifest(2, deletions=file_ref("deletions/x"))
    keys = [
        key(mine, None),
        key(other, None),
        key(deleted, None),
        key(manifest(3), None),
        key(mine, manifest(1)),
        key(mine, mine),
        key(mine, other),
        key(mine, None, GateSpec(rules=("recall@10 >= 0.6",))),
        key(mine, None, GateSpec(rules=spec.rules, search={"mode": "hybrid"})),
        key(mine, None, spec, None),
        key(mine, None, spec, EvaluationSet("s", "judged", {"q": "y"}, {"q": {"d": 1}})),
    ]
    assert key(mine, None) == keys[0]
    for content in (b"one", b"two"):
        store.write(lexical_record_path(mine), content)
        keys.append(key(mine, None))
    assert len(set(keys)) == len(keys)
