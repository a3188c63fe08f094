"""Request IDs, the access log, HEAD, CORS, and metrics."""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isospace.errors import ConfigError
from isospace.search.index import Index
from isospace.service.access_log import AccessLog
from isospace.service.keys import digest
from isospace.service.limits import Limits
from isospace.service.settings import Settings
from tests.helpers.serving import serving

QUERY = "the gene of the cell"
KEY = "a-key-of-some-length"
BEARER = {"Authorization": f"Bearer {KEY}"}


def test_every_answer_has_a_request_id(client: httpx.Client) -> None:
    first, second = (client.get("/healthz").headers["x-request-id"] for _ in range(2))
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
    for given in ("a-trace:1.2/3=", "x" * 128):
        assert client.get("/nope", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    for junk in ("", "x" * 129, "two words", 'a"b', "é"):
        found = client.get("/healthz", headers={"X-Request-Id": junk.encode()}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", found)


def test_an_internal_error_names_its_request(
    opened: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("broken")

    monkeypatch.setattr(Index, "answer", fail)
    with serving(opened) as url:
        answer = httpx.post(f"{url}/search", json={"query": QUERY}, headers={"X-Request-Id": "mine"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "mine")
    assert answer.json()["error"]["message"].endswith("request mine.")
    assert "failed (request mine)" in caplog.text


def test_the_access_log_has_a_line_for_each_request_and_no_secret(opened: Index, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    with (
        serving(opened, Settings(keys={digest(KEY): None}, access_log=str(path))) as url,
        httpx.Client(base_url=url) as asks,
    ):
        asks.headers["X-Request-Id"] = "r1"
        assert asks.post("/search?q=hidden", json={"query": "secret words"}, headers=BEARER).status_code == 200
        texts = {"input": ["secret words", "more words"], "model": "c"}
        tokens = asks.post("/v1/embeddings", json=texts, headers=BEARER).json()["usage"]["total_tokens"]
        assert asks.post("/search", json={"query": "secret"}).status_code == 401
        assert asks.post("/search", json={"query": "secret", "k": 5_000}, headers=BEARER).status_code == 400
        assert asks.head("/healthz").status_code == 200
        assert asks.get("/nope", headers=BEARER).status_code == 404
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 200, 401, 400, 200, 404]
    assert [line["method"] for line in lines] == ["POST"] * 4 + ["HEAD", "GET"]
    assert [line["path"] for line in lines][:2] == ["/search", "/v1/embeddings"]
    assert [line.get("error") for line in lines] == [
        None,
        None,
        "invalid_api_key",
        "invalid_request_error",
        None,
        "not_found_error",
    ]
    first, second, refused = lines[:3]
    assert {line["request_id"] for line in lines} == {"r1"}
    assert {line["client"] for line in lines} == {"127.0.0.1"}
    assert (first["texts"], second["texts"], second["tokens"]) == (1, 2, tokens)
    assert first["bytes_received"] == len(json.dumps({"query": "secret words"}, separators=(",", ":")))
    assert first["bytes_sent"] > 100
    assert 0 < first["milliseconds"] < 60_000
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["time"])
    # Which of the keys it was, by its hash.
    assert first["key"] == digest(KEY).hex()[:8]
    assert "key" not in refused
    assert not re.search(f"secret|hidden|more words|{KEY}", path.read_text())


def test_the_access_log_is_opened_again_after_it_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(str(path))
    log.write({"n": 1})
    wait_for(lambda: bool(path.read_text()))
    path.rename(tmp_path / "access.1")
    log.write({"n": 2})
    log.close()
    assert (tmp_path / "access.1").read_text() == '{"n": 1}\n'
    assert path.read_text() == '{"n": 2}\n'


def test_the_access_log_ends_although_a_line_is_queued_behind_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, go_on = tmp_path / "access.jsonl", threading.Event()
    write_lines = AccessLog._write_lines

    def slowly(log: AccessLog, lines: list[str]) -> None:
        go_on.wait(5)
        write_lines(log, lines)

    monkeypatch.setattr(AccessLog, "_write_lines", slowly)
    log = AccessLog(str(path))
    log.write({"n": 1})
    wait_for(log._waiting.empty)
    closing = threading.Thread(target=log.close)
    closing.start()
    wait_for(lambda: not log._waiting.empty())
    log.write({"n": 2})
    go_on.set()
    closing.join(2)
    assert not closing.is_alive()
    assert path.read_text() == '{"n": 1}\n{"n": 2}\n'


def test_standard_output_is_an_access_log_too(capsys: pytest.CaptureFixture[str]) -> None:
    log = AccessLog("-")
    log.write({"path": "/\n\ud800"})
    log.close()
    assert capsys.readouterr().out == '{"path": "/\\n\\ud800"}\n'


def test_an_access_log_that_cannot_be_written_is_refused_or_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigError, match=r"--access-log .*none.*: cannot be written"):
        AccessLog(str(tmp_path / "none" / "access.jsonl"))
    log = AccessLog("/dev/full")
    for n in range(3):
        log.write({"n": n})
    log.close()
    assert log.dropped == 3
    assert caplog.text.count("the access log cannot be written") == 1


def test_head_is_get_without_the_body(client: httpx.Client) -> None:
    for path in ("/", "/docs", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/c", "/openapi.json"):
        get, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Type"] == get.headers["Content-Type"]
        if path != "/metrics":
            assert head.headers["Content-Length"] == str(len(get.content))
    assert client.head("/search").status_code == 405
    assert client.delete("/healthz").headers["Allow"] == "GET, HEAD"
    # On a kept connection, the next answer would be misread if a body had been sent.
    assert client.get("/healthz").text == "ok"


@pytest.mark.parametrize("origins", [("https://search.example",), ("*",)])
def test_pages_of_allowed_origins_may_ask_from_a_browser(opened: Index, origins: tuple[str, ...]) -> None:
    with serving(opened, Settings(keys={digest(KEY): None}, origins=origins)) as url:
        preflight = {
            "Origin": "https://search.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
        }
        answer = httpx.options(f"{url}/search", headers=preflight)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] in ("https://search.example", "*")
        assert "x-stainless-os" in answer.headers["Access-Control-Allow-Headers"]
        # What is refused has to be readable, too.
        for headers, status in ((BEARER, 200), ({}, 401)):
            answer = httpx.post(
                f"{url}/search", json={"query": QUERY}, headers={"Origin": "https://search.example", **headers}
            )
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] in ("https://search.example", "*")
            assert "X-Request-Id" in answer.headers["Access-Control-Expose-Headers"]
        other = httpx.get(f"{url}/healthz", headers={"Origin": "https://evil.example"})
        assert ("Access-Control-Allow-Origin" in other.headers) == (origins == ("*",))


def test_without_the_option_no_other_origin_may_ask(client: httpx.Client) -> None:
    answer = client.get("/healthz", headers={"Origin": "https://search.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("origin", ["search.example", "https://search.example/", "https://*.example", "ftp://a", ""])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--cors {origin}: expected the scheme and host")):
        Settings(keys={digest(KEY): None}, origins=(origin,))
    with pytest.raises(ConfigError, match=r"--cors \*: every page .* could search"):
        Settings(origins=("*",))


def test_metrics_have_the_types_and_names_that_prometheus_expects(opened: Index) -> None:
    with serving(opened, Settings(keys={digest(KEY): None})) as url:
        for _ in range(2):
            httpx.post(f"{url}/v1/embeddings", json={"input": "a new text", "model": "c"}, headers=BEARER)
        httpx.post(f"{url}/search", json={"query": QUERY})
        answer = httpx.get(f"{url}/metrics", headers=BEARER)
        asked = httpx.get(f"{url}/metrics", headers={**BEARER, "Accept": "application/openmetrics-text"})
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert asked.headers["Content-Type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    kinds = {name: family.type for name, family in families.items() if not name.endswith("_created")}
    assert {name for name, kind in kinds.items() if kind == "histogram"} == {
        "isospace_request_seconds",
        "isospace_batch_texts",
    }
    for name in ("requests", "tokens", "query_cache_lookups", "semantic_cache_hits"):
        assert kinds[f"isospace_{name}"] == "counter"
        assert all(sample.name.endswith("_total") for sample in families[f"isospace_{name}"].samples)
    for name in ("requests_under_way", "snapshot", "bitwise", "refresh_failed", "keys_failed", "keys", "build_info"):
        assert kinds[f"isospace_{name}"] == "gauge"
    assert kinds["process_cpu_seconds"] == "counter"
    assert all(family.documentation.endswith(".") for name, family in families.items() if name in kinds)
    # Also what was refused is counted under its route.
    counts = {(s.labels["path"], s.labels["status"]): s.value for s in families["isospace_requests"].samples}
    assert counts[("/search", "401")] == 1
    assert counts[("/v1/embeddings", "200")] == 2
    lookups = {s.labels["result"]: s.value for s in families["isospace_query_cache_lookups"].samples}
    assert lookups["hit"] >= 1


def test_nothing_is_computed_for_a_client_that_has_gone(
    opened: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, begun = tmp_path / "access.jsonl", []

    def slow(*_: object, **__: object) -> list[object]:
        begun.append(1)
        time.sleep(0.1)
        return [[0.0]]

    monkeypatch.setattr("isospace.service.state.embed_items", slow)
    content = json.dumps({"model": "c", "input": [f"text {n}" for n in range(100)]}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    with serving(opened, Settings(access_log=str(path), batch_tokens=1)) as url:
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as client:
            client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(content) + content)
            wait_for(lambda: bool(begun))
        wait_for(lambda: path.exists() and bool(path.read_text()))
        assert json.loads(path.read_text())["status"] == 499
        assert len(begun) < 50
        assert 'status="499"' in httpx.get(f"{url}/metrics").text
        assert "isospace_requests_under_way 1.0" in httpx.get(f"{url}/metrics").text


def test_all_bodies_together_are_limited(opened: Index) -> None:
    with serving(opened, Settings(limits=Limits(all_bodies_bytes=1_000))) as url:
        head = b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 950\r\n\r\n" + b" " * 900
        with socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))) as other:
            other.sendall(head)
            wait_for(lambda: httpx.post(f"{url}/search", json={"query": "a" * 200}).status_code == 429)
        # What the other one held is free again.
        wait_for(lambda: httpx.post(f"{url}/search", json={"query": QUERY}).status_code == 200)


def test_bodies_of_clients_without_a_key_take_no_room(opened: Index) -> None:
    settings = Settings(keys={digest(KEY): None}, limits=Limits(all_bodies_bytes=1_000))
    with serving(opened, settings) as url, contextlib.ExitStack() as others:
        for path in (b"/", b"/docs", b"/healthz"):
            other = others.enter_context(socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1]))))
            other.sendall(b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 950\r\n\r\n" % path + b" " * 900)
            assert other.recv(1_000).startswith(b"HTTP/1.1 200")
        body = json.dumps({"query": QUERY}).ljust(300)
        answer = httpx.post(f"{url}/search", content=body, headers={**BEARER, "Content-Type": "application/json"})
        assert answer.status_code == 200


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
