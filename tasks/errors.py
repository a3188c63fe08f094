"""How errors reach a person: those that isospace raises on purpose are one line, not a traceback."""

from __future__ import annotations

import logging
from typing import Any

from prefect import Task
from prefect.client.schemas import State, TaskRun

from isospace.errors import BusyError, IsospaceError


class _OneLine(logging.Filter):
    """Leave out the traceback of an error whose message says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], IsospaceError):
            record.exc_info = None
            record.exc_text = None
        return True


def quiet_known_errors() -> None:
    """Keep tracebacks of isospace's own errors out of Prefect's logs."""
    for name in ("prefect.flow_runs", "prefect.task_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(known, _OneLine) for known in logger.filters):
            logger.addFilter(_OneLine())


def is_busy(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a run holds the store: then a later attempt can succeed."""
    return isinstance(state.result(raise_on_failure=False), BusyError)
