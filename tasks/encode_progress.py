"""Shards on their way: as many as there are workers, until all are done, the budget is spent, or somebody suspends the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field
from typing import Any, cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import Pause
from prefect.runtime import flow_run
from prefect.task_runners import ThreadPoolTaskRunner
from rich.console import Console
from rich.progress import Progress

from isospace.pipeline.encode.shards import Encoded, EncodePlan, Shard
from isospace.pipeline.selection import Budget

_ASKED_SECONDS = 5.0
_Submit = Callable[[ThreadPoolTaskRunner[Encoded], Shard], Any]


@dataclass(slots=True)
class _Spent:
    """What was encoded so far, as a person reads it."""

    planned: EncodePlan
    price: float | None
    workers: int
    started: float = field(default_factory=time.monotonic)
    texts: int = 0
    tokens: int = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def share(self) -> float:
        return self.tokens / max(self.planned.tokens, 1)

    def add(self, encoded: Encoded) -> None:
        self.texts += encoded.chunks
        self.tokens += encoded.tokens

    def describe(self) -> str:
        rate = self.tokens / max(self.seconds, 1e-9)
        left = (self.planned.tokens - self.tokens) / rate if rate else None
        told = [f"{self.texts:,} of {self.planned.to_encode:,} texts", f"{rate:,.0f} tokens/s"]
        told += [f"{_time(left)} left"] if left is not None else []
        if self.price is not None:
            told.append(f"{self.price * self.seconds / 3600.0 * self.workers:,.2f} spent")
        return ", ".join(told)


def encode_all(
    planned: EncodePlan, workers: int, submit: _Submit, budget: Budget, price: float | None
) -> list[Encoded]:
    """Have shards encoded; returns what was, which is not all of it where the budget was spent.

    Parameters
    ----------
    planned
        The shards.
    workers
        How many there are; one shard more is under way, read meanwhile.
    submit
        Hands a shard to a task.
    budget
        Where to stop; shards under way are finished.
    price
        Money for one hour of one worker's device.

    Raises
    ------
    Pause
        If the run was suspended: what is encoded stays, and the resumed run goes on.
    """
    if not planned.shards:
        return []
    spent = _Spent(planned, price, workers)
    artifact = cast("UUID", create_progress_artifact(progress=0.0, key="encoding", description=spent.describe()))
    console = Console(stderr=True)
    done: list[Encoded] = []
    with Progress(console=console, disable=not console.is_terminal) as bar, _runner(workers + 1) as runner:
        row = bar.add_task("encoding", total=planned.tokens)
        for encoded in _completed(
            runner, planned, workers + 1, submit, lambda: budget.is_spent(spent.tokens, spent.seconds)
        ):
            done.append(encoded)
            spent.add(encoded)
            bar.update(row, completed=spent.tokens, description=spent.describe())
            update_progress_artifact(artifact, progress=100.0 * spent.share, description=spent.describe())
    return done


def _runner(threads: int) -> ThreadPoolTaskRunner[Encoded]:
    return ThreadPoolTaskRunner[Encoded](max_workers=threads)


def _completed(
    runner: ThreadPoolTaskRunner[Encoded], planned: EncodePlan, most: int, submit: _Submit, is_spent: Callable[[], bool]
) -> Iterator[Encoded]:
    """Yield shards as they complete; raises what the first failed one raised."""
    waiting = iter(planned.shards)
    under_way: dict[Any, Any] = {}
    asked = time.monotonic()
    while True:
        while len(under_way) < most and not is_spent() and (shard := next(waiting, None)) is not None:
            future = submit(runner, shard)
            under_way[future.wrapped_future] = future
        if not under_way:
            return
        finished, _ = wait(under_way, return_when=FIRST_COMPLETED)
        for one in finished:
            yield under_way.pop(one).result()
        if time.monotonic() - asked > _ASKED_SECONDS:
            asked = time.monotonic()
            _stop_if_suspended()


def _stop_if_suspended() -> None:
    """Raise Pause if somebody suspended this run: Prefect itself does not stop one from outside."""
    if flow_run.id is None:
        return
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(str(flow_run.id))).state
    if state is not None and state.is_paused():
        raise Pause("the run was suspended", state=state)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
