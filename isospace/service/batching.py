"""Concurrent requests put together: while one batch is computed, the next gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
Run = Callable[[Any, list[Any]], Sequence[Any]]


@dataclass(slots=True)
class _Job(Generic[_Key]):
    key: _Key
    items: list[Any]
    done: asyncio.Future[list[Any]]


class Batcher(Generic[_Key]):
    """One thread of work, fed in batches.

    Parameters
    ----------
    name
        For threads and figures.
    run
        Called with a key and the items of all requests that have it, in the thread; returns a result an item.
    most
        Items put together; one request may hold more.
    seconds
        How long the first request of a batch waits for others.
    observed
        Told the size of each batch.
    """

    def __init__(
        self, name: str, run: Run, *, most: int, seconds: float, observed: Callable[[int], None] = lambda _: None
    ) -> None:
        self.run, self.most, self.seconds, self.observed = run, most, seconds, observed
        self._queue: asyncio.Queue[_Job[_Key]] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"isospace-{name}")
        self._loop: asyncio.Task[None] | None = None

    async def __call__(self, key: _Key, items: Sequence[Any]) -> list[Any]:
        """Return the result of each item; whatever `run` raises for these items alone is raised here."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._work())
        job = _Job(key, list(items), asyncio.get_running_loop().create_future())
        await self._queue.put(job)
        return await job.done

    async def close(self) -> None:
        """End the thread once it has nothing to do."""
        if self._loop is not None:
            self._loop.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            jobs = await self._gather()
            groups: dict[_Key, list[_Job[_Key]]] = {}
            for job in jobs:
                # Whoever gave up in the meantime costs nothing more.
                if not job.done.done():
                    groups.setdefault(job.key, []).append(job)
            for key, group in groups.items():
                await self._compute(key, group)

    async def _gather(self) -> list[_Job[_Key]]:
        jobs = [await self._queue.get()]
        waiting = asyncio.get_running_loop().time() + self.seconds
        while sum(len(job.items) for job in jobs) < self.most:
            left = waiting - asyncio.get_running_loop().time()
            try:
                jobs.append(self._queue.get_nowait() if left <= 0 else await asyncio.wait_for(self._queue.get(), left))
            except (TimeoutError, asyncio.QueueEmpty):
                break
        return jobs

    async def _compute(self, key: _Key, jobs: list[_Job[_Key]]) -> None:
        items = [item for job in jobs for item in job.items]
        self.observed(len(items))
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self.run, key, items)
        except Exception as error:
            if len(jobs) > 1:
                # One of them is at fault: each alone, so that it is the only one to fail.
                for job in jobs:
                    await self._compute(key, [job])
            elif not jobs[0].done.done():
                jobs[0].done.set_exception(error)
            return
        first = 0
        for job in jobs:
            if not job.done.done():
                job.done.set_result(list(results[first : first + len(job.items)]))
            first += len(job.items)
