"""One worker process: it is given a function and arguments, and answers; it is killed and replaced when it does not."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from isospace.encoding.engine import Engine
from isospace.errors import WorkerError

_LOG = logging.getLogger(__name__)
# spawn: a forked child would inherit the locks of threads that it does not have, and no GPU context.
_CONTEXT = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker loads.

    Attributes
    ----------
    store
        Url of the store.
    encoder_id
        Which encoder.
    engine
        What runs it there.
    precision
        Of the encoder.
    """

    store: str
    encoder_id: str
    engine: Engine
    precision: str = "float32"


@dataclass(slots=True)
class WorkerProcess:
    """A process with one encoder, used by one thread at a time.

    Attributes
    ----------
    number
        Which worker it is.
    work
        What it loads.
    is_loaded
        Whether it has answered before: one that was replaced has to load first.
    """

    number: int
    work: Work
    is_loaded: bool = False
    _process: Any = None
    _connection: Connection | None = None

    @property
    def name(self) -> str:
        """Number and device."""
        return f"{self.number} ({self.work.engine.device})"

    @property
    def is_ready(self) -> bool:
        """Whether it has loaded, and has not died since."""
        return self.is_loaded and self._process is not None and self._process.is_alive()

    def call(self, function: Callable[..., Any], *arguments: Any, seconds: float) -> Any:
        """Run a function in the process.

        Parameters
        ----------
        function
            A module's function; what it raises is raised here.
        arguments
            Its arguments.
        seconds
            How long it may take.

        Raises
        ------
        WorkerError
            If the process dies, or does not answer in time; the next call starts another.
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
                    f"worker {self.name}, process {process.pid}, gave no answer within {seconds:.0f} s; it is "
                    "replaced, its shard tried again. Raise runtime.workers.shard_seconds if shards take that long."
                )
            succeeded, result = connection.recv()
        except (EOFError, OSError) as error:
            process.join(5.0)
            self.end()
            raise WorkerError(
                f"worker {self.name}, process {process.pid}, died with exit code {process.exitcode}; it is replaced, "
                "its shard tried again. Exit code -9 may mean too little memory, 75 a device that failed."
            ) from error
        except BaseException:
            # Interrupted while it waits: the answer would be taken for that of the next call.
            self.end()
            raise
        if not succeeded:
            raise result
        self.is_loaded = True
        return result

    def end(self) -> None:
        """Kill the process, whatever it is doing; what it has written is whole or not there."""
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
    """Answer calls until the other side is gone."""
    while True:
        try:
            function, arguments = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = (True, function(*arguments))
        except Exception as error:
            answer = (False, _portable(error))
        try:
            connection.send(answer)
        except OSError:
            return


def _portable(error: Exception) -> Exception:
    """Return an error that survives the way to another process; not every library's does."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__} in a worker: {error}")
    return error
