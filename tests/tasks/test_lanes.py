from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prefect import flow
from prefect.exceptions import Pause

import tasks.lanes as lanes
from isospace.errors import ConfigError, StoreError
from isospace.pipeline.executor import NOT_YET, Reporter, Retry, Stage, is_store_failure
from tasks.executor import PrefectExecutor
from tasks.lanes import Lanes

pytestmark = pytest.mark.usefixtures("prefect_server")

RETRY = Retry(2, (0.0,), is_store_failure)


def task_runs() -> int:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    # Those of the last flow run; they reach the server a moment later.
    with get_client(sync_client=True) as client:
        last = client.read_flow_runs(sort="EXPECTED_START_TIME_DESC", limit=1)[0]  # type: ignore[arg-type]
        before = -1
        for _ in range(50):
            of_it = FlowRunFilter(id=FlowRunFilterId(any_=[last.id]))
            count = len(client.read_task_runs(flow_run_filter=of_it, limit=200))
            if count and count == before:
                return count
            before = count
            time.sleep(0.3)
    raise AssertionError("the task runs do not come to an end")


def in_a_flow(work: Callable[[PrefectExecutor], Any]) -> Any:
    @flow
    def run() -> Any:
        return work(PrefectExecutor())

    return run()


def test_a_small_run_has_a_task_run_for_each_item_and_a_large_one_few() -> None:
    stage = Stage("double", lambda reporter, number: 2 * number)

    def work(executor: PrefectExecutor) -> list[int]:
        return executor.map(stage, [(number,) for number in range(30)], limit=3)

    assert in_a_flow(work) == [2 * number for number in range(30)]
    assert task_runs() == 30

    def more(executor: PrefectExecutor) -> list[int]:
        return sorted(executor.stream(stage, ((number,) for number in range(2_000)), limit=3))

    assert in_a_flow(more) == [2 * number for number in range(2_000)]
    assert 50 < task_runs() < 130


def test_a_run_of_ten_million_chunks_has_few_task_runs() -> None:
    # Parts are chunked, transformed, and checked; a shard has 328 chunks by default.
    parts, shards, others = 1_250, 30_500, 60
    assert [lanes.task_runs(items) for items in (0, 1, 32, 33)] == [0, 1, 32, 33]
    assert lanes.task_runs(2_000) < 110
    assert 3 * lanes.task_runs(parts) + lanes.task_runs(shards) + others < 1_000


def test_a_task_run_repeats_only_the_item_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_SHARE", 1)
    attempts: Counter[int] = Counter()

    def work(reporter: Reporter, number: int) -> int:
        attempts[number] += 1
        # Two failures of one item, and one of another in the same task run: each item may fail twice.
        if attempts[number] <= {5: 2, 6: 1}.get(number, 0):
            raise StoreError("slow")
        return number

    stage = Stage("flaky", work, RETRY)
    assert in_a_flow(lambda executor: executor.map(stage, [(n,) for n in range(20)], limit=1)) == list(range(20))
    assert {number: count for number, count in attempts.items() if count > 1} == {5: 3, 6: 2}


def test_an_item_that_fails_too_often_ends_the_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_SHARE", 1)
    attempts: Counter[int] = Counter()

    def work(reporter: Reporter, number: int) -> int:
        attempts[number] += 1
        if number == 5:
            raise StoreError("the disk is gone")
        return number

    with pytest.raises(StoreError, match="the disk is gone"):
        in_a_flow(lambda executor: executor.map(Stage("flaky", work, RETRY), [(n,) for n in range(20)], limit=1))
    assert attempts[5] == 3
    assert not any(attempts[number] for number in range(6, 20))


def test_nothing_is_retried_or_begun_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_SHARE", 1)
    attempts: Counter[int] = Counter()
    failed = threading.Event()

    def work(reporter: Reporter, number: int) -> int:
        attempts[number] += 1
        if number == 1:
            failed.set()
            raise ConfigError("wrong key")
        assert failed.wait(60)
        time.sleep(0.5)
        raise StoreError("slow")

    stage = Stage("flaky", work, Retry(50, (30.0,), is_store_failure))
    started = time.monotonic()
    with pytest.raises(ConfigError, match="wrong key"):
        in_a_flow(lambda executor: list(executor.stream(stage, ((n,) for n in range(9)), limit=2)))
    assert time.monotonic() - started < 25
    assert attempts == {0: 1, 1: 1}


def test_items_are_taken_only_when_there_is_room_and_as_long_as_there_are_some() -> None:
    finished: list[int] = []
    taken: list[int] = []

    def items() -> Iterator[tuple[int]]:
        for number in range(100):
            if len(finished) >= 40:
                return
            taken.append(number)
            yield (number,)

    def work(executor: PrefectExecutor) -> None:
        for number in executor.stream(Stage("encode", lambda reporter, number: number), items(), limit=3):
            finished.append(number)
            assert len(taken) <= len(finished) + 3

    in_a_flow(work)
    assert sorted(finished) == taken
    assert 40 <= len(finished) <= 43


def test_results_are_yielded_while_the_next_item_is_not_there_yet() -> None:
    finished: list[int] = []

    def items() -> Iterator[tuple[Any, ...]]:
        for number in range(40):
            yield (number,)
            for _ in range(500):
                if len(finished) > number:
                    break
                time.sleep(0.01)
                yield NOT_YET
            else:
                raise AssertionError("a result is held back until the next item comes")

    def work(executor: PrefectExecutor) -> None:
        for number in executor.stream(Stage("encode", lambda reporter, number: number), items(), limit=3):
            finished.append(number)

    in_a_flow(work)
    assert finished == list(range(40))


def test_a_suspended_run_stops_although_no_item_is_finished(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_ASKING_SECONDS", 0.1)
    begun = threading.Event()
    stage: Stage[Any, int] = Stage("encode", lambda reporter, number: begun.set() or time.sleep(1.0) or number)  # type: ignore[func-returns-value]

    def suspended() -> None:
        if begun.is_set():
            raise Pause("the run was suspended")

    def work(executor: PrefectExecutor) -> None:
        working = Lanes(stage, lambda item: stage.work(executor.reporter, *item), limit=1, on_wait=suspended)
        with pytest.raises(Pause):
            list(working.numbered((n,) for n in range(50)))

    started = time.monotonic()
    in_a_flow(work)
    assert time.monotonic() - started < 20
