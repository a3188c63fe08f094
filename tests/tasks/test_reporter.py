from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import httpx
import pytest

import tasks.reporter as module
from tasks.reporter import PrefectReporter


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What reaches the log of a run."""
    logger, kept = logging.getLogger("tests.reporter"), list[str]()
    logger.setLevel(logging.INFO)
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: kept.append(f"{record.levelname} {record.getMessage()}"))
    logger.addHandler(handler)
    logger.propagate = False
    monkeypatch.setattr(module, "get_run_logger", lambda: logger)
    yield kept
    logger.removeHandler(handler)


def test_a_long_stage_says_in_the_log_that_it_is_at_work(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOG_SECONDS", 0.02)
    reporter = PrefectReporter()
    reporter.begin("prepare encoder", None)
    deadline = time.monotonic() + 10
    while not lines and time.monotonic() < deadline:
        time.sleep(0.01)
    reporter.end("prepare encoder")
    assert lines[0].startswith("INFO prepare encoder: running for ")


def test_the_log_of_prefect_is_never_silent_for_a_quarter_of_a_minute() -> None:
    assert module._LOG_SECONDS <= 15.0


def test_a_lost_server_costs_a_run_its_artifacts_and_nothing_else(
    lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def lost(*, key: str, **_: object) -> None:
        tried.append(key)
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(module, "create_markdown_artifact", lost)
    monkeypatch.setattr(module, "create_progress_artifact", lost)
    reporter = PrefectReporter()
    reporter.show_markdown("plan", "x", "y")
    reporter.show_markdown("checks", "x", "y")
    reporter.progress("encode", 1, 2, "1 of 2")
    assert tried == ["plan"]
    (line,) = lines
    assert line.startswith("WARNING the Prefect server does not answer ([Errno 111] Connection refused). The run goes")


def test_an_artifact_that_the_server_refuses_costs_no_other(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    def create(*, key: str, **_: object) -> None:
        if key == "plan":
            request = httpx.Request("POST", "http://127.0.0.1/api/artifacts/")
            raise httpx.HTTPStatusError("too large", request=request, response=httpx.Response(413, request=request))
        shown.append(key)

    monkeypatch.setattr(module, "create_markdown_artifact", create)
    reporter = PrefectReporter()
    reporter.show_markdown("plan", "x", "y")
    reporter.show_markdown("checks", "x", "y")
    assert shown == ["checks"]
    (line,) = lines
    assert line.startswith("WARNING the Prefect server refused an artifact (HTTP 413). The run goes on without it")
