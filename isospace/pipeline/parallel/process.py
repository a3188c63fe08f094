"""A process that works on parts, one call after another.

It imports isospace alone and not the script that is running: a script without `if __name__ == "__main__"` would run
again in it.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from isospace.errors import WorkerError
from isospace.pipeline.executor import Reporter
from isospace.pipeline.parallel.told import Outcome

# The import path of this process. `-P`, since `-c` would put the working folder before it.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from isospace.pipeline.parallel.child import serve; "
    "serve(*map(int, sys.argv[2:]))"
)
# Each process is one of as many as there are cores: its libraries start no threads of their own.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
_STANDARD_ERROR = 2


class PartProcess:
    """A process that is started by its first call; for one thread at a time. The creator must end it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    @property
    def pid(self) -> int | None:
        """ID of the process, if it is running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def call(self, function: Callable[..., Any], reporter: Reporter, *arguments: Any) -> Any:
        """Call a function there with a reporter and its arguments; what it tells is told here.

        Parameters
        ----------
        function
            A module-level function. Its exceptions are raised here.

        Raises
        ------
        WorkerError
            If the process cannot be started, or dies; the next call starts another one.
        """
        if self.pid is None:
            self._start()
        connection, process = self._connection, self._process
        assert connection is not None
        assert process is not None
        try:
            connection.send((function, arguments))
            told: Outcome = connection.recv()
        except (EOFError, OSError) as error:
            status = self.end()
            raise WorkerError(
                f"process {process.pid}, which worked on a part, died with exit code {status}; the part is tried "
                "again. Exit code -9 often means that memory ran out: lower runtime.memory_mb, or "
                "runtime.part_characters."
            ) from error
        except BaseException:
            # Interrupted while waiting: the late answer would be mistaken for that of the next call.
            self.end()
            raise
        return told.retell(reporter)

    def kill(self) -> None:
        """Kill the process, whatever it is doing, so that a call in another thread fails; files are written whole."""
        if (process := self._process) is not None:
            process.kill()

    def end(self) -> int | None:
        """Make sure that the process has ended, and return its exit code."""
        connection, process = self._connection, self._process
        self._connection = self._process = None
        if connection is not None:
            connection.close()
        if process is None:
            return None
        try:
            # One that died by itself has a code of its own, a moment after its socket is closed.
            return process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _start(self) -> None:
        self.end()
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        level = logging.getLogger("isospace").getEffectiveLevel()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-P", "-c", _BOOT, json.dumps(path)]
            command += [str(theirs.fileno()), str(os.getpid()), str(level)]
            try:
                # In a new session, so that Ctrl-C reaches only the run. What libraries print is no output of the run.
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=_STANDARD_ERROR,
                    env={**dict.fromkeys(_ONE_THREAD, "1"), **os.environ},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                raise WorkerError(f"a process for parts cannot be started ({error}).") from error
            self._connection = Connection(ours.detach())
