"""A line on the terminal every few seconds, to show that a command is still working."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

# No command is silent for longer than three seconds.
SILENCE_SECONDS = 2.5
# After so many lines of one stage, they become rarer.
_LINES = 600


def print_line(line: str) -> None:
    """Print a timestamped line on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


class Heartbeat:
    """Prints what is in progress when nothing else has been printed for a while.

    A daemon thread does so; it runs only while a stage is in progress.
    """

    def __init__(self, say: Callable[[str], None] = print_line, seconds: float = SILENCE_SECONDS) -> None:
        self._say, self._seconds = say, seconds
        self._lock = threading.Condition()
        self._stages: dict[str, tuple[int, float, str, float]] = {}
        self._spoken = 0.0
        self._running = False

    def begin(self, stage: str) -> None:
        """Record that a stage, or another item of it, starts."""
        with self._lock:
            count, since, detail, at = self._stages.get(stage, (0, time.monotonic(), "", 0.0))
            self._stages[stage] = count + 1, since, detail, at
            if not self._running:
                self._running = True
                self._spoken = time.monotonic()
                threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def detail(self, stage: str, detail: str) -> None:
        """Record the progress of a stage, for the next line."""
        with self._lock:
            if stage in self._stages:
                count, since, _, _ = self._stages[stage]
                self._stages[stage] = count, since, detail, time.monotonic()

    def spoke(self) -> None:
        """Record that something else was printed."""
        with self._lock:
            self._spoken = time.monotonic()

    def end(self, stage: str) -> None:
        """Record that a stage, or an item of it, ended."""
        with self._lock:
            count, since, detail, at = self._stages.get(stage, (1, 0.0, "", 0.0))
            if count > 1:
                self._stages[stage] = count - 1, since, detail, at
            else:
                self._stages.pop(stage, None)
            self._lock.notify_all()

    def _watch(self) -> None:
        while True:
            with self._lock:
                if not self._stages:
                    self._running = False
                    return
                stage, (_, since, detail, at) = next(reversed(self._stages.items()))
                left = self.silence(time.monotonic() - since) - (time.monotonic() - self._spoken)
                if left > 0:
                    self._lock.wait(left)
                    continue
                self._spoken = now = time.monotonic()
                # The time left, for example, is as old as the last shard.
                age = f" ({now - at:.0f} s ago)" if now - at >= 2.0 * self._seconds else ""
                line = f"{stage}: {detail}{age}" if detail else f"{stage}: running for {now - since:.0f} s"
            with contextlib.suppress(OSError, ValueError):
                # A closed terminal is no reason to stop.
                self.tell(stage, line)

    def silence(self, running: float) -> float:
        """Return after how many seconds without a line one is printed, for a stage that has run for so many.

        A stage can wait for a day, and its lines may go to a file.
        """
        return max(self._seconds, running / _LINES)

    def tell(self, stage: str, line: str) -> None:
        """Print a line about a stage."""
        self._say(line)


@contextlib.contextmanager
def working(what: str, say: Callable[[str], None] = print_line) -> Iterator[None]:
    """Print a line every few seconds until the block ends."""
    heartbeat = Heartbeat(say)
    heartbeat.begin(what)
    try:
        yield
    finally:
        heartbeat.end(what)
