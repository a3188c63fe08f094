"""A line on the terminal every few seconds, so that nobody has to guess whether a command still works."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

# No command is silent for longer than three seconds.
SILENCE_SECONDS = 2.5


def print_line(line: str) -> None:
    """Print a timestamped line on standard error."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


class Heartbeat:
    """Says what is under way when nothing else was said for a while.

    A thread runs while a stage is under way, and only then: it is a daemon and ends with the process.
    """

    def __init__(self, say: Callable[[str], None] = print_line, seconds: float = SILENCE_SECONDS) -> None:
        self._say, self._seconds = say, seconds
        self._lock = threading.Condition()
        self._stages: dict[str, tuple[int, float, str]] = {}
        self._spoken = 0.0
        self._running = False

    def begin(self, stage: str) -> None:
        """Note that a stage, or another item of it, starts."""
        with self._lock:
            count, since, detail = self._stages.get(stage, (0, time.monotonic(), ""))
            self._stages[stage] = count + 1, since, detail
            if not self._running:
                self._running = True
                self._spoken = time.monotonic()
                threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def detail(self, stage: str, detail: str) -> None:
        """Keep how far a stage is, for the next line."""
        with self._lock:
            if stage in self._stages:
                count, since, _ = self._stages[stage]
                self._stages[stage] = count, since, detail

    def spoke(self) -> None:
        """Note that something else was printed."""
        with self._lock:
            self._spoken = time.monotonic()

    def end(self, stage: str) -> None:
        """Note that a stage, or an item of it, ended."""
        with self._lock:
            count, since, detail = self._stages.get(stage, (1, 0.0, ""))
            if count > 1:
                self._stages[stage] = count - 1, since, detail
            else:
                self._stages.pop(stage, None)
            self._lock.notify_all()

    def _watch(self) -> None:
        while True:
            with self._lock:
                if not self._stages:
                    self._running = False
                    return
                left = self._seconds - (time.monotonic() - self._spoken)
                if left > 0:
                    self._lock.wait(left)
                    continue
                stage, (_, since, detail) = next(reversed(self._stages.items()))
                self._spoken = time.monotonic()
                line = f"{stage}: {detail}" if detail else f"{stage}: under way, {time.monotonic() - since:.0f} s"
            with contextlib.suppress(OSError, ValueError):
                # A closed terminal is no reason to stop.
                self._say(line)


@contextlib.contextmanager
def working(what: str, say: Callable[[str], None] = print_line) -> Iterator[None]:
    """Say every few seconds that something is under way, until it is done."""
    heartbeat = Heartbeat(say)
    heartbeat.begin(what)
    try:
        yield
    finally:
        heartbeat.end(what)
