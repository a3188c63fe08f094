from __future__ import annotations

import time

import pytest

from isospace.pipeline.executor import Reporter, Stage
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.timings import TimedExecutor


def work(_reporter: Reporter, seconds: float) -> float:
    time.sleep(seconds)
    if seconds > 0.04:
        raise ValueError("too long")
    return seconds


def test_the_wall_time_of_a_stage_is_added_up_however_it_is_run() -> None:
    timed = TimedExecutor(LocalExecutor())
    assert timed.run(Stage("one", work), 0.02) == 0.02
    assert timed.run(Stage("one", work), 0.02) == 0.02
    assert timed.map(Stage("many", work), [(0.02,), (0.01,)]) == [0.02, 0.01]
    assert timed.map(Stage("none", work), []) == []
    assert list(timed.stream(Stage("stream", work), [(0.02,)], limit=1)) == [0.02]
    assert list(timed.seconds) == ["one", "many", "stream"]
    assert timed.seconds["one"] >= 0.04
    assert 0.02 <= timed.seconds["many"] < 0.5
    assert timed.seconds["stream"] >= 0.02


def test_a_stage_that_fails_took_time_all_the_same() -> None:
    timed = TimedExecutor(LocalExecutor())
    with pytest.raises(ValueError, match="too long"):
        timed.run(Stage("one", work), 0.05)
    assert timed.seconds["one"] >= 0.05
