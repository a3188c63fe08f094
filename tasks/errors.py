"""Show errors that isospace raises on purpose as one line, without a traceback."""

from __future__ import annotations

import logging
from typing import Any

from prefect import Task
from prefect.client.schemas import State, TaskRun

from isospace.errors import BusyError, IsospaceError


class _OneLine(logging.Filter):
    """Removes the traceback of errors whose message is enough."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], IsospaceError):
            record.exc_info = None
            record.exc_text = None
        return True


def quiet_known_errors() -> None:
    """Keep tracebacks of isospace's own errors out of Prefect's logs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(existing, _OneLine) for existing in logger.filters):
            logger.addFilter(_OneLine())


def is_busy(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task failed because a run uses the store, so that a later attempt can succeed."""
    return isinstance(state.result(raise_on_failure=False), BusyError)
