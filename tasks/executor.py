"""Run stages as Prefect tasks, so that the UI shows names, retries, tags, artifacts, and mapped items."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Any, cast
from uuid import UUID

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner

from isospace.pipeline.executor import P, Reporter, Stage, T
from tasks.addresses import run_address
from tasks.errors import attempts_left, failing_in_one_line, retry_condition, unsuccessful, unwrap
from tasks.reporter import PrefectReporter
from tasks.startup import started

# Parts that are chunked or transformed at the same time; each is held in memory.
_MAPPED = 2
_SUSPENSION_SECONDS = 5.0


class PrefectExecutor:
    """Runs every stage as a task of the current flow run."""

    def __init__(self) -> None:
        started()
        self._reporter = PrefectReporter()

    @property
    def reporter(self) -> Reporter:
        """Logs of the flow run, and artifacts."""
        return self._reporter

    @property
    def address(self) -> str:
        """URL of the flow run in Prefect's UI; empty if the server is a temporary one."""
        return run_address()

    def run(self, stage: Stage[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a stage as a task and return its result."""
        return cast("T", unwrap(_named(stage, arguments)(self._reporter, arguments, keywords)))

    def map(self, stage: Stage[Any, T], items: Sequence[tuple[Any, ...]]) -> list[T]:
        """Run a stage in parallel, as a task per item; return the results in the order of the items."""
        if not items:
            return []
        with ThreadPoolTaskRunner[Any](max_workers=_MAPPED) as runner:
            futures = [self._submit(runner, stage, item) for item in items]
            return [future.result() for future in futures]

    def stream(self, stage: Stage[Any, T], items: Iterable[tuple[Any, ...]], *, limit: int) -> Iterator[T]:
        """Run a stage as a task per item, at most `limit` at a time; yield results as they complete.

        Raises
        ------
        Pause
            If the run was suspended: finished items are kept, and the resumed run continues.
        """
        waiting = iter(items)
        running: dict[Any, Any] = {}
        checked = time.monotonic()
        with ThreadPoolTaskRunner[Any](max_workers=limit) as runner:
            while True:
                while len(running) < limit and (item := next(waiting, None)) is not None:
                    future = self._submit(runner, stage, item)
                    running[future.wrapped_future] = future
                if not running:
                    return
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for wrapped in finished:
                    yield running.pop(wrapped).result()
                if time.monotonic() - checked > _SUSPENSION_SECONDS:
                    checked = time.monotonic()
                    _stop_if_suspended()

    def _submit(self, runner: ThreadPoolTaskRunner[Any], stage: Stage[Any, T], item: tuple[Any, ...]) -> Any:
        return runner.submit(_named(stage, item), {"reporter": self._reporter, "arguments": item, "keywords": {}})


def _named(stage: Stage[Any, T], arguments: tuple[Any, ...]) -> Task[Any, Any]:
    """Return a stage as a task, named after its arguments if it has a label."""
    name = stage.name if stage.label is None else stage.label(*arguments)
    return as_task(stage).with_options(task_run_name=lambda: name)


@functools.cache
def as_task(stage: Stage[Any, T]) -> Task[Any, Any]:
    """Return a stage as a Prefect task, which returns a result or a failed state (see `tasks.errors`).

    Prefect caches nothing, since it would not notice that an output is missing: stages look into the store instead.
    """

    def will_retry(error: BaseException) -> bool:
        return stage.retry.when(error) and attempts_left(stage.retry.times)

    def work(reporter: Reporter, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        reporter.begin(stage.name, None)
        try:
            if stage.opening is not None:
                reporter.info(stage.opening(*arguments, **keywords))
            result = stage.work(reporter, *arguments, **keywords)
        finally:
            reporter.end(stage.name)
        objection = stage.objection(result) if stage.objection is not None else None
        return result if objection is None else unsuccessful(result, objection)

    return task(
        name=stage.name,
        description=stage.work.__doc__,
        tags=stage.tags,
        cache_policy=NO_CACHE,
        retries=stage.retry.times,
        retry_delay_seconds=list(stage.retry.delays) or 0,
        retry_condition_fn=retry_condition(stage.retry.when) if stage.retry.times else None,
    )(failing_in_one_line(work, retried=will_retry))


def _stop_if_suspended() -> None:
    """Raise Pause if this run was suspended: Prefect itself does not stop a run that is suspended from outside."""
    if flow_run.id is None:
        return
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.id))).state
    if state is not None and state.is_paused():
        raise Pause("the run was suspended", state=state)
