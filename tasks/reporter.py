"""Report a run to Prefect: logs, artifacts, and events."""

from __future__ import annotations

import base64
import functools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

from httpx import HTTPError, HTTPStatusError
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.events import emit_event
from prefect.logging import get_run_logger
from prefect.runtime import deployment, flow_run

from isospace.evaluation.reports.artifacts import artifact_key, report_line
from isospace.evaluation.reports.page import plots_in
from isospace.pipeline.heartbeat import Heartbeat
from isospace.storage.openable import report_address
from isospace.storage.store import Store
from tasks.lines import as_line
from tasks.server import stop_telling

F = TypeVar("F", bound=Callable[..., None])
# A run of many days must not update its progress every second.
_PROGRESS_SECONDS = 2.0
# After so many seconds without a line, the log says what is in progress.
_LOG_SECONDS = 10.0
_KEYS = {"encode": "encoding", "train": "training"}


def _if_possible(show: F) -> F:
    """Let a run go on to its commit without its artifacts, once the server is gone: what it encodes is paid for."""

    @functools.wraps(show)
    def attempt(self: PrefectReporter, *arguments: Any, **keywords: Any) -> None:
        if self.is_server_lost:
            return
        try:
            show(self, *arguments, **keywords)
        except HTTPError as error:
            if isinstance(error, HTTPStatusError) and error.response.status_code < 500:
                self.tell_refused(show.__name__, error)
                return
            self.is_server_lost = True
            stop_telling()
            self.warning(
                f"the Prefect server does not answer ({error}). The run goes on, without artifacts; in the UI it will "
                "seem to run until somebody cancels it there"
            )

    return cast("F", attempt)


class _LogHeartbeat(Heartbeat):
    """Logs what is in progress, in the task run that has begun it last."""

    def __init__(self) -> None:
        super().__init__(seconds=_LOG_SECONDS)
        self.loggers: dict[str, logging.LoggerAdapter[Any] | logging.Logger] = {}

    def silence(self, running: float) -> float:
        # A stage may wait for a day, and the log of the run is stored.
        return max(_LOG_SECONDS, running / 60.0)

    def tell(self, stage: str, line: str) -> None:
        self.loggers[stage].info("%s", as_line(line))


class PrefectReporter:
    """Reports to the current task run, or outside of tasks to the flow run."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.is_server_lost = False
        self._is_progress_refused = False
        self._artifacts: dict[str, UUID] = {}
        self._updated: dict[str, float] = {}
        # Prefect's log, and the terminal, which hears more often. A worker's terminal already shows the log.
        self._log = _LogHeartbeat()
        self._heartbeats = (self._log, Heartbeat()) if deployment.id is None else (self._log,)

    def begin(self, stage: str, total: int | None) -> None:
        """Print and log a line every few seconds while the stage runs."""
        self._log.loggers[stage] = get_run_logger()
        for heartbeat in self._heartbeats:
            heartbeat.begin(stage)

    def end(self, stage: str) -> None:
        """Stop printing."""
        for heartbeat in self._heartbeats:
            heartbeat.end(stage)

    @_if_possible
    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Update the stage's progress artifact."""
        share = 100.0 * done / max(total, 1e-9)
        for heartbeat in self._heartbeats:
            heartbeat.detail(stage, detail)
        with self._lock:
            if stage not in self._artifacts:
                created = create_progress_artifact(progress=share, key=_key(stage), description=detail)
                self._artifacts[stage] = cast("UUID", created)
            elif share >= 100.0 or time.monotonic() - self._updated[stage] > _PROGRESS_SECONDS:
                update_progress_artifact(self._artifacts[stage], progress=share, description=detail)
            else:
                return
            self._updated[stage] = time.monotonic()

    def info(self, message: str) -> None:
        """Log a message."""
        get_run_logger().info("%s", as_line(message))
        self._spoke()

    def warning(self, message: str) -> None:
        """Log a warning."""
        get_run_logger().warning("%s", as_line(message))
        self._spoke()

    def error(self, message: str) -> None:
        """Log an error."""
        get_run_logger().error("%s", as_line(message))
        self._spoke()

    def tell_refused(self, what: str, error: HTTPStatusError) -> None:
        """Warn of an artifact that the server refused, such as one that is too large; of progress only once."""
        if what == "progress":
            is_known, self._is_progress_refused = self._is_progress_refused, True
            if is_known:
                return
        status = error.response.status_code
        self.warning(f"the Prefect server refused an artifact (HTTP {status}). The run goes on without it")

    def _spoke(self) -> None:
        for heartbeat in self._heartbeats:
            heartbeat.spoke()

    @_if_possible
    def show_markdown(self, key: str, markdown: str, description: str) -> None:
        """Create a Markdown artifact."""
        create_markdown_artifact(key=key, markdown=markdown, description=description)

    @_if_possible
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
        """Create an artifact with the summary, some plots, and the link to the page.

        Without a server of reports it says where the file is: a browser opens no file of another machine.
        """
        drawn, address = plots_in(store, path), report_address(store, path, report_url)
        images = [f"**{title}**\n\n{image(title, drawn[title])}" for title in plots if title in drawn]
        heading = markdown.partition("\n")[0].lstrip("# ")
        self.show_markdown(key, "\n\n".join([markdown, *images, report_line(address)]), heading)

    def emit(self, event: str, collection: str, snapshot: int, payload: dict[str, Any]) -> None:
        """Emit a Prefect event, for automations such as that of `flows.alert`."""
        emit_event(
            event=event,
            resource={"prefect.resource.id": f"isospace.collection.{collection}", "prefect.resource.name": collection},
            related=[{"prefect.resource.id": f"prefect.flow-run.{flow_run.id}", "prefect.resource.role": "flow-run"}],
            payload={**payload, "snapshot": snapshot},
        )


def _key(stage: str) -> str:
    """Return the key of a stage's progress, with the collection of the flow run if its parameters name one."""
    what = _KEYS.get(stage, stage.replace(" ", "-"))
    parameters = flow_run.parameters or {}
    runtime = getattr(parameters.get("config"), "runtime", None)
    # A parameter has precedence over the configuration.
    collection = parameters.get("collection") or getattr(runtime, "collection", None)
    return artifact_key(collection, what) if isinstance(collection, str) else what


def image(title: str, svg: str) -> str:
    """Return a plot as an image inside Markdown."""
    # An image without a size would be shown tiny.
    sized = svg.replace("<svg ", '<svg width="720" ', 1).encode()
    return f"![{title}](data:image/svg+xml;base64,{base64.b64encode(sized).decode()})"
