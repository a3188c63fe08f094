"""A circuit breaker: after failures in a row, queries fail at once for a while instead of waiting for timeouts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

FAILURES = 5
OPEN_SECONDS = 10.0


@dataclass
class Breaker:
    """Counts failures in a row; open after `failures`, for `open_seconds`, and then open to one trial at a time."""

    failures: int = FAILURES
    open_seconds: float = OPEN_SECONDS
    clock: Callable[[], float] = time.monotonic
    _row: int = 0
    _opened: float = 0.0
    _reason: str = ""

    def remaining(self) -> float:
        """Return for how many seconds calls fail at once; 0 lets this call through as a trial.

        The trial extends the time for all others, so that one call at a time finds out whether the provider is back.
        """
        if self._row < self.failures:
            return 0.0
        now = self.clock()
        if now - self._opened < self.open_seconds:
            return self.open_seconds - (now - self._opened)
        self._opened = now
        return 0.0

    @property
    def reason(self) -> str:
        """The last failure."""
        return self._reason

    def succeeded(self) -> None:
        """Close the breaker."""
        self._row = 0

    def failed(self, reason: str) -> None:
        """Count a failure; open the breaker at the last one allowed."""
        self._row += 1
        self._reason = reason
        if self._row >= self.failures:
            self._opened = self.clock()
