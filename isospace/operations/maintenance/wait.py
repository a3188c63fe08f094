"""Retry an operation while runs hold the lease that it needs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from isospace.errors import BusyError

_Result = TypeVar("_Result")
_RETRY_SECONDS = 5.0


def retry_while_busy(
    action: Callable[[], _Result], *, minutes: float, on_wait: Callable[[BusyError], None] = lambda _: None
) -> _Result:
    """Call `action` until it no longer raises BusyError, for at most `minutes`.

    Parameters
    ----------
    on_wait
        Called once, with the first BusyError, if there is time left to wait.

    Raises
    ------
    BusyError
        The last one, when the time is up.
    """
    deadline = time.monotonic() + 60.0 * minutes
    announced = False
    while True:
        try:
            return action()
        except BusyError as error:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
            if not announced:
                on_wait(error)
                announced = True
            time.sleep(min(_RETRY_SECONDS, left))
