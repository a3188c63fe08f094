from __future__ import annotations

import threading
import time

from isospace.pipeline.heartbeat import SILENCE_SECONDS, Heartbeat, working


def test_no_silence_is_longer_than_three_seconds() -> None:
    assert SILENCE_SECONDS <= 3.0


def test_the_lines_of_a_stage_that_runs_for_a_day_become_rare() -> None:
    assert Heartbeat().silence(600.0) == SILENCE_SECONDS
    assert Heartbeat().silence(86_400.0) == 144.0


def spoken(seconds: float) -> tuple[Heartbeat, list[str], threading.Event]:
    lines: list[str] = []
    first = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        first.set()

    return Heartbeat(say, seconds), lines, first


def test_a_stage_that_takes_long_is_named_again_and_again() -> None:
    heartbeat, lines, first = spoken(0.02)
    heartbeat.begin("fit space")
    assert first.wait(10)
    heartbeat.detail("fit space", "3 of 7 candidates")
    first.clear()
    assert first.wait(10)
    heartbeat.end("fit space")
    assert lines[0].startswith("fit space: running for ")
    assert lines[-1].startswith("fit space: 3 of 7 candidates")


def test_progress_that_is_old_is_said_with_its_age() -> None:
    heartbeat, lines, _ = spoken(0.01)
    heartbeat.begin("encode")
    heartbeat.detail("encode", "339 of 475 texts, 21 s left")
    deadline = time.monotonic() + 10.0
    while not any(line.endswith(" s ago)") for line in lines) and time.monotonic() < deadline:
        time.sleep(0.01)
    heartbeat.end("encode")
    assert lines[-1] == "encode: 339 of 475 texts, 21 s left (0 s ago)"


def test_nothing_is_said_while_something_else_is_or_after_the_end() -> None:
    heartbeat, lines, _ = spoken(0.2)
    heartbeat.begin("scan")
    for _ in range(6):
        time.sleep(0.05)
        heartbeat.spoke()
    heartbeat.end("scan")
    time.sleep(0.3)
    assert lines == []


def test_a_closed_terminal_does_not_stop_the_work() -> None:
    tried = threading.Event()

    def broken(line: str) -> None:
        tried.set()
        raise BrokenPipeError

    heartbeat = Heartbeat(broken, 0.01)
    heartbeat.begin("scan")
    assert tried.wait(10)
    tried.clear()
    assert tried.wait(10)
    heartbeat.end("scan")


def test_a_block_is_covered_whether_it_ends_well_or_not() -> None:
    try:
        with working("audit"):
            raise ValueError
    except ValueError:
        pass
    for _ in range(100):
        if not any(thread.name == "heartbeat" for thread in threading.enumerate()):
            break
        time.sleep(0.05)
    assert not any(thread.name == "heartbeat" and thread.is_alive() for thread in threading.enumerate())
