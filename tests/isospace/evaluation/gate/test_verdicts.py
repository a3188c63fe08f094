"""When an alias may move: by which verdict, against which snapshot, and what a forced move is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.alias import promote
from isospace.collection.snapshot import Manifest, commit_manifest
from isospace.errors import GateError
from isospace.evaluation.gate.verdicts import (
    ComparedSnapshot,
    Finding,
    Verdict,
    promote_judged,
    promotion_problem,
    write_verdict,
)
from isospace.storage.store import Store, open_store
from tests.helpers.manifests import manifest, written

RULE = "recall@10 >= 0.9"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def gated(store: Store, number: int) -> Manifest:
    return commit_manifest(store, written(store, manifest(number, recipe={"gate": {"rules": [RULE]}})))


def judged(store: Store, snapshot: Manifest, *, passed: bool, against: Manifest | None, rule: str = RULE) -> None:
    compared = against and ComparedSnapshot(
        snapshot=against.sequence, snapshot_id=against.snapshot_id, space_id=against.space_id
    )
    finding = Finding(rule=rule, passed=passed, figure=0.5, expected=">= 0.9", detail="recall@10 is 0.5")
    verdict = Verdict(
        number=0,
        collection="c",
        snapshot=snapshot.sequence,
        snapshot_id=snapshot.snapshot_id,
        space_id=snapshot.space_id,
        against=compared,
        evaluation_set=None,
        set_id=None,
        set_kind=None,
        passed=passed,
        findings=(finding,),
        measures={},
        agreement={},
        notes=(),
        key="k",
        run_id="r",
        at="2024-01-01T00:00:00+00:00",
        report=None,
    )
    write_verdict(store, verdict)


def problem(store: Store, snapshot: Manifest) -> str:
    return promotion_problem(store, snapshot, "production")


def test_without_rules_and_verdicts_anything_may_be_promoted(store: Store) -> None:
    assert problem(store, commit_manifest(store, written(store, manifest(1)))) == ""


def test_a_snapshot_with_rules_needs_a_verdict_by_them(store: Store) -> None:
    first = gated(store, 1)
    assert "was not judged by the 1 rules of its recipe" in problem(store, first)
    judged(store, first, passed=True, against=None, rule="recall@100 >= 0")
    assert "was not judged by the 1 rules of its recipe" in problem(store, first)
    judged(store, first, passed=True, against=None)
    assert problem(store, first) == ""


@pytest.mark.parametrize(
    ("verdicts", "is_good"), [((True,), True), ((False,), False), ((True, False), False), ((False, True), True)]
)
def test_the_last_verdict_counts(store: Store, verdicts: tuple[bool, ...], is_good: bool) -> None:
    first = gated(store, 1)
    for passed in verdicts:
        judged(store, first, passed=passed, against=None)
    assert (problem(store, first) == "") is is_good
    if not is_good:
        assert "was rejected" in problem(store, first)


def test_a_verdict_counts_against_what_the_alias_names_now_and_not_what_it_named_first(store: Store) -> None:
    first, second, third = (gated(store, n) for n in (1, 2, 3))
    for snapshot in (first, second):
        promote(store, "c", "production", snapshot, reason="x")
    judged(store, third, passed=True, against=first)
    assert "was judged against snapshot 1, but production now names snapshot 2" in problem(store, third)
    judged(store, third, passed=True, against=second)
    assert problem(store, third) == ""
    judged(store, third, passed=True, against=None)
    assert "was judged against nothing, but production now names snapshot 2" in problem(store, third)


@pytest.mark.parametrize("forced", [True, False])
def test_a_snapshot_that_was_in_production_may_come_back_unless_it_was_forced_there(store: Store, forced: bool) -> None:
    bad, good = gated(store, 1), gated(store, 2)
    judged(store, bad, passed=not forced, against=None)
    promote_judged(store, "c", "production", bad, reason="an experiment", force=forced)
    judged(store, good, passed=True, against=bad)
    promote_judged(store, "c", "production", good, reason="better")
    judged(store, bad, passed=False, against=good)
    if not forced:
        assert problem(store, bad) == ""
        return
    with pytest.raises(GateError, match=r"was rejected .* give --force and --reason"):
        promote_judged(store, "c", "production", bad, reason="again")


@pytest.mark.parametrize("reason", ["", "  ", "\n"])
def test_force_needs_a_reason(store: Store, reason: str) -> None:
    with pytest.raises(GateError, match="--force needs a reason"):
        promote_judged(store, "c", "production", gated(store, 1), reason=reason, force=True)
