"""Show a known error once: in red where it happened, in one line, and as the state's message.

Prefect logs an exception in the task and again in the flow, with tracebacks, and puts its type into the state's
message. Therefore, tasks and flows return a failed state for an error whose cause is known. An error that nobody
foresaw is raised, and keeps its traceback.
"""

from __future__ import annotations

import functools
import inspect
import logging
import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task, task
from prefect._internal.result_records import ResultRecord
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas import State, TaskRun
from prefect.context import TaskRunContext
from prefect.exceptions import ParameterTypeError
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from isospace.errors import AuditError, GateError
from isospace.pipeline.failure import describe_failure
from tasks.lines import as_line
from tasks.server import describe_server_failure, is_of_lost_server, stop_asking

P = ParamSpec("P")
T = TypeVar("T")
_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")
_EVENT_LOGGERS = ("prefect.events.clients", "prefect._internal.concurrency")
_RETRY = "Task run failed with %s: %r - Retry %s/%s will start %s"
_SECONDS = re.compile(r"([0-9.]+) second\(s\) from now")
# Prefect's own lines about states that the UI shows anyway, and that the lines of tasks and flows have put in words.
_REPEATED = re.compile(r"Finished in state (Completed|Failed|Running)\(|Task run failed with state: ")


class Unsuccessful(Exception):
    """The result of a task that counts as a failure, although the run goes on with it."""

    def __init__(self, result: Any) -> None:
        super().__init__(result)
        self.result = result


class _OneLine(logging.Filter):
    """Drops what Prefect repeats about known errors, and puts its retries in words."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.msg == _RETRY and isinstance(record.args, tuple):
            self._reword(record, *record.args)
            return True
        if _REPEATED.match(str(record.msg)):
            return False
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, ParameterTypeError):
            record.msg, record.args = "%s", (as_line(_wrong_parameters(error)),)
            record.exc_info, record.exc_text = None, None
            return True
        if error is not None and was_told(error):
            return False
        if error is not None and (line := describe(error)) is not None:
            record.msg, record.args, record.exc_info, record.exc_text = "%s", (as_line(line),), None, None
        return True

    def _reword(self, record: logging.LogRecord, kind: Any, failure: Any, number: Any, most: Any, when: Any) -> None:
        reason = failure.message if isinstance(failure, State) else str(failure)
        delay = _SECONDS.fullmatch(str(when))
        start = f"in {float(delay.group(1)):g} s" if delay else "now"
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.msg = "%s Trying again %s (retry %s of %s)."
        record.args = (as_line(str(reason)), start, number, most)


def quiet_known_errors() -> None:
    """Keep what Prefect repeats about known errors out of its logs."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(existing, _OneLine) for existing in logger.filters):
            logger.addFilter(_OneLine())
    for name in _EVENT_LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(existing, _OnceWithoutServer) for existing in logger.filters):
            logger.addFilter(_OnceWithoutServer())


class _OnceWithoutServer(logging.Filter):
    """Keeps the first line on a server that is gone: Prefect would print several for each of its events."""

    def __init__(self) -> None:
        super().__init__()
        self._is_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name == "prefect._internal.concurrency":
            return "'EventsWorker' failed" not in record.getMessage()
        if not record.getMessage().startswith("Unable to connect to"):
            return True
        is_first, self._is_told = not self._is_told, True
        return is_first


