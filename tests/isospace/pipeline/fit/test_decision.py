"""The decision for a fit: at the level, on the half that was held out, and with all that tie."""

from __future__ import annotations

import numpy as np
import pytest

from isospace.pipeline.fit.choose import CandidateResult, _decide, _tried
from isospace.pipeline.fit.trial import Trial, rank
from isospace.transform.spec import FitSpec

NONE, CENTER = FitSpec(), FitSpec(kind="center")


def tried(p: float | None, gain: float | None) -> list[CandidateResult]:
    plain = CandidateResult("none", 0.5, 0.5, 0.0, (0.0, 0.0), 1.0)
    return [plain, CandidateResult("center", 0.6, 0.6, gain, (0.0, 0.1), p)]


@pytest.mark.parametrize(
    ("p", "gain", "chosen"),
    [
        (0.0499, 0.1, CENTER),
        (0.05, 0.1, NONE),
        (0.0501, 0.1, NONE),
        (float("nan"), 0.1, NONE),
        (0.01, 0.0, NONE),
        (0.01, -0.1, NONE),
        (0.01, 1e-6, CENTER),
        (None, None, NONE),
    ],
)
def test_a_candidate_has_to_gain_with_a_p_below_the_level(p: float | None, gain: float | None, chosen: FitSpec) -> None:
    assert _decide([NONE, CENTER], tried(p, gain), 1, 0.05)[0] == chosen
    assert _decide([NONE, CENTER], tried(p, gain), 0, 0.05)[0] == NONE


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_gain_and_p_are_those_of_the_half_that_was_held_out(sign: float) -> None:
    first = np.arange(80) % 2 == 0
    plain = np.full(80, 0.5)
    values = np.where(first, 0.9, 0.5 + sign * np.linspace(0.1, 0.3, 80))
    found = _tried(CENTER, values, plain, first)
    assert found.choosing == pytest.approx(0.9)
    assert found.held_back == pytest.approx(values[~first].mean())
    assert found.gain == pytest.approx(values[~first].mean() - 0.5)
    assert found.p is not None
    assert (found.p < 0.01) == (sign > 0)
    assert found.interval is not None
    assert (found.interval[0] > 0) == (sign > 0)


@pytest.mark.parametrize(("depth", "count"), [(1, 2), (2, 2), (3, 5), (4, 5), (5, 5), (6, 6)])
def test_documents_that_tie_with_the_last_are_all_ranked(depth: int, count: int) -> None:
    """Two documents of score 2, three of score 1, and one of score 0."""
    documents = np.array([[2.0], [2.0], [1.0], [1.0], [1.0], [0.0]], np.float32)
    found = Trial(documents, tuple("abcdef"), np.ones((1, 1), np.float32), ("q",), {"q": {"a": 1}})
    best = rank(found, found.documents, found.queries, depth=depth)["q"]
    assert list(best) == list("abcdef"[:count])
