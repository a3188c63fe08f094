"""Checks are listed with value, limit, and verdict, and those that make no sense are not run."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.evaluation.baseline_sample import Reference
from isospace.operations.audit.checks import Check, skipped, summary
from isospace.operations.audit.measurements import FEWEST_FITTED, drift_problem
from isospace.transform.space import SpaceRecord
from isospace.transform.spec import FitSpec, TransformSpec


def space(kind: str, *representations: object) -> SpaceRecord:
    spec = TransformSpec.model_validate({"representations": list(representations) or ["float32", "int8"]})
    return SpaceRecord(
        encoder_id="e",
        input_dimension=8,
        dimension=8,
        spec=spec,
        fitted=FitSpec(kind=kind),  # type: ignore[arg-type]
        normalizes=False,
        params_sha256="p",
        probes_sha256="p",
        promise="within tolerance",
        min_cosine=0.9,
    )


def fitted_on(documents: int) -> Reference:
    # Several chunks of each document.
    owners = tuple(f"d{n % documents}" for n in range(4 * documents))
    return Reference(1, len(owners), 0.0, owners, np.zeros((len(owners), 8), np.float32))


def test_drift_means_something_where_something_was_fitted_on_enough_documents() -> None:
    assert drift_problem(space("center"), fitted_on(FEWEST_FITTED)) == ""
    assert drift_problem(space("none", "float32", {"kind": "pq", "subvectors": 2}), fitted_on(FEWEST_FITTED)) == ""


def test_where_nothing_was_fitted_there_is_no_drift() -> None:
    assert "nothing was fitted" in drift_problem(space("none"), fitted_on(5_000))


def test_a_pilot_that_grows_does_not_drift() -> None:
    assert "fitted on 21 documents" in drift_problem(space("center"), fitted_on(21))
    assert drift_problem(space("center"), fitted_on(FEWEST_FITTED - 1))


@pytest.mark.parametrize(
    ("check", "row"),
    [
        (
            Check(name="a", verdict="ok", meaning="m", value=0.123456, limit=0.6),
            ("a", "0.1235", "at most 0.6", "ok", "m"),
        ),
        (
            Check(name="a", verdict="alarm", meaning="m", unit="share", value=0.5, limit=0.02, bound="at least"),
            ("a", "50.0%", "at least 2.0%", "alarm", "m"),
        ),
        (
            Check(name="a", verdict="ok", meaning="m", unit="cosine", value=0.9999951, limit=0.99999),
            ("a", "0.999995", "at most 0.999990", "ok", "m"),
        ),
        (
            Check(name="a", verdict="alarm", meaning="m", value=None, limit=1e-6),
            ("a", "not finite", "at most 1e-06", "alarm", "m"),
        ),
        (Check(name="a", verdict="ok", meaning="m"), ("a", "–", "–", "ok", "m")),
        (Check(name="a", verdict="not run", meaning="m", reason="why"), ("a", "–", "–", "not run", "m: why")),
    ],
)
def test_a_check_is_a_row_with_units(check: Check, row: tuple[str, ...]) -> None:
    assert check.row() == row


def test_checks_are_counted_and_those_not_run_are_grouped_by_reason() -> None:
    checks = [
        Check(name="a", verdict="ok", meaning=""),
        Check(name="b", verdict="alarm", meaning=""),
        *(Check(name=name, verdict="not run", meaning="", reason=f"reason {name[0]}") for name in ("x1", "y1", "x2")),
    ]
    assert summary(checks) == "5 checks: 1 in order, 1 in alarm, 3 not run, for the reasons below."
    assert skipped(checks) == {"reason x": ["x1", "x2"], "reason y": ["y1"]}
