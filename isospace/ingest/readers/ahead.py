"""Run steps in threads before their turn, and give what they return in their order.

What is in flight is bounded. A step that takes long holds back no other, until the bound is reached.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

# Enough to go on for a minute while one file takes that long to parse, unless the files are large.
MOST_STEPS, MOST_SIZE = 2_000, 64_000_000


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """A step that gives some items.

    Attributes
    ----------
    run
        Gives the items.
    is_ahead
        Whether a thread runs it before its turn; otherwise the consumer runs it, item by item.
    size
        About how many bytes it takes while it waits.
    """

    run: Callable[[], Iterable[T]]
    is_ahead: bool = False
    size: int = 0


def in_order(
    steps: Iterable[Step[T]],
    *,
    threads: int,
    size_of: Callable[[T], int],
    on_end: Callable[[], None] = lambda: None,
    most_steps: int = MOST_STEPS,
    most_size: int = MOST_SIZE,
) -> Generator[T, None, None]:
    """Yield the items of steps in order; what a step raises is raised in its turn.

    Parameters
    ----------
    threads
        How many steps are run at a time; threads are started when a step needs them.
    size_of
        Returns about how many bytes an item takes while it waits.
    on_end
        Ends what the threads wait for; called once, before they are waited for, also after an error or an interruption.
    most_steps, most_size
        How many steps and bytes may be in flight. Each thread may exceed the bytes by what one step gives.
    """
    held = _Held(most_size)
    flight: deque[tuple[int, Step[T], Future[list[T]] | None]] = deque()
    numbered = enumerate(steps)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="isospace-read")
    try:
        while True:
            while len(flight) < most_steps and (not flight or held.has_room()):
                if (entry := next(numbered, None)) is None:
                    break
                number, step = entry
                held.add(step.size)
                flight.append((number, step, pool.submit(_run, number, step, size_of, held) if step.is_ahead else None))
            if not flight:
                return
            number, step, future = flight.popleft()
            held.begin(number)
            yield from step.run() if future is None else future.result()
            held.add(-step.size)
            if future is not None:
                held.add(-sum(map(size_of, future.result())))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        held.end()
        on_end()
        pool.shutdown()


class _Held:
    """Counts the bytes in flight; holds back the threads that exceed them, but never the step whose turn it is."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._size = 0
        self._turn = 0
        self._is_ended = False

    def has_room(self) -> bool:
        with self._changed:
            return self._size < self._most

    def add(self, size: int) -> None:
        with self._changed:
            self._size += size
            self._changed.notify_all()

    def begin(self, number: int) -> None:
        """Note whose turn it is."""
        with self._changed:
            self._turn = number
            self._changed.notify_all()

    def wait(self, number: int) -> None:
        """Wait for room, or the turn of a step."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._most or self._turn >= number or self._is_ended)

    def end(self) -> None:
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()


def _run(number: int, step: Step[T], size_of: Callable[[T], int], held: _Held) -> list[T]:
    items = list(step.run())
    # The items of the step whose turn it is are taken at once. Steps are begun in order, so it is never left waiting.
    held.add(sum(map(size_of, items)))
    held.wait(number)
    return items
