"""One worker process: it runs functions, and is killed and replaced if it does not answer in time."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from isospace.encoding.engine import Engine
from isospace.errors import WorkerError
from isospace.pipeline.parallel.told import portable

_LOG = logging.getLogger(__name__)
# Spawn, not fork: a forked child would inherit locks of threads that it does not have, and a broken GPU context.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Work:
    """The encoder that a worker loads, and the engine that runs it; `store` is the URL of the store."""

    store: str
    encoder_id: str
    engine: Engine
    precision: str = "float32"


@dataclass(slots=True)
class WorkerProcess:
    """A process with one encoder, used by one thread at a time.

    Attributes
    ----------
    is_loaded
        Whether it has answered a call: a new process has to load the encoder first.
    """

    number: int
    work: Work
    is_loaded: bool = False
    _process: Any = None
    _connection: Connection | None = None

    @property
    def name(self) -> str:
        """Number and device of the worker."""
        return f"{self.number} ({self.work.engine.device})"

    @property
    def is_ready(self) -> bool:
        """Whether the process has loaded the encoder and is alive."""
        return self.is_loaded and self._process is not None and self._process.is_alive()

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        """Run a function in the process.

        Parameters
        ----------
        function
            A module-level function; its exceptions are raised here.
        arguments
            Its arguments.
        seconds
            How long it may take.

        Raises
        ------
        WorkerError
            If the process dies, or does not answer in time; the next call starts a new one.
        """
        if self._process is None or not self._process.is_alive():
            self._start()
        connection, process = self._connection, self._process
        assert connection is not None
        try:
            connection.send((function, arguments))
            ready = wait([connection, process.sentinel], timeout=seconds)
            if not ready:
                self.end()
                raise WorkerError(
                    f"worker {self.name}, process {process.pid}, did not answer within {seconds:.0f} s; it is "
                    "replaced, and its shard is retried. Raise runtime.workers.shard_seconds if shards take that long."
                )
            succeeded, result = connection.recv()
        except (EOFError, OSError) as error:
            process.join(5.0)
            self.end()
            raise WorkerError(
                f"worker {self.name}, process {process.pid}, died with exit code {process.exitcode}; it is replaced, "
                "and its shard is retried. Exit code -9 often means that memory ran out, 75 that the device failed."
            ) from error
        except BaseException:
            # Interrupted while waiting: the late answer would be mistaken for that of the next call.
            self.end()
            raise
        if not succeeded:
            raise result
        self.is_loaded = True
        return result

    def end(self) -> None:
        """Kill the process, whatever it is doing: files are written atomically."""
        if self._process is not None:
            self._process.kill()
            self._process.join(30.0)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self.is_loaded = False

    def _start(self) -> None:
        self.end()
        ours, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(theirs,), daemon=True, name=f"isospace-{self.number}")
        self._process.start()
        theirs.close()
        self._connection = ours


def _serve(connection: Connection) -> None:
    """Answer calls until the other side closes the connection."""
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, portable(error))
        try:
            connection.send(answer)
        except OSError:
            return
