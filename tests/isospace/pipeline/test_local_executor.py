from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from isospace.errors import ConfigError, StoreError, WorkerError
from isospace.pipeline.executor import (
    NOT_YET,
    ON_LOST_WORKER,
    ON_STORE_FAILURE,
    ON_TRANSIENT_FAILURE,
    Reporter,
    Retry,
    Stage,
    is_store_failure,
)
from isospace.pipeline.local_executor import LocalExecutor, LogReporter


class Recorder(LogReporter):
    """Keeps what an executor reports."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def begin(self, stage: str, total: int | None) -> None:
        self.seen.append(("begin", stage, total))

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        self.seen.append(("progress", stage, done, total))

    def end(self, stage: str) -> None:
        self.seen.append(("end", stage))

    def warning(self, message: str) -> None:
        self.seen.append(("warning", message))


def failing(errors: list[Exception]) -> Any:
    def work(reporter: Reporter, value: int) -> int:
        if errors:
            raise errors.pop(0)
        return value

    return work


def without_delay(retry: Retry) -> Retry:
    return Retry(retry.times, (0.0,), retry.when)


def test_a_stage_is_run_and_reported() -> None:
    reporter = Recorder()
    stage = Stage("double", lambda reporter, value: 2 * value)
    assert LocalExecutor(reporter).run(stage, 21) == 42
    assert reporter.seen == [("begin", "double", None), ("end", "double")]


@pytest.mark.parametrize(
    ("retry", "error", "is_retried"),
    [
        (ON_STORE_FAILURE, StoreError("slow"), True),
        (ON_STORE_FAILURE, WorkerError("gone"), False),
        (ON_LOST_WORKER, WorkerError("gone"), True),
        (ON_LOST_WORKER, StoreError("slow"), False),
        (ON_TRANSIENT_FAILURE, StoreError("slow"), True),
        (ON_TRANSIENT_FAILURE, WorkerError("gone"), True),
        (ON_TRANSIENT_FAILURE, OSError("no route"), True),
        (ON_TRANSIENT_FAILURE, ConfigError("wrong key"), False),
    ],
)
def test_only_what_another_attempt_can_help_is_retried(retry: Retry, error: Exception, is_retried: bool) -> None:
    reporter = Recorder()
    stage = Stage("work", failing([error]), without_delay(retry))
    if is_retried:
        assert LocalExecutor(reporter).run(stage, 7) == 7
        assert [entry[0] for entry in reporter.seen] == ["begin", "warning", "end"]
    else:
        with pytest.raises(type(error)):
            LocalExecutor(reporter).run(stage, 7)
        assert reporter.seen[-1] == ("end", "work")


def test_retries_end() -> None:
    errors: list[Exception] = [StoreError(str(number)) for number in range(4)]
    stage = Stage("work", failing(errors), Retry(2, (0.0,), is_store_failure))
    with pytest.raises(StoreError, match="2"):
        LocalExecutor(Recorder()).run(stage, 1)
    assert len(errors) == 1
    assert LocalExecutor(Recorder()).run(Stage("work", failing(errors), stage.retry).retried(1), 1) == 1


def test_mapped_items_keep_their_order_and_are_counted() -> None:
    reporter = Recorder()

    def work(reporter: Reporter, value: int) -> int:
        time.sleep(0.02 * (3 - value))
        return value

    assert LocalExecutor(reporter).map(Stage("chunk", work), [(n,) for n in range(4)]) == [0, 1, 2, 3]
    assert reporter.seen[0] == ("begin", "chunk", 4)
    assert [entry[2] for entry in reporter.seen if entry[0] == "progress"] == [1, 2, 3, 4]
    assert LocalExecutor(reporter).map(Stage("chunk", work), []) == []


def test_a_failed_item_ends_the_stage_and_later_items_do_not_start() -> None:
    started = []

    def work(reporter: Reporter, value: int) -> int:
        started.append(value)
        if value == 0:
            raise ConfigError("bad part")
        time.sleep(0.05)
        return value

    with pytest.raises(ConfigError, match="bad part"):
        LocalExecutor(Recorder()).map(Stage("chunk", work), [(n,) for n in range(50)])
    assert len(started) < 10


def test_a_stream_takes_items_only_when_there_is_room() -> None:
    lock, running, most = threading.Lock(), 0, 0
    taken: list[int] = []

    def work(reporter: Reporter, value: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.01)
        with lock:
            running -= 1
        return value

    def items() -> Iterator[tuple[int]]:
        for value in range(30):
            taken.append(value)
            yield (value,)

    results = []
    for result in LocalExecutor(Recorder()).stream(Stage("encode", work), items(), limit=3):
        results.append(result)
        # At most three are under way beyond those that were returned.
        assert len(taken) <= len(results) + 3
    assert sorted(results) == list(range(30))
    assert most <= 3


def test_results_are_yielded_while_the_next_item_is_not_there_yet() -> None:
    results: list[int] = []

    def items() -> Iterator[tuple[Any, ...]]:
        yield (1,)
        for _ in range(500):
            if results:
                break
            time.sleep(0.01)
            yield NOT_YET
        else:
            raise AssertionError("the first result is held back until the next item comes")
        yield (2,)

    for result in LocalExecutor(Recorder()).stream(Stage("encode", lambda reporter, n: n), items(), limit=3):
        results.append(result)
    assert results == [1, 2]


def test_a_failure_ends_a_stream_while_the_next_item_is_not_there_yet() -> None:
    def items() -> Iterator[tuple[Any, ...]]:
        yield (0,)
        for _ in range(500):
            time.sleep(0.01)
            yield NOT_YET

    with pytest.raises(ZeroDivisionError):
        list(LocalExecutor(Recorder()).stream(Stage("encode", lambda reporter, n: 1 // n), items(), limit=3))


def test_a_stream_stops_where_its_items_do() -> None:
    spent = 0

    def affordable() -> Iterator[tuple[int]]:
        for value in range(100):
            if spent >= 5:
                return
            yield (value,)

    for _ in LocalExecutor(Recorder()).stream(Stage("encode", lambda reporter, n: n), affordable(), limit=2):
        spent += 1
    # Those that were under way when the budget was spent are finished.
    assert 5 <= spent <= 7


@pytest.mark.parametrize("mapped", [False, True])
def test_nothing_is_retried_after_the_first_failure(mapped: bool) -> None:
    attempts = []

    def work(reporter: Reporter, value: int) -> int:
        attempts.append(value)
        if value == 0:
            time.sleep(0.1)
            raise ConfigError("wrong key")
        raise StoreError("slow")

    stage = Stage("encode", work, Retry(50, (30.0,), is_store_failure))
    executor, items = LocalExecutor(Recorder()), [(0,), (1,)]
    started = time.monotonic()
    with pytest.raises(ConfigError, match="wrong key"):
        executor.map(stage, items) if mapped else list(executor.stream(stage, items, limit=2))
    # The other item waits thirty seconds for its next attempt: the failure ends the wait.
    assert time.monotonic() - started < 20
    assert sorted(attempts) == [0, 1]
