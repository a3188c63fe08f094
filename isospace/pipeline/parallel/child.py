"""The other side of a `PartProcess`: calls functions until its parent has no more calls, or is gone."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from multiprocessing.connection import Connection

from isospace.pipeline.parallel.told import Outcome, outcome, portable

_WATCH_SECONDS = 1.0


def serve(descriptor: int, parent: int, level: int) -> None:
    """Answer the calls that arrive on a socket.

    Parameters
    ----------
    descriptor
        The socket.
    parent
        Process ID of the run; without it, this process ends in the midst of a call.
    level
        Records of the log below this level are not sent.
    """
    connection = Connection(descriptor)
    threading.Thread(target=_end_without, args=(parent,), name="parent", daemon=True).start()
    # The other side has closed its end, or sent half a message before it died.
    with contextlib.suppress(EOFError, OSError):
        while True:
            connection.send(_answer(connection.recv_bytes(), level))


def _answer(call: bytes, level: int) -> Outcome:
    import pickle

    try:
        # Sent by the run, which started this process; nothing that a store holds is read like this.
        function, arguments = pickle.loads(call)
    except Exception as error:
        return Outcome(succeeded=False, result=portable(error))
    return outcome(function, arguments, level)


def _end_without(parent: int) -> None:
    """End this process when its parent is dead: another process has adopted it then."""
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os._exit(1)
