"""Run a function in a fork of the test's process."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

_SECONDS = 30.0


def in_fork(work: Callable[[], object]) -> str:
    """Return the result of a function in a fork, or its error, as text; fail if the fork hangs."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # From Python 3.12 on, a fork of a process with threads is deprecated; that it may happen is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            answer = str(work())
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(writer, answer.encode()[:60_000])
        os._exit(0)
    os.close(writer)
    latest = time.monotonic() + _SECONDS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > latest:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"the fork hangs: no answer in {_SECONDS:.0f} s")
        time.sleep(0.01)
    with os.fdopen(reader, "rb") as stream:
        return stream.read().decode()
