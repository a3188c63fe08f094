"""Stages, what runs them, and where their progress is reported.

A stage is a plain function. An executor runs it: as a Prefect task, or directly in this process. The order of the stages
of a run is written once, in `isospace.pipeline.embed`, against this interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from isospace.errors import ConflictError, IsospaceError, StoreError, WorkerError
from isospace.storage.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class Reporter(Protocol):
    """Where a run is followed: logs, a terminal, Prefect's UI."""

    def begin(self, stage: str, total: int | None) -> None:
        """Note that a stage starts; `total` is the number of its items, or None for a stage of one step."""

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Note how far a stage is; `detail` is a sentence for people."""

    def end(self, stage: str) -> None:
        """Note that a stage ended, well or not."""

    def info(self, message: str) -> None:
        """Note what happened."""

    def warning(self, message: str) -> None:
        """Note what a person should look at."""

    def error(self, message: str) -> None:
        """Note what went wrong."""

    def show_markdown(self, key: str, markdown: str, description: str) -> None:
        """Show a short text."""

    def show_page(self, store: Store, path: str, *, key: str, markdown: str, plots: Sequence[str]) -> None:
        """Show a report in the store: its summary, some of its plots by title, and where the page is."""

    def emit(self, event: str, collection: str, snapshot: int, payload: dict[str, Any]) -> None:
        """Emit an event, for automations."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a stage that failed runs again.

    Attributes
    ----------
    times
        Most retries.
    delays
        Seconds before each; the last one repeats.
    when
        Whether another attempt can help.
    """

    times: int
    delays: tuple[float, ...]
    when: Callable[[BaseException], bool]


def is_store_failure(error: BaseException) -> bool:
    """Tell whether the store failed, rather than something it holds: the same reads and writes may succeed next time."""
    return type(error) is StoreError


def is_lost_worker(error: BaseException) -> bool:
    """Tell whether a worker died while it started: another may live."""
    return isinstance(error, WorkerError)


def is_transient(error: BaseException) -> bool:
    """Tell whether another attempt can help: not for a bad configuration, a damaged file, or a mismatch."""
    if not isinstance(error, IsospaceError):
        return True
    return is_store_failure(error) or isinstance(error, ConflictError | WorkerError)


NEVER = Retry(0, (), lambda error: False)
# For stages that read and write the store and nothing else.
ON_STORE_FAILURE = Retry(2, (2.0, 10.0), is_store_failure)
ON_LOST_WORKER = Retry(2, (2.0,), is_lost_worker)
ON_TRANSIENT_FAILURE = Retry(3, (1.0, 5.0, 25.0), is_transient)


@dataclass(frozen=True, slots=True)
class Stage(Generic[P, T]):
    """One step of a run.

    Attributes
    ----------
    name
        As people see it.
    work
        What it does; takes a reporter first.
    retry
        When it runs again.
    label
        Names one item of a mapped stage, from its arguments.
    tags
        For concurrency limits.
    """

    name: str
    work: Callable[Concatenate[Reporter, P], T]
    retry: Retry = NEVER
    label: Callable[P, str] | None = None
    tags: tuple[str, ...] = ()

    def retried(self, times: int) -> Stage[P, T]:
        """Return the stage with another number of retries."""
        return replace(self, retry=replace(self.retry, times=times))


class Executor(Protocol):
    """What runs stages."""

    @property
    def reporter(self) -> Reporter:
        """Where the run is followed, outside of its stages."""

    def run(self, stage: Stage[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a stage and return its result."""

    def map(self, stage: Stage[Any, T], items: Sequence[tuple[Any, ...]]) -> list[T]:
        """Run a stage once per tuple of arguments, side by side; results in the order of the items."""

    def stream(self, stage: Stage[Any, T], items: Iterable[tuple[Any, ...]], *, limit: int) -> Iterable[T]:
        """Run a stage once per tuple of arguments, at most `limit` at a time; results as they complete.

        The next item is taken only when there is room for it, so that `items` can stop where a budget is spent. The first
        failure is raised.
        """