def one_line_task(
    *, retries: int = 0, retry_when: Callable[[BaseException], bool] = lambda error: True, **options: Any
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator that makes a function a task whose known errors are one line.

    Parameters
    ----------
    retries
        How often the task is tried again.
    retry_when
        Returns whether another attempt can help after an error.
    options
        Further ones of Prefect's `task`. Prefect caches nothing, since it would not notice that an output is missing.
    """
    if retries:
        options |= {"retries": retries, "retry_condition_fn": retry_condition(retry_when)}

    def will_retry(error: BaseException) -> bool:
        return retry_when(error) and attempts_left(retries)

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        prefect_task = task(cache_policy=NO_CACHE, **options)(
            failing_in_one_line(work, retried=will_retry if retries else None)
        )

        @functools.wraps(work)
        def call(*arguments: P.args, **keywords: P.kwargs) -> T:
            return cast("T", unwrap(prefect_task(*arguments, **keywords)))

        return call

    return decorate


def failing_in_one_line(work: Callable[P, T], *, retried: Callable[[BaseException], bool] | None = None) -> Any:
    """Return a function of a task that returns a failed state, with one line as its message, for a known error.

    Parameters
    ----------
    retried
        Returns whether the task is tried again after an error; then Prefect logs it.
    """

    @functools.wraps(work)
    def guarded(*arguments: P.args, **keywords: P.kwargs) -> Any:
        try:
            return work(*arguments, **keywords)
        except Exception as error:
            return _failed(error, tell=retried is None or not retried(error))

    return guarded


def concluding(describe: Callable[[Any], str]) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Return a decorator for the function of a flow: its last line, and the message of its state, say what it did.

    Parameters
    ----------
    describe
        Puts the result in one sentence, with figures.
    """

    def decorate(work: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(work)
        def run(*arguments: P.args, **keywords: P.kwargs) -> Any:
            try:
                result = work(*arguments, **keywords)
            except Exception as error:
                return _failed(error, tell=True)
            line = as_line(describe(result))
            get_run_logger().info("%s", line)
            return Completed(message=line, data=result)

        # Prefect would look for the types of the parameters in this module.
        vars(run)["__signature__"] = inspect.signature(work, eval_str=True)
        return cast("Callable[P, T]", run)

    return decorate


def unwrap(returned: Any) -> Any:
    """Return the result of a task, or raise the error of its failed state."""
    if not isinstance(returned, State):
        return returned
    data = returned.data.result if isinstance(returned.data, ResultRecord) else returned.data
    if isinstance(data, Unsuccessful):
        return data.result
    if isinstance(data, BaseException):
        raise data
    return returned.result()


def unsuccessful(result: T, reason: str) -> State[Any]:
    """Return the failed state of a task whose result the run goes on with."""
    return Failed(message=as_line(reason), data=Unsuccessful(result))


def attempts_left(times: int) -> bool:
    """Return whether Prefect would run the current task again after a failure, of which it tolerates `times`."""
    context = TaskRunContext.get()
    return context is not None and context.task_run.run_count <= times


def describe(error: BaseException) -> str | None:
    """Return the line that tells a person what failed and what to do; None for an error that nobody foresaw."""
    return describe_server_failure(error) or describe_failure(error)


def was_told(error: BaseException) -> bool:
    """Return whether the log of the run has told an error, in the task where it happened."""
    return bool(error.__dict__.get("isospace_told"))


def retry_condition(when: Callable[[BaseException], bool]) -> Any:
    """Return a function that tells Prefect whether to run a failed task again, given its error."""

    def is_worth_retrying(task: Task[Any, Any], task_run: TaskRun, state: State[Any]) -> bool:
        return when(state.result(raise_on_failure=False))

    return is_worth_retrying


def _wrong_parameters(error: ParameterTypeError) -> str:
    """Return what is wrong with the parameters of a deployment, or with those that somebody entered into its form."""
    _, *lines = str(error).splitlines()
    wrong = "; ".join(line.removeprefix(" - ").replace("Value error, ", "").rstrip(".") for line in lines)
    return f"the parameters of the run are not valid: {wrong}. Correct them in the deployment or in the form."


def _failed(error: Exception, *, tell: bool) -> State[Any]:
    """Return the failed state of a known error, and log it unless a task of the run has done so."""
    line = describe(error)
    if line is None:
        if tell and not was_told(error):
            get_run_logger().error("%s: %s", type(error).__name__, error, exc_info=error)
            error.__dict__["isospace_told"] = True
        raise error
    if is_of_lost_server(line):
        stop_asking()
    # A task has told a rejection or an alarm, and the run went on to its end.
    if tell and not was_told(error):
        if not isinstance(error, GateError | AuditError):
            get_run_logger().error("%s", as_line(line))
        error.__dict__["isospace_told"] = True
    return Failed(message=as_line(line), data=error)
