from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import prefect
import pytest
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_CLOUD_API_URL,
    temporary_settings,
)

from tasks import server as server_module
from tasks.server import (
    ServerError,
    describe_server_failure,
    is_of_lost_server,
    require_server,
    stop_asking,
)


class Answers(HTTPServer):
    """A server that gives one answer to everything."""

    status, body = 200, b'"3.0.0"'


class Handler(BaseHTTPRequestHandler):
    server: Answers

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Answers]:
    with Answers(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def check(url: str) -> None:
    with temporary_settings({PREFECT_API_URL: url}):
        require_server()


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, b'"2.20.3"', f"has version 2.20.3, and this environment Prefect {prefect.__version__}"),
        (401, b"{}", "refuses the credentials (status 401). Set PREFECT_API_AUTH_STRING"),
        (404, b"{}", "answers with status 404; expected the API of a Prefect server"),
        (200, b"<html>", "answers, but not as the API of a Prefect server"),
    ],
)
def test_a_server_that_cannot_be_used_is_named_with_the_reason(
    server: Answers, status: int, body: bytes, message: str
) -> None:
    server.status, server.body = status, body
    with pytest.raises(ServerError) as refused:
        check(f"http://me:secret@127.0.0.1:{server.server_port}/api")
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_server_of_the_same_major_version_will_do(server: Answers) -> None:
    server.body = json.dumps(prefect.__version__.partition(".")[0] + ".0.1").encode()
    check(f"http://127.0.0.1:{server.server_port}/api")


def test_a_server_that_does_not_answer_is_named() -> None:
    with HTTPServer(("127.0.0.1", 0), Handler) as closed:
        port = closed.server_port
    with pytest.raises(ServerError, match=rf"no Prefect server answers at http://127\.0\.0\.1:{port}/api\. Start it"):
        check(f"http://127.0.0.1:{port}/api")


def test_prefect_cloud_which_has_no_version_will_do(server: Answers) -> None:
    server.status, server.body = 404, b"{}"
    cloud = f"http://127.0.0.1:{server.server_port}/api"
    with temporary_settings({PREFECT_CLOUD_API_URL: cloud}):
        check(f"{cloud}/accounts/a/workspaces/w")


def test_a_run_that_lost_its_server_ends_without_another_minute_of_retries(
    server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect.client.base.time, "sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    url = f"http://127.0.0.1:{server.server_port}/api"
    with temporary_settings({PREFECT_API_URL: url}):
        server.status = 503
        line = describe_server_failure(httpx.ConnectError("refused"))
        assert line is not None
        assert is_of_lost_server(line)
        assert url in line
        with temporary_settings():
            before = PREFECT_CLIENT_MAX_RETRIES.value()
            monkeypatch.setattr(logging, "raiseExceptions", True)
            stop_asking()
            assert not logging.raiseExceptions
            assert (before, PREFECT_CLIENT_MAX_RETRIES.value()) == (5, 0)
            server_module._WITHOUT_RETRIES.close()


def test_an_error_of_a_server_that_answers_is_told_as_it_is(server: Answers) -> None:
    server.body = json.dumps(prefect.__version__).encode()
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{server.server_port}/api"}):
        line = describe_server_failure(httpx.ReadError("broken"))
    assert line == "broken"
    assert not is_of_lost_server(line)
