"""Work on parts on this machine: in threads of this process, or in others if Python's lock would be in the way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

from isospace.errors import WorkerError
from isospace.pipeline.executor import Reporter
from isospace.pipeline.parallel.process import PartProcess

T = TypeVar("T")
# A process takes some two seconds to start. That is worth it for parts that need so much memory together, some 16
# million characters.
_LITTLE_BYTES = 320_000_000


class PartWorkers(Protocol):
    """Calls functions on parts, in this process or elsewhere."""

    @property
    def size(self) -> int:
        """Number of parts that are worked on at the same time."""

    def call(
        self, function: Callable[..., T], reporter: Reporter, *arguments: Any, need: int, holds_lock: bool = False
    ) -> T:
        """Call a function with a reporter and its arguments, once there is room; return its result.

        Parameters
        ----------
        function
            A module-level function. It reads and writes stores, and its arguments and its result are references.
        need
            Memory that it takes, in bytes.
        holds_lock
            Whether it holds Python's interpreter lock most of the time, so that threads would wait for each other.

        Raises
        ------
        WorkerError
            If the process that works on it dies. Besides, what the function raises.
        """

    def close(self) -> None:
        """Stop the workers, whatever they are doing."""


class LocalParts:
    """Works on parts on this machine.

    Parameters
    ----------
    size
        Number of processes.
    memory
        Bytes that the parts in progress may take together; a part that needs more is worked on alone.
    little
        Parts that need no more than this together stay in this process.
    """

    def __init__(self, size: int, memory: int, *, little: int = _LITTLE_BYTES) -> None:
        self.size = size
        self._memory, self._little = memory, little
        self._changed = threading.Condition()
        self._used, self._seen = 0, 0
        self._free: list[PartProcess] = []
        self._processes: list[PartProcess] = []
        self._is_closed = False

    def call(
        self, function: Callable[..., T], reporter: Reporter, *arguments: Any, need: int, holds_lock: bool = False
    ) -> T:
        """Call a function once there is room; see `PartWorkers`."""
        with self._room(need):
            if not holds_lock:
                return function(reporter, *arguments)
            with self._process(need) as process:
                if process is None:
                    return function(reporter, *arguments)
                result: T = process.call(function, reporter, *arguments)
                return result

    def close(self) -> None:
        """Kill the processes."""
        with self._changed:
            self._is_closed = True
            processes, self._processes, self._free = self._processes, [], []
            self._changed.notify_all()
        for process in processes:
            process.kill()
            process.end()

    @contextlib.contextmanager
    def _room(self, need: int) -> Iterator[None]:
        """Wait until the memory is free."""
        with self._changed:
            self._changed.wait_for(lambda: not self._used or self._used + need <= self._memory)
            self._used += need
        try:
            yield
        finally:
            with self._changed:
                self._used -= need
                self._changed.notify_all()

    @contextlib.contextmanager
    def _process(self, need: int) -> Iterator[PartProcess | None]:
        """Wait for a free process; None if this process does the work."""
        with self._changed:
            self._seen += need
            is_little = self.size == 1 or (not self._processes and self._seen <= self._little)
            process = None if is_little else self._take()
        try:
            yield process
        finally:
            if process is not None:
                with self._changed:
                    self._free.append(process)
                    self._changed.notify_all()

    def _take(self) -> PartProcess:
        self._changed.wait_for(lambda: self._free or len(self._processes) < self.size or self._is_closed)
        if self._is_closed:
            raise WorkerError("the run has ended, and works on no more parts.")
        if not self._free:
            self._processes.append(PartProcess())
            return self._processes[-1]
        return self._free.pop()
