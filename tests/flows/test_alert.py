from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest

from flows.alert import alert, main

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def hook() -> Iterator[tuple[str, list[dict]]]:
    received: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()


def automations() -> list[dict]:
    from prefect.settings import get_current_settings

    answer = httpx.post(f"{get_current_settings().api.url}/automations/filter", json={}, timeout=30)
    return [one for one in answer.raise_for_status().json() if one["name"] == "isospace-alarms"]


def test_a_webhook_is_set_up_once_and_replaced(hook: tuple[str, list[dict]]) -> None:
    from prefect.blocks.webhook import Webhook

    url, received = hook
    alert(webhook="http://127.0.0.1:9/old")
    alert(webhook=url)
    (made,) = automations()
    assert set(made["trigger"]["expect"]) == {"isospace.audit.alarm", "isospace.gate.rejected"}
    assert made["actions"][0]["type"] == "call-webhook"
    block = Webhook.load("isospace-alarms")
    asyncio.run(block.call({"text": "it rings"}))
    assert received == [{"text": "it rings"}]


def test_a_block_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["alert", "--block", "sendgrid-email/nobody"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "nobody" in capsys.readouterr().err


def test_what_the_server_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        request = httpx.Request("POST", "http://127.0.0.1/api/automations/")
        raise httpx.HTTPStatusError("422 Unprocessable", request=request, response=httpx.Response(422, request=request))

    monkeypatch.setattr("flows.alert.alert", refuse)
    monkeypatch.setattr("sys.argv", ["alert", "--webhook", "http://127.0.0.1:9/hook"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: 422 Unprocessable\n"
