"""The queue in front of the provider: so many requests at a time as the search for the best number allows."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from isospace.encoding.served.concurrency import Concurrency


@dataclass
class Gate:
    """Counts requests in flight. Used by one event loop."""

    concurrency: Concurrency
    in_flight: int = 0
    _waiting: deque[asyncio.Future[None]] = field(default_factory=deque)

    @property
    def waiting(self) -> bool:
        """Whether requests wait for their turn."""
        return bool(self._waiting)

    async def enter(self, *, again: bool = False) -> None:
        """Wait for a turn; a request that is sent again goes first."""
        if self.in_flight < self.concurrency.limit and not self._waiting:
            self.in_flight += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._waiting.appendleft if again else self._waiting.append)(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """End a turn, and let others in."""
        self.in_flight -= 1
        while self._waiting and self.in_flight < self.concurrency.limit:
            turn = self._waiting.popleft()
            if not turn.done():
                self.in_flight += 1
                turn.set_result(None)
