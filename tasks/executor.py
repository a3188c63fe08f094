"""Run stages as Prefect tasks, so that the UI shows names, retries, tags, artifacts, and mapped items."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast
from uuid import UUID

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.runtime import flow_run

from isospace.pipeline.executor import PARALLEL, P, Reporter, Stage, T
from tasks.addresses import run_address
from tasks.errors import attempts_left, failing_in_one_line, retry_condition, unsuccessful, unwrap
from tasks.lanes import ALONE, Lanes
from tasks.reporter import PrefectReporter
from tasks.startup import started


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

    def map(self, stage: Stage[Any, T], items: Sequence[tuple[Any, ...]], *, limit: int = PARALLEL) -> list[T]:
        """Run a stage on items, at most `limit` at a time; return the results in the order of the items.

        The first items have a task run each, and later task runs work off several (see `tasks.lanes`).
        """
        found: dict[int, T] = {}
        for number, result in self._lanes(stage, limit).numbered(items):
            found[number] = result
            # The task runs of fewer items show it.
            if len(items) > ALONE:
                self._reporter.progress(stage.name, len(found), len(items), f"{len(found):,} of {len(items):,}")
        return [found[number] for number in range(len(items))]

    def stream(self, stage: Stage[Any, T], items: Iterable[tuple[Any, ...]], *, limit: int) -> Iterator[T]:
        """Run a stage on items, at most `limit` at a time, in task runs as `map` does; yield results as they complete.

        Raises
        ------
        Pause
            If the run was suspended: finished items are kept, and the resumed run continues.
        """
        for _, result in self._lanes(stage, limit).numbered(items):
            yield result

    def _lanes(self, stage: Stage[Any, T], limit: int) -> Lanes[T]:
        def work(item: tuple[Any, ...]) -> T:
            return _perform(stage, self._reporter, item, {})

        return Lanes(stage, work, limit=limit, on_wait=_stop_if_suspended)


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
        result = _perform(stage, reporter, arguments, keywords)
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


def _perform(stage: Stage[Any, T], reporter: Reporter, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> T:
    """Run a stage in the current task run, and log what it is about to do."""
    reporter.begin(stage.name, None)
    try:
        if stage.opening is not None:
            reporter.info(stage.opening(*arguments, **keywords))
        return stage.work(reporter, *arguments, **keywords)
    finally:
        reporter.end(stage.name)


def _stop_if_suspended() -> None:
    """Raise Pause if this run was suspended: Prefect itself does not stop a run that is suspended from outside."""
    if flow_run.id is None:
        return
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.id))).state
    if state is not None and state.is_paused():
        raise Pause("the run was suspended", state=state)
