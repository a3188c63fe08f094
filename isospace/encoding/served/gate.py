"""The queue in front of the provider: so many requests at a time as the search for the best number allows."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from isospace.encoding.served.concurrency import Concurrency


@dataclass
class Gate:
    """Counts requests in flight, and those that wait before they are sent again. Used by one event loop.

    A request that pauses leaves its turn to another; but no new one is let in while as many pause as may be in flight,
    so that a provider that refuses everything is asked by a few again and again, not by all.
    """

    concurrency: Concurrency
    in_flight: int = 0
    paused: int = 0
    _new: deque[asyncio.Future[None]] = field(default_factory=deque)
    _again: deque[asyncio.Future[None]] = field(default_factory=deque)

    @property
    def waiting(self) -> bool:
        """Whether requests wait for their turn."""
        return bool(self._new or self._again)

    async def enter(self, *, again: bool = False) -> None:
        """Wait for a turn; a request that is sent again goes first."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._again if again else self._new).append(turn)
        self._admit()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """End a turn, and let others in."""
        self.in_flight -= 1
        self._admit()

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Count a request that waits before it is sent again."""
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1
            self._admit()

    def _admit(self) -> None:
        while self.in_flight < self.concurrency.limit:
            queue = self._again or (self._new if self.paused < self.concurrency.limit else None)
            if not queue:
                return
            turn = queue.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
