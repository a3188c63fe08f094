"""Limits, batches, and how the service begins and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from isospace.errors import ConfigError
from isospace.search.index import Index
from isospace.service.app import create_app
from isospace.service.limits import Limits
from isospace.service.server import _listen, serve
from isospace.service.settings import ServiceOptions, Settings
from isospace.service.start import start
from tests.helpers.serving import serving

QUERY = "the gene of the cell"
KEY = "a-key-of-some-length"


def test_a_port_that_is_taken_is_found_before_the_snapshot_is_opened(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match="cannot listen there"):
            start(ServiceOptions(str(tmp_path / "no store"), "c", settings=settings))


def test_bodies_that_are_too_large_or_too_slow_are_refused(opened: Index) -> None:
    limits = Limits(body_bytes=10_000, body_seconds=0.5, requests=1)
    with serving(opened, Settings(limits=limits)) as url:
        port = int(url.rsplit(":", 1)[1])
        assert httpx.post(f"{url}/search", json={"query": "x" * 20_000}).status_code == 413
        # Without a length the body is counted as it comes.
        assert httpx.post(f"{url}/search", content=iter([b"x" * 6_000] * 2)).status_code == 413
        head = b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        for one in slow:
            one.sendall(head)
        time.sleep(0.2)
        assert httpx.post(f"{url}/search", json={"query": QUERY}).status_code == 429
        assert httpx.get(f"{url}/healthz").status_code == 200
        for one in slow:
            assert b"408" in one.recv(4096).split(b"\r\n")[0]
            one.close()
        assert httpx.post(f"{url}/search", json={"query": QUERY}).status_code == 200


def test_more_requests_than_are_answered_at_once_are_told_to_come_again(
    opened: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    answer = Index.answer

    def held(*given: object, **named: object) -> object:
        begun.set()
        assert ended.wait(10)
        return answer(*given, **named)

    monkeypatch.setattr(Index, "answer", held)
    with serving(opened, Settings(limits=Limits(requests=1))) as url:
        found: list[int] = []
        first = threading.Thread(
            target=lambda: found.append(httpx.post(f"{url}/search", json={"query": QUERY}).status_code)
        )
        first.start()
        assert begun.wait(10)
        crowded = httpx.post(f"{url}/search", json={"query": QUERY})
        assert crowded.status_code == 429
        assert crowded.headers["Retry-After"] == "1"
        assert httpx.get(f"{url}/readyz").status_code == 200
        ended.set()
        first.join()
    assert found == [200]


def test_a_large_request_is_computed_between_small_ones(opened: Index) -> None:
    with serving(opened, Settings(batch_tokens=64)) as url:
        ends: dict[str, float] = {}

        def ask(name: str, body: dict) -> None:
            assert httpx.post(f"{url}/v1/embeddings", json={"model": "c", **body}, timeout=60).status_code == 200
            ends[name] = time.perf_counter()

        large = threading.Thread(target=ask, args=("large", {"input": [f"the gene of cell {n}" for n in range(512)]}))
        large.start()
        time.sleep(0.05)
        ask("small", {"input": "the cell"})
        large.join()
        figures = httpx.get(f"{url}/metrics").text
    assert ends["small"] < ends["large"]
    counted = 'isospace_batch_texts_count{work="embed"}'
    assert float(next(line for line in figures.splitlines() if line.startswith(counted)).split()[-1]) > 20


def test_a_request_that_takes_too_long_is_told_to_come_again(opened: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> None:
        time.sleep(1.0)

    with serving(opened, Settings(limits=Limits(request_seconds=0.2))) as url:
        with monkeypatch.context() as patched:
            patched.setattr(Index, "answer", slow)
            answer = httpx.post(f"{url}/search", json={"query": QUERY})
            assert answer.status_code == 429
            assert answer.json()["error"]["code"] == "timeout"
            time.sleep(1.2)
        assert httpx.post(f"{url}/search", json={"query": QUERY}).status_code == 200


def test_a_request_that_outlasts_the_shutdown_is_told_to_come_again(
    opened: Index, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    begun, found = threading.Event(), []

    def slow(*_: object, **__: object) -> list[object]:
        begun.set()
        time.sleep(0.1)
        return [[0.0]]

    def ask() -> None:
        body = {"model": "c", "input": [f"text {n}" for n in range(60)]}
        found.append(httpx.post(f"{url}/v1/embeddings", json=body, timeout=30))

    monkeypatch.setattr("isospace.service.state.embed_items", slow)
    asking = threading.Thread(target=ask)
    with serving(opened, Settings(batch_tokens=1, limits=Limits(drain_seconds=1))) as url:
        asking.start()
        assert begun.wait(20)
    asking.join(20)
    assert found[0].status_code == 503
    assert "Send it again" in found[0].json()["error"]["message"]
    assert "Traceback" not in caplog.text


def test_a_client_that_sends_no_request_is_let_go(opened: Index) -> None:
    with serving(opened, Settings(limits=Limits(header_seconds=0.3))) as url:
        port = int(url.rsplit(":", 1)[1])
        for begun in (b"", b"GET /healthz HT", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "):
            with socket.create_connection(("127.0.0.1", port), timeout=5) as idle:
                idle.sendall(begun)
                assert idle.recv(1) == b""
        with httpx.Client(base_url=url) as client:
            assert client.get("/healthz").status_code == 200


def test_the_command_serves_and_ends_when_it_is_told(plain_store: str, local_copies: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from isospace.cli.main import main; main()",
        "serve",
        plain_store,
        "c",
        "--port",
        "0",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command,
        # No terminal: in one, the service ends with it.
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        assert "handshake passed" in process.stdout.readline()
        url = process.stdout.readline().split()[-1]
        assert httpx.get(f"{url}/readyz").text == "ready"
        # By itself, this signal would end the process.
        process.send_signal(signal.SIGHUP)
        assert httpx.post(f"{url}/search", json={"query": QUERY}).status_code == 200
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        # Not ready any more, and still answering.
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_who_reads_that_it_listens_can_connect(opened: Index, host: str) -> None:
    settings = Settings(host=host, port=0)
    lines: list[str] = []

    def connect(line: str) -> None:
        lines.append(line)
        address = httpx.URL(line.split()[-1])
        assert address.port is not None
        socket.create_connection((address.host, address.port), timeout=5).close()
        signal.raise_signal(signal.SIGINT)

    serve(create_app(opened, settings), settings, on_progress=connect)
    assert len(lines) == 1


def test_a_port_that_is_taken_is_taken_over_only_on_purpose(url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    with pytest.raises(ConfigError, match=r"Address already in use.*--take-over"):
        _listen(Settings(port=port))
    # The first one has to share it, too: the fixture's socket does not.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    first = _listen(Settings(port=number))
    first.listen()
    with pytest.raises(ConfigError, match="--take-over"):
        _listen(Settings(port=number))
    second = _listen(Settings(port=number, take_over=True))
    second.listen()
    for one in (first, second):
        one.close()


def test_serving_refuses_to_start_on_a_mismatch(plain_store: str, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(plain_store, tmp_path / "copy"))
    graph = max((copy / "encoders").rglob("graph.bin"), key=lambda path: path.stat().st_size)
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    command = [
        sys.executable,
        "-c",
        "from isospace.cli.main import main; main()",
        "serve",
        str(copy),
        "c",
        "--port",
        "0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "graph.bin" in done.stderr
    assert done.stdout == ""


def test_concurrent_requests_are_computed_together_and_each_gets_its_own(opened: Index) -> None:
    texts = [f"the gene of cell number {n}" for n in range(40)]
    expected = {text: [hit.chunk_id for hit in opened.search(text, 3)[0]] for text in texts}
    with serving(opened, Settings(batch_seconds=0.05)) as url:
        found: dict[str, list[str]] = {}

        def ask(text: str) -> None:
            answer = httpx.post(f"{url}/search", json={"query": text, "k": 3}, timeout=30).json()
            found[text] = [hit["chunk_id"] for hit in answer["results"][0]["hits"]]

        threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == expected
        figures = httpx.get(f"{url}/metrics").text
    counted = 'isospace_batch_texts_count{work="search"}'
    batches = float(next(line for line in figures.splitlines() if line.startswith(counted)).split()[-1])
    assert batches < len(texts) / 2
    assert f'isospace_snapshot{{space_id="{opened.space.space_id}"}}' in figures
    assert 'isospace_requests_total{path="/search",status="200"} 40.0' in figures


def test_one_bad_query_does_not_fail_those_that_came_with_it(opened: Index) -> None:
    # Two vectors a query would be no mode of this snapshot: refused when it is computed, not before.
    with serving(opened, Settings(batch_seconds=0.1)) as url:
        answers: list[int] = []

        def ask(body: dict) -> None:
            answers.append(httpx.post(f"{url}/search", json=body, timeout=30).status_code)

        bodies = [{"query": QUERY}, {"query": QUERY, "mode": "exact", "representation": "nope"}] * 4
        threads = [threading.Thread(target=ask, args=(body,)) for body in bodies]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(answers) == [200] * 4 + [400] * 4


@pytest.mark.parametrize(
    ("path", "given", "says"),
    [
        ("/search", {"content": b'{"query": "x"}'}, "Content-Type: application/json"),
        ("/search", {"json": {"query": "x", "top_k": 3}}, r"top_k: unknown field. Known: query, like, k, mode"),
        (
            "/v1/embeddings",
            {"json": {"input": "x", "model": "c", "size": 3}},
            "size: unknown field. Known: input",
        ),
        ("/search", {"json": {"query": []}}, "query is empty"),
        ("/search", {"json": {"query": "x", "rerank": True}}, "Serve with --reranker FOLDER"),
    ],
)
def test_errors_say_what_to_send(url: str, path: str, given: dict, says: str) -> None:
    answer = httpx.post(url + path, **given)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_a_space_that_is_named_by_its_beginning_is_another_and_no_nonsense(url: str) -> None:
    for demanded, says in (("deadbeefdeadbeef", "Send all 64 digits"), ("nonsense", "is not a space ID")):
        answer = httpx.post(f"{url}/search", json={"query": "x"}, headers={"X-Isospace-Space": demanded})
        assert answer.status_code == 409
        assert says in answer.json()["error"]["message"]


def test_what_does_not_exist_is_told_with_where_to_look(url: str) -> None:
    assert "/openapi.json" in httpx.get(f"{url}/redoc").json()["error"]["message"]
    assert httpx.get(f"{url}/openapi.json").json()["info"]["title"] == "isospace"
