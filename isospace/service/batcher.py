"""Batch concurrent requests fairly: small ones do not wait for all of a large one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
Run = Callable[[Any, list[Any]], Sequence[Any]]


@dataclass(eq=False, slots=True)
class _Job(Generic[_Key]):
    key: _Key
    items: list[Any]
    done: asyncio.Future[list[Any]]
    taken: int = 0
    results: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Piece(Generic[_Key]):
    """Some items of one request."""

    job: _Job[_Key]
    items: list[Any]


class Batcher(Generic[_Key]):
    """Run batches of items from concurrent requests in one thread.

    Parameters
    ----------
    name
        Name of the thread.
    run
        Called in the thread with a key and the items of all requests with that key; returns one result per item.
    cost
        Cost of one item under its key.
    most
        Maximum cost of a batch: every waiting request gets an equal share of it, but at least one item.
    seconds
        How long the first request of a batch waits for others.
    on_batch
        Called with the number of items of each batch.
    """

    def __init__(
        self,
        name: str,
        run: Run,
        *,
        most: float,
        seconds: float,
        cost: Callable[[Any, Any], float] = lambda _, __: 1.0,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.run, self.most, self.seconds, self.cost, self.on_batch = run, most, seconds, cost, on_batch
        self._waiting: list[_Job[_Key]] = []
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"isospace-{name}")
        self._loop: asyncio.Task[None] | None = None

    async def __call__(self, key: _Key, items: Sequence[Any]) -> list[Any]:
        """Return the result of each item; errors that `run` raises for these items are raised here."""
        if not items:
            return []
        if self._loop is None:
            self._loop = asyncio.create_task(self._work())
        job = _Job(key, list(items), asyncio.get_running_loop().create_future())
        self._waiting.append(job)
        self._arrived.set()
        return await job.done

    async def close(self) -> None:
        """Stop, after the batch in progress has finished: the process must not exit while it runs."""
        if self._loop is not None:
            self._loop.cancel()
        await asyncio.to_thread(self._thread.shutdown, wait=True, cancel_futures=True)

    async def _work(self) -> None:
        while True:
            await self._arrived.wait()
            if self.seconds:
                await asyncio.sleep(self.seconds)
            groups: dict[_Key, list[_Piece[_Key]]] = {}
            for piece in self._pieces():
                groups.setdefault(piece.job.key, []).append(piece)
            for key, pieces in groups.items():
                await self._compute(key, pieces)
            if not self._waiting:
                self._arrived.clear()

    def _pieces(self) -> list[_Piece[_Key]]:
        """Take a share of every waiting request, except those whose client has given up."""
        self._waiting = [job for job in self._waiting if not job.done.done()]
        share = self.most / max(len(self._waiting), 1)
        pieces = [_Piece(job, self._share(job, share)) for job in self._waiting]
        self._waiting = [job for job in self._waiting if job.taken < len(job.items)]
        return pieces

    def _share(self, job: _Job[_Key], budget: float) -> list[Any]:
        first, spent = job.taken, 0.0
        while job.taken < len(job.items):
            spent += self.cost(job.key, job.items[job.taken])
            if spent > budget and job.taken > first:
                break
            job.taken += 1
        return job.items[first : job.taken]

    async def _compute(self, key: _Key, pieces: list[_Piece[_Key]]) -> None:
        items = [item for piece in pieces for item in piece.items]
        self.on_batch(len(items))
        try:
            results = await asyncio.get_running_loop().run_in_executor(self._thread, self.run, key, items)
        except Exception as error:
            if len(pieces) > 1:
                # One of the requests is at fault: compute each alone, so that only that one fails.
                for piece in pieces:
                    await self._compute(key, [piece])
            elif not pieces[0].job.done.done():
                pieces[0].job.done.set_exception(error)
            return
        first = 0
        for piece in pieces:
            _add(piece.job, list(results[first : first + len(piece.items)]))
            first += len(piece.items)


def _add(job: _Job[Any], results: list[Any]) -> None:
    job.results += results
    if len(job.results) == len(job.items) and not job.done.done():
        job.done.set_result(job.results)
