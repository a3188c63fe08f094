from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from prefect.exceptions import ParameterTypeError
from prefect.states import Completed, Failed

import tasks.errors as errors
from isospace.errors import BusyError, ConfigError, GateError, StoreError
from tasks import maintenance
from tasks.errors import Unsuccessful, concluding, failing_in_one_line, unsuccessful, unwrap

FULL = OSError(28, "No space left on device", "/data/x")


class Kept(logging.Handler):
    """Keeps what reaches the log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []
        self.tracebacks = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))
        self.tracebacks += bool(record.exc_info)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kept]:
    """The log of a run, filtered as Prefect's loggers are."""
    logger, handler = logging.getLogger("tests.run"), Kept()
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    monkeypatch.setattr(errors, "get_run_logger", lambda: logger)
    monkeypatch.setattr(errors, "_LOGGERS", ("tests.run",))
    errors.quiet_known_errors()
    yield handler
    logger.handlers.clear()
    logger.filters.clear()


def failing(error: Exception) -> Any:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConfigError("device cuda: no GPU.\nUse the CPU."), "device cuda: no GPU. Use the CPU."),
        (FULL, "/data/x: No space left on device. Free space there"),
        (ModuleNotFoundError("No module named 'psycopg'", name="psycopg"), "[export]"),
    ],
)
def test_a_known_error_is_told_once_and_is_the_message_of_every_state(kept: Kept, error: Exception, line: str) -> None:
    task_state = failing_in_one_line(failing(error))()
    with pytest.raises(type(error)) as raised:
        unwrap(task_state)
    flow_state = concluding(str)(failing(raised.value))()
    assert [level for level, _ in kept.lines] == ["ERROR"]
    assert line in kept.lines[0][1]
    assert kept.tracebacks == 0
    assert task_state.message == flow_state.message == kept.lines[0][1]
    assert task_state.is_failed()
    assert flow_state.is_failed()


def test_an_error_that_nobody_foresaw_keeps_its_traceback_once(kept: Kept) -> None:
    error = KeyError("auto")
    with pytest.raises(KeyError):
        failing_in_one_line(failing(error))()
    with pytest.raises(KeyError):
        concluding(str)(failing(error))()
    # Prefect logs it again, in the task and in the flow.
    logging.getLogger("tests.run").error("Encountered exception during execution: %r", error, exc_info=error)
    assert kept.lines == [("ERROR", "KeyError: 'auto'")]
    assert kept.tracebacks == 1


def test_a_failure_that_is_tried_again_is_a_warning(kept: Kept) -> None:
    state = failing_in_one_line(failing(StoreError("slow")), retried=lambda error: True)()
    logging.getLogger("tests.run").info(errors._RETRY, "state", state, 1, 2, "2.0 second(s) from now")
    logging.getLogger("tests.run").info(errors._RETRY, "exception", RuntimeError("lost"), 2, 2, "immediately")
    assert kept.lines == [
        ("WARNING", "slow Trying again in 2 s (retry 1 of 2)."),
        ("WARNING", "lost Trying again now (retry 2 of 2)."),
    ]


def test_a_vacuum_that_is_tried_again_when_the_run_is_over_is_no_error(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(errors, "task", lambda **options: given.update(options) or (lambda work: work))
    is_busy: Any = maintenance._is_busy
    for is_last, error, told in (
        (False, BusyError("a run"), 0),
        (True, BusyError("a run"), 1),
        (False, StoreError(), 1),
    ):
        kept.lines.clear()
        monkeypatch.setattr(errors, "attempts_left", lambda times, is_last=is_last: times == 6 and not is_last)
        call = errors.one_line_task(retries=6, retry_when=is_busy)(failing(error))
        with pytest.raises(type(error)):
            call()
        assert len(kept.lines) == told
        state = Failed(message="", data=error)
        assert given["retry_condition_fn"](None, None, state) == isinstance(error, BusyError)
    assert given["retries"] == 6


def test_what_prefect_repeats_is_dropped_and_the_rest_stays(kept: Kept) -> None:
    logger = logging.getLogger("tests.run")
    for repeated in (
        f"Finished in state {Completed()}",
        f"Finished in state {Failed(message='x')}",
        f"Task run failed with state: {Failed(message='x')!r} - Retries are exhausted",
    ):
        logger.error(repeated)
    assert kept.lines == []
    logger.error("Crash detected! Process ended.")
    logger.info("Finished in state Cancelled()")
    assert len(kept.lines) == 2


def test_wrong_parameters_are_one_line(kept: Kept) -> None:
    wrong = ParameterTypeError("Flow run received invalid parameters:\n - config.a: Value error, expected 1\n - b: no")
    logging.getLogger("tests.run").error("Engine execution exited with unexpected exception", exc_info=wrong)
    assert kept.lines == [
        (
            "ERROR",
            "the parameters of the run are not valid: config.a: expected 1; b: no. Correct them in the deployment or "
            "in the form.",
        )
    ]
    assert kept.tracebacks == 0


def test_a_flow_ends_with_its_figures(kept: Kept) -> None:
    state = concluding(lambda count: f"{count:,} documents")(lambda: 1_000)()
    assert state.is_completed()  # type: ignore[attr-defined]
    assert (state.message, state.data) == ("1,000 documents", 1_000)  # type: ignore[attr-defined]
    assert kept.lines == [("INFO", "1,000 documents")]


def test_a_rejection_is_told_by_the_gate_alone(kept: Kept) -> None:
    error = GateError("snapshot 2 was rejected")
    assert concluding(str)(failing(error))().message == "snapshot 2 was rejected"
    # What a worker adds when the process of the run ends.
    logging.getLogger("tests.run").error("Engine execution exited with unexpected exception", exc_info=error)
    assert kept.lines == []


def test_a_task_may_fail_with_a_result() -> None:
    state = unsuccessful({"passed": False}, "rejected")
    assert state.is_failed()
    assert isinstance(state.data, Unsuccessful)
    assert unwrap(state) == {"passed": False}
