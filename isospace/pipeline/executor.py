"""Interfaces of a run: stages, executors that run them, and reporters that show their progress.

A stage is a plain function. An executor runs it, as a Prefect task or directly in this process. The order of the stages
is defined once, in `isospace.pipeline.embed`, against these interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from isospace.errors import ConflictError, IsospaceError, ProviderUnavailableError, StoreError, WorkerError
from isospace.storage.store import Store

P = ParamSpec("P")
T = TypeVar("T")
NOT_YET: tuple[Any, ...] = ()
"""Among the items of a stream: none is there yet. Results of others are taken before the next one is asked for."""
# Items of a mapped stage that are in progress at the same time, unless a caller knows better.
PARALLEL = 2


class Reporter(Protocol):
    """Shows what a run does: in logs, on a terminal, in Prefect's UI."""

    def begin(self, stage: str, total: int | None) -> None:
        """Report that a stage starts; `total` is the number of its items, None if it has a single step."""

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        """Report the progress of a stage; `detail` puts it in words."""

    def end(self, stage: str) -> None:
        """Report that a stage ended, whether it succeeded or failed."""

    def info(self, message: str) -> None:
        """Report what happened."""

    def warning(self, message: str) -> None:
        """Report what a person should look at."""

    def error(self, message: str) -> None:
        """Report what went wrong."""

    def show_markdown(self, key: str, markdown: str, description: str) -> None:
        """Show a short Markdown text."""

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
        """Show a report of the store: its summary, some of its plots by title, and the address of the page.

        The address is a link if `report_url`, or else $ISOSPACE_REPORT_URL, names a server of reports.
        """

    def emit(self, event: str, collection: str, snapshot: int, payload: dict[str, Any]) -> None:
        """Emit an event, for automations."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failed stage is retried.

    Attributes
    ----------
    times
        Maximum number of retries.
    delays
        Seconds before each retry; the last one repeats.
    when
        Returns whether another attempt can help.
    """

    times: int
    delays: tuple[float, ...]
    when: Callable[[BaseException], bool]


def is_store_failure(error: BaseException) -> bool:
    """Return whether the store itself failed, not a file in it: the same reads and writes may succeed next time."""
    return type(error) is StoreError


def is_lost_worker(error: BaseException) -> bool:
    """Return whether a worker died: the next one may not."""
    return isinstance(error, WorkerError)


def is_transient(error: BaseException) -> bool:
    """Return whether another attempt can help: not for a wrong configuration, a damaged file, or a mismatch."""
    if not isinstance(error, IsospaceError):
        return True
    return is_store_failure(error) or isinstance(error, ConflictError | WorkerError | ProviderUnavailableError)


NEVER = Retry(0, (), lambda error: False)
# For stages that only read and write the store.
ON_STORE_FAILURE = Retry(2, (2.0, 10.0), is_store_failure)
# For stages that work on one part, perhaps in another process.
ON_PART_FAILURE = Retry(2, (2.0, 10.0), lambda error: is_store_failure(error) or is_lost_worker(error))
ON_LOST_WORKER = Retry(2, (2.0,), is_lost_worker)
ON_TRANSIENT_FAILURE = Retry(3, (1.0, 5.0, 25.0), is_transient)


@dataclass(frozen=True, slots=True)
class Stage(Generic[P, T]):
    """One step of a run.

    Attributes
    ----------
    name
        Shown to people.
    work
        The function; its first argument is a reporter.
    label
        Names one item of a mapped stage, given its arguments.
    tags
        For Prefect's concurrency limits.
    opening
        Says in one sentence what the stage is about to do, given its arguments.
    objection
        Returns why the result counts as a failure, although the run goes on with it; None if it does not.
    """

    name: str
    work: Callable[Concatenate[Reporter, P], T]
    retry: Retry = NEVER
    label: Callable[P, str] | None = None
    tags: tuple[str, ...] = ()
    opening: Callable[..., str] | None = None
    objection: Callable[[T], str | None] | None = None

    def retried(self, times: int) -> Stage[P, T]:
        """Return this stage with another number of retries."""
        return replace(self, retry=replace(self.retry, times=times))


class Executor(Protocol):
    """Runs stages."""

    @property
    def reporter(self) -> Reporter:
        """The reporter, for messages from outside the stages."""

    @property
    def address(self) -> str:
        """URL of the page on which people watch the run; empty if there is none."""

    def run(self, stage: Stage[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a stage and return its result."""

    def map(self, stage: Stage[Any, T], items: Sequence[tuple[Any, ...]], *, limit: int = PARALLEL) -> list[T]:
        """Run a stage once per tuple of arguments, at most `limit` at a time; return results in the order of the items.

        The first failure is raised; later items do not start.
        """

    def stream(self, stage: Stage[Any, T], items: Iterable[tuple[Any, ...]], *, limit: int) -> Iterable[T]:
        """Run a stage once per tuple of arguments, at most `limit` at a time; yield results as they complete.

        The next item is taken only when there is room for it, so that `items` can stop when a budget is spent. The
        first failure is raised. NOT_YET among the items is not run.
        """
