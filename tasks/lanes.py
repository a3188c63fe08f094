"""Task runs that work off many items of a stage, so that a large run makes a few hundred of them.

The first items have a task run each, so that a small run shows each of them. Later task runs take the more items the
more there were before them: their number grows with the logarithm of the items.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, Generic

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from isospace.pipeline.executor import NOT_YET, Stage, T
from tasks.errors import failing_in_one_line, retry_condition

# 30,000 items make some 140 task runs.
_SHARE = 16
ALONE = 2 * _SHARE
"""Items that have a task run each."""
_ASKING_SECONDS = 5.0
_END: Any = object()
_Numbered = tuple[int, tuple[Any, ...]]
# The number of an item, its result, and whether its task run takes another one.
_Result = tuple[int, T, bool]


def task_runs(items: int) -> int:
    """Return the number of task runs that work off so many items one after another; items in parallel need as many."""
    runs, taken = 0, 0
    while taken < items:
        runs, taken = runs + 1, taken + _share(taken + 1)
    return runs


def _share(taken: int) -> int:
    """Return how many items a task run takes whose first item is the one with this number."""
    return max(1, (taken - 1) // _SHARE)


class Lane:
    """The items of one task run, one after another; an attempt after a failure begins with the item that failed.

    It is no dataclass: Prefect would look for futures in each of its items.
    """

    def __init__(self, first: _Numbered, most: int, waiting: queue.SimpleQueue[Any]) -> None:
        self.current: _Numbered | None = first
        self.left = most
        self.failures = 0
        self._waiting = waiting

    def items(self) -> Iterator[_Numbered]:
        """Yield items until there are no more, or as many as a task run takes were finished."""
        while self.left:
            if self.current is None:
                found = self._waiting.get()
                if found is _END:
                    return
                self.current = found
            yield self.current

    def finish(self) -> bool:
        """Note that the current item is finished; return whether the task run takes another one."""
        self.current, self.failures, self.left = None, 0, self.left - 1
        return self.left > 0


class Lanes(Generic[T]):
    """Works off items of a stage in task runs.

    Parameters
    ----------
    work
        Runs the stage on one item.
    limit
        How many items are in progress at the same time.
    on_wait
        Called every few seconds; an exception that it raises ends the stage.
    """

    def __init__(
        self, stage: Stage[Any, T], work: Callable[[tuple[Any, ...]], T], *, limit: int, on_wait: Callable[[], None]
    ) -> None:
        self._stage, self._work, self._limit, self._on_wait = stage, work, limit, on_wait
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[_Result[T] | Future[Any]] = queue.SimpleQueue()
        self._task_runs: dict[Future[Any], Any] = {}
        self._stopped = threading.Event()
        # Items that were taken, and task runs that wait for another one.
        self._taken, self._free = 0, 0
        self._asked = time.monotonic()

    def numbered(self, items: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, T]]:
        """Yield results with the numbers of their items, as they complete; raise the first failure."""
        coming, running = enumerate(items), 0
        with ThreadPoolTaskRunner[Any](max_workers=self._limit) as runner:
            try:
                while True:
                    is_coming = False
                    while running < self._limit and not is_coming and (item := next(coming, None)) is not None:
                        is_coming = item[1] == NOT_YET
                        if not is_coming:
                            self._begin(runner, item)
                            running += 1
                    if not running and not is_coming:
                        break
                    if (result := self._next(is_patient=not is_coming)) is not None:
                        yield result
                        running -= 1
            finally:
                self._stopped.set()
                for _ in self._task_runs:
                    self._waiting.put(_END)
            # Those that waited for another item.
            for task_run in list(self._task_runs.values()):
                task_run.result()

    def _begin(self, runner: ThreadPoolTaskRunner[Any], item: _Numbered) -> None:
        """Give an item to a task run that is free, or start another one."""
        self._taken += 1
        if self._free:
            self._free -= 1
            self._waiting.put(item)
            return
        task_run = runner.submit(self._task(Lane(item, _share(self._taken), self._waiting)), {})
        self._task_runs[task_run.wrapped_future] = task_run
        task_run.wrapped_future.add_done_callback(self._finished.put)

    def _next(self, *, is_patient: bool) -> tuple[int, T] | None:
        """Wait for the next result; return None instead if there is none yet, and nobody is patient."""
        while True:
            if time.monotonic() - self._asked > _ASKING_SECONDS:
                self._asked = time.monotonic()
                self._on_wait()
            try:
                found = self._finished.get(block=is_patient, timeout=_ASKING_SECONDS)
            except queue.Empty:
                if not is_patient:
                    return None
                continue
            if isinstance(found, Future):
                # A task run has ended: this raises what made it fail.
                self._task_runs.pop(found).result()
                continue
            number, result, is_free = found
            self._free += is_free
            return number, result

    def _task(self, lane: Lane) -> Task[Any, Any]:
        """Return a task that works off a lane."""
        stage, most = self._stage, lane.left

        def will_retry(error: BaseException) -> bool:
            # Once the stage has failed, nothing is retried.
            return stage.retry.when(error) and lane.failures <= stage.retry.times and not self._stopped.is_set()

        def work() -> None:
            for number, item in lane.items():
                if self._stopped.is_set():
                    return
                try:
                    result = self._work(item)
                except Exception:
                    lane.failures += 1
                    raise
                self._finished.put((number, result, lane.finish()))

        name = _name(stage, lane)
        return task(
            name=stage.name,
            description=stage.work.__doc__,
            tags=stage.tags,
            cache_policy=NO_CACHE,
            task_run_name=lambda: name,
            # The condition counts those of each item.
            retries=stage.retry.times * most,
            retry_delay_seconds=list(stage.retry.delays) or 0,
            retry_condition_fn=retry_condition(will_retry) if stage.retry.times else None,
        )(failing_in_one_line(work, retried=will_retry))


def _name(stage: Stage[Any, Any], lane: Lane) -> str:
    assert lane.current is not None
    name = stage.name if stage.label is None else stage.label(*lane.current[1])
    return name if lane.left == 1 else f"{name} and up to {lane.left - 1:,} more"
