"""Run stages in this process, without a server."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from isospace.pipeline.executor import NOT_YET, PARALLEL, P, Reporter, Retry, Stage, T
from isospace.storage.openable import report_address
from isospace.storage.store import Store

_LOG = logging.getLogger("isospace")


class LogReporter:
    """Reports to the logger `isospace`."""

    def begin(self, stage: str, total: int | None) -> None:
        """Log that a stage starts."""
        _LOG.info("%s%s", stage, f": {total} items" if total is not None else "")

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Log the progress of a stage."""
        _LOG.debug("%s: %.0f %% (%s)", stage, 100.0 * done / max(total, 1.0), detail)

    def end(self, stage: str) -> None:
        """Log that a stage ended."""
        _LOG.debug("%s ended", stage)

    def info(self, message: str) -> None:
        """Log a message."""
        _LOG.info("%s", message)

    def warning(self, message: str) -> None:
        """Log a warning."""
        _LOG.warning("%s", message)

    def error(self, message: str) -> None:
        """Log an error."""
        _LOG.error("%s", message)

    def show_markdown(self, key: str, markdown: str, description: str) -> None:
        """Log the description of a text."""
        _LOG.debug("%s: %s", key, description)

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
        """Log the address of a report."""
        _LOG.info("report: %s", report_address(store, path, report_url))

    def emit(self, event: str, collection: str, snapshot: int, payload: dict[str, Any]) -> None:
        """Log an event."""
        _LOG.info("event %s: %s, snapshot %d", event, collection, snapshot)


class LocalExecutor:
    """Runs stages in this process, and mapped stages in threads."""

    def __init__(self, reporter: Reporter | None = None) -> None:
        self._reporter: Reporter = reporter or LogReporter()

    @property
    def reporter(self) -> Reporter:
        """The reporter of the run."""
        return self._reporter

    @property
    def address(self) -> str:
        """Empty: a run without a server has no page."""
        return ""

    def run(self, stage: Stage[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a stage and return its result."""
        self._reporter.begin(stage.name, None)
        try:
            return self._attempt(stage, arguments, keywords, threading.Event())
        finally:
            self._reporter.end(stage.name)

    def map(self, stage: Stage[Any, T], items: Sequence[tuple[Any, ...]], *, limit: int = PARALLEL) -> list[T]:
        """Run a stage once per item, at most `limit` at a time; return the results in the order of the items."""
        if not items:
            return []
        self._reporter.begin(stage.name, len(items))
        counter = _ItemCounter(self._reporter, stage.name, len(items))
        pool, stopped = ThreadPoolExecutor(limit, thread_name_prefix=stage.name), threading.Event()
        try:
            futures = [pool.submit(self._attempt, stage, item, {}, stopped, counter) for item in items]
            return [future.result() for future in futures]
        finally:
            # After a failure or an interrupt, items that have not started are skipped, and nothing is retried.
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._reporter.end(stage.name)

    def stream(self, stage: Stage[Any, T], items: Iterable[tuple[Any, ...]], *, limit: int) -> Iterator[T]:
        """Run a stage once per tuple of arguments, at most `limit` at a time; yield results as they complete."""
        waiting = iter(items)
        running: set[Future[T]] = set()
        pool, stopped = ThreadPoolExecutor(limit, thread_name_prefix=stage.name), threading.Event()
        self._reporter.begin(stage.name, None)
        try:
            while True:
                is_coming = False
                while len(running) < limit and not is_coming and (item := next(waiting, None)) is not None:
                    if item == NOT_YET:
                        is_coming = True
                        continue
                    running.add(pool.submit(self._attempt, stage, item, {}, stopped))
                if not running and not is_coming:
                    return
                finished, running = wait(running, 0.0 if is_coming else None, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield future.result()
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            self._reporter.end(stage.name)

    def _attempt(
        self,
        stage: Stage[Any, T],
        arguments: Sequence[Any],
        keywords: dict[str, Any],
        stopped: threading.Event,
        counter: _ItemCounter | None = None,
    ) -> T:
        for attempt in range(stage.retry.times + 1):
            try:
                result = stage.work(self._reporter, *arguments, **keywords)
            except Exception as error:
                if attempt == stage.retry.times or not stage.retry.when(error) or stopped.is_set():
                    raise
                delay = _delay(stage.retry, attempt)
                self._reporter.warning(f"{stage.name}: {error} Retrying in {delay:g} s.")
                if stopped.wait(delay):
                    raise
            else:
                if counter is not None:
                    counter.advance()
                return result
        raise AssertionError("unreachable")


class _ItemCounter:
    """Counts and reports the finished items of a mapped stage."""

    def __init__(self, reporter: Reporter, stage: str, total: int) -> None:
        self._reporter, self._stage, self._total = reporter, stage, total
        self._lock, self._done = threading.Lock(), 0

    def advance(self) -> None:
        with self._lock:
            self._done += 1
            self._reporter.progress(self._stage, self._done, self._total, f"{self._done:,} of {self._total:,}")


def _delay(retry: Retry, attempt: int) -> float:
    return retry.delays[min(attempt, len(retry.delays) - 1)]
