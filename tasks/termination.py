"""End a run on SIGTERM as on Ctrl-C, so that a temporary Prefect server ends with it."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import threading
from types import FrameType

# Work in threads is waited for at the end of a process. A supervisor kills what has not ended after 10 to 90 seconds.
_SECONDS = 8.0
_STATUS = 128 + signal.SIGTERM


def end_with_servers() -> None:
    """End this process on SIGTERM with what Prefect does at its end: by default it would leave its server behind.

    A handler that somebody else has set stays.
    """
    is_own = multiprocessing.parent_process() is None and threading.current_thread() is threading.main_thread()
    if is_own and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _end)


def _end(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    latest = threading.Timer(_SECONDS, _end_now)
    latest.daemon = True
    latest.start()
    raise SystemExit(_STATUS)


def _end_now() -> None:
    # Prefect stops its server in a function that it registers with atexit.
    atexit._run_exitfuncs()
    os._exit(_STATUS)
