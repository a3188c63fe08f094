"""What a function in another process tells its run: messages of its reporter, and records of its log."""

from __future__ import annotations

import contextlib
import logging
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import Any

from isospace.errors import WorkerError
from isospace.pipeline.executor import Reporter
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call in another process comes back with.

    Attributes
    ----------
    result
        What the function returned, or the exception that it raised.
    messages
        Calls of the reporter: name of the method, and its arguments.
    records
        Records of the log, whose messages are formatted.
    """

    succeeded: bool
    result: Any
    messages: tuple[tuple[str, tuple[Any, ...], dict[str, Any]], ...] = ()
    records: tuple[logging.LogRecord, ...] = ()

    def retell(self, reporter: Reporter) -> Any:
        """Report and log here what was told there; return the result, or raise the exception."""
        for record in self.records:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
        for name, arguments, keywords in self.messages:
            getattr(reporter, name)(*arguments, **keywords)
        if not self.succeeded:
            raise self.result
        return self.result


@dataclass(frozen=True, slots=True)
class RecordingReporter:
    """Keeps what is reported, for another process to report."""

    messages: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)

    def begin(self, stage: str, total: int | None) -> None:
        """Do nothing: the stage began where the run is."""

    def end(self, stage: str) -> None:
        """Do nothing."""

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Keep the progress of a stage."""
        self.messages.append(("progress", (stage, done, total, detail), {}))

    def info(self, message: str) -> None:
        """Keep a message."""
        self.messages.append(("info", (message,), {}))

    def warning(self, message: str) -> None:
        """Keep a warning."""
        self.messages.append(("warning", (message,), {}))

    def error(self, message: str) -> None:
        """Keep an error."""
        self.messages.append(("error", (message,), {}))

    def show_markdown(self, key: str, markdown: str, description: str) -> None:
        """Keep a Markdown text."""
        self.messages.append(("show_markdown", (key, markdown, description), {}))

    def show_page(
        self,
        store: Store,
        path: str,
        *,
        key: str,
        markdown: str,
        plots: Sequence[str],
        report_url: str | None = None,
    ) -> None:
        """Keep a report."""
        keywords = {"key": key, "markdown": markdown, "plots": plots, "report_url": report_url}
        self.messages.append(("show_page", (store, path), keywords))

    def emit(self, event: str, collection: str, snapshot: int, payload: dict[str, Any]) -> None:
        """Keep an event."""
        self.messages.append(("emit", (event, collection, snapshot, payload), {}))


def outcome(function: Callable[..., Any], arguments: Sequence[Any], level: int) -> Outcome:
    """Call a function with a reporter and its arguments, and keep what it tells.

    Parameters
    ----------
    function
        A module-level function whose first argument is a reporter.
    level
        Records of isospace below this level are not kept.
    """
    reporter = RecordingReporter()
    with _kept_records(level) as records:
        try:
            succeeded, result = True, function(reporter, *arguments)
        except Exception as error:
            succeeded, result = False, portable(error)
    return Outcome(succeeded, result, tuple(reporter.messages), tuple(records))


def portable(error: Exception) -> Exception:
    """Return an error that can be sent to another process; not every library's errors can be pickled."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WorkerError(f"{type(error).__name__} in a worker: {error}")
    return error


@contextlib.contextmanager
def _kept_records(level: int) -> Iterator[list[logging.LogRecord]]:
    """Keep the records that are logged in this process, in a form that can be sent."""
    waiting: SimpleQueue[logging.LogRecord] = SimpleQueue()
    records: list[logging.LogRecord] = []
    # It formats messages, and drops what cannot be pickled.
    handler, root = QueueHandler(waiting), logging.getLogger()
    logging.getLogger("isospace").setLevel(level)
    root.addHandler(handler)
    try:
        yield records
    finally:
        root.removeHandler(handler)
        while not waiting.empty():
            records.append(waiting.get())
