"""Show the progress of a run: a live table of its stages on a terminal, timestamped lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from isospace.cli.terminal import printable
from isospace.pipeline.heartbeat import Heartbeat, print_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from isospace.pipeline.executor import Reporter
    from isospace.storage.store import Store


@contextlib.contextmanager
def display(title: str) -> Iterator[Reporter]:
    """Report on standard error until the block ends: live on a terminal, line by line elsewhere."""
    if not sys.stderr.isatty():
        reporter = LineReporter()
        reporter.info(title)
        yield reporter
        return
    from rich.console import Console

    with LiveReporter(Console(stderr=True, highlight=False, markup=False)) as live:
        live.info(title)
        yield live


class LineReporter:
    """Prints a timestamped line for every message, and one every few seconds if there is none."""

    def __init__(self) -> None:
        self._heartbeat = Heartbeat()
        self._started: dict[str, float] = {}

    def begin(self, stage: str, total: int | None) -> None:
        """Start the clock of a stage."""
        self._started[stage] = time.monotonic()
        self._heartbeat.begin(stage)

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Remember the progress for the next line."""
        self._heartbeat.detail(stage, f"{done / max(total, 1e-9):.0%}, {detail}")

    def end(self, stage: str) -> None:
        """Print how long the stage took."""
        self._heartbeat.end(stage)
        self._print(f"{stage}: {time.monotonic() - self._started.pop(stage, time.monotonic()):.1f} s")

    def info(self, message: str) -> None:
        """Print a message."""
        self._print(message)

    def warning(self, message: str) -> None:
        """Print a warning."""
        self._print(f"warning: {message}")

    def error(self, message: str) -> None:
        """Print an error."""
        self._print(f"error: {message}")

    def show_markdown(self, key: str, markdown: str, description: str) -> None:
        """Print nothing: the report has the text."""

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
        """Print nothing: the outcome has the address of the report."""

    def emit(self, event: str, collection: str, snapshot: int, payload: dict[str, Any]) -> None:
        """Print nothing: the verdict has been printed."""

    def _print(self, line: str) -> None:
        self._heartbeat.spoke()
        with contextlib.suppress(OSError, ValueError):
            # A closed pipe must not end the run.
            print_line(printable(line))


class LiveReporter(LineReporter):
    """Draws a row for each stage: name, bar, done and total, rate and time left, time taken."""

    def __init__(self, console: Any) -> None:
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._lock = threading.Lock()
        self._console = console
        self._rows: dict[str, TaskID] = {}
        self._progress: Progress = Progress(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[detail]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            refresh_per_second=8,
        )

    def __enter__(self) -> LiveReporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            for row in self._rows.values():
                self._progress.stop_task(row)
        self._progress.stop()

    def begin(self, stage: str, total: int | None) -> None:
        """Add a row."""
        with self._lock:
            detail = f"0 of {total:,}" if total is not None else ""
            self._rows[stage] = self._progress.add_task(stage, total=total, detail=detail)

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Move the bar."""
        with self._lock:
            if stage in self._rows:
                self._progress.update(self._rows[stage], completed=done, total=total, detail=detail)

    def end(self, stage: str) -> None:
        """Fill the bar, unless the stage failed."""
        with self._lock:
            row = self._rows.pop(stage, None)
            if row is None:
                return
            if sys.exc_info()[0] is not None:
                self._progress.stop_task(row)
                self._progress.update(row, detail="stopped")
            else:
                total = self._progress.tasks[row].total or 1
                self._progress.update(row, completed=total, total=total)

    def _print(self, line: str) -> None:
        self._progress.console.print(printable(line), soft_wrap=True)
