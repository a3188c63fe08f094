"""A provider of embeddings on loopback that speaks five protocols, and fails on request.

    with FakeProvider(faults=[Fault("limited", every=3)]) as provider:
        ServedClient(ServedModel("openai", "m"), Endpoint(provider.url("openai"))).embed(texts, "document")

With `upstream`, it is a proxy: it passes requests on to another server and corrupts that server's answers. A vector
depends on the text and on everything in the request that tells the role. Requests are checked against
the provider's schema.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from tests.helpers.fake_provider_answers import (
    DIMENSION,
    Kind,
    error_body,
    marker_of,
    protocol_of,
    spoiled_answer,
    texts_in,
    vector_of,
    wanted_dimension,
    without_role,
    written,
)
from tests.helpers.provider_schemas import problem_of


@dataclass
class Fault:
    """A fault, and the requests that it hits: every n-th, those from a number on, at most so many of them."""

    kind: Kind
    every: int = 1
    start: int = 1
    times: int | None = None
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    when: Callable[[int], bool] | None = None

    def hits(self, number: int) -> bool:
        if self.times == 0 or number < self.start or (number - self.start) % self.every:
            return False
        if self.when is not None and not self.when(number):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any
    status: int
    at: float


@dataclass
class FakeProvider:
    """The server; a context manager."""

    faults: list[Fault] = field(default_factory=list)
    upstream: str | None = None
    key: str | None = None
    model: str = "fake-1"
    dimension: int = DIMENSION
    latency: float = 0.0
    silence: float = 5.0
    rejects: Callable[[str], str | None] = lambda text: None  # the reason for refusing a text
    most_texts: int = 10_000
    parameters_wrong: str | None = None
    rejects_with: int = 400
    spoiled: Callable[[str], bool] = lambda text: False  # whether a text's vector is not finite
    hangs: Callable[[str], bool] = lambda text: False  # whether a request with a text is never answered
    repeat_shuffled: bool = False
    redirect: str | None = None
    echo_key: bool = False  # whether errors repeat the key, as some gateways do
    before_answer: Callable[[], None] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    usage: bool = True
    strict: bool = True
    received: list[Received] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    answered_texts: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def __enter__(self) -> FakeProvider:
        provider = self
        self._closing = threading.Event()

        class Handler(_Handler):
            owner = provider

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join()
        assert not self.invalid, self.invalid[0]

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, protocol: str) -> str:
        base = {"openai": "/v1", "voyage": "/v1", "google": "/v1beta"}.get(protocol, "")
        return f"http://127.0.0.1:{self.port}{base}"

    @property
    def embeds(self) -> list[Received]:
        """The requests for embeddings."""
        return [one for one in self.received if one.method == "POST"]

    def texts_received(self) -> list[str]:
        return [text for one in self.embeds for text in texts_in(one.body)]

    def answer(self, handler: _Handler, method: str, raw: bytes) -> tuple[int, dict[str, str], Any] | None:
        """Return status, headers, and body; None drops the connection."""
        parts = urlsplit(handler.path)
        body = json.loads(raw) if raw else None
        with self._lock:
            self._number += method == "POST"
            number = self._number
            fault = next((one for one in self.faults if method == "POST" and one.hits(number)), None)
        if self.before_answer is not None:
            self.before_answer()
        if self.latency:
            time.sleep(self.latency)
        result = self._answer(handler, method, parts.path, body, raw, fault)
        with self._lock:
            status = result[0] if result else 0
            headers = {name.lower(): value for name, value in handler.headers.items()}
            self.received.append(Received(method, parts.path, parts.query, headers, body, status, time.monotonic()))
            if result and status == 200 and fault is None and method == "POST":
                self.answered_texts += texts_in(body)
        return result

    def _answer(
        self, handler: _Handler, method: str, path: str, body: Any, raw: bytes, fault: Fault | None
    ) -> tuple[int, dict[str, str], Any] | None:
        if self.redirect is not None:
            return 307, {"Location": self.redirect}, {}
        if self.key is not None and self.key not in "".join(handler.headers.values()):
            sent = handler.headers.get("Authorization") or handler.headers.get("x-goog-api-key") or ""
            return 401, {}, {"error": {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}}
        if fault is not None and (early := self._fail_early(fault)) is not None:
            return None if early == "drop" else self._echoed(early, handler)
        if fault is not None and fault.kind == "role dropped":
            body = without_role(body)
            raw = json.dumps(body).encode()
        if self.upstream is not None:
            status, headers, answer = _forward(self.upstream, method, handler, raw)
        else:
            status, headers, answer = self._embed(method, path, body)
        if fault is not None and status == 200:
            answer = spoiled_answer(fault.kind, answer, repeated=self.repeat_shuffled)
        return status, {**headers, **self.headers}, answer

    def _echoed(self, answer: Any, handler: _Handler) -> Any:
        status, headers, body = answer
        if self.echo_key and isinstance(body, dict):
            body["error"]["message"] += f" for {handler.headers.get('Authorization')}"
        return status, headers, body

    def _fail_early(self, fault: Fault) -> Any:
        limit = {"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}}
        match fault.kind:
            case "limited":
                return fault.status or 429, fault.headers, limit
            case "limited, with Retry-After":
                return 429, {"Retry-After": "1", **fault.headers}, limit
            case "limited, inside 200":
                return 200, fault.headers, limit
            case "failed":
                return fault.status or 500, fault.headers, {"error": {"message": "internal", "type": "server_error"}}
            case "failed, inside 200":
                return 200, {}, {"error": {"message": "the model crashed", "code": "server_error"}}
            case "not JSON":
                return 200, {}, "<html>hello</html>"
            case "dropped":
                return "drop"
            case "silent":
                self._closing.wait(self.silence)
                return "drop"
        return None

    def _embed(self, method: str, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        if path == "/info" and method == "GET":
            return 200, {}, {"model_id": self.model, "model_sha": "abc", "max_client_batch_size": 32}
        protocol = protocol_of(path)
        if protocol is None:
            return 404, {}, {"error": {"message": f"unknown path {path}", "code": "not_found"}}
        # The path of OpenAI and Voyage is the same, and their requests differ.
        protocol = "voyage" if protocol == "openai" and "truncation" in body else protocol
        if self.strict and (problem := problem_of(protocol, body)) is not None:
            self.invalid.append(problem)
            return 400, {}, error_body(protocol, problem)
        if self.parameters_wrong is not None:
            return 400, {}, error_body(protocol, self.parameters_wrong)
        texts = texts_in(body)
        if any(map(self.hangs, texts)):
            self._closing.wait(self.silence)
            return 504, {}, error_body(protocol, "timeout")
        if len(texts) > self.most_texts:
            return 413, {}, error_body(protocol, f"batch of {len(texts)} texts, at most {self.most_texts}")
        for text in texts:
            if (reason := self.rejects(text)) is not None:
                return self.rejects_with, {}, error_body(protocol, reason)
        vectors = [vector_of(text, marker_of(body), wanted_dimension(body, self.dimension)) for text in texts]
        for vector in (vector for text, vector in zip(texts, vectors, strict=True) if self.spoiled(text)):
            vector[0] = np.nan
        return 200, *written(protocol, body, texts, vectors, model=self.model, usage=self.usage)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, *arguments: Any) -> None:
        self.connections: set[socket.socket] = set()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for connection in self.connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    owner: FakeProvider

    def do_POST(self) -> None:
        self._serve("POST", self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_DELETE(self) -> None:
        self._serve("DELETE", b"")

    def do_GET(self) -> None:
        self._serve("GET", b"")

    def _serve(self, method: str, raw: bytes) -> None:
        result = self.owner.answer(self, method, raw)
        if result is None:
            self.close_connection = True
            return
        status, headers, answer = result
        data = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _forward(upstream: str, method: str, handler: _Handler, raw: bytes) -> tuple[int, dict[str, str], Any]:
    parts = urlsplit(upstream)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    skipped = ("host", "content-length", "connection", "accept-encoding")
    try:
        headers = {name: value for name, value in handler.headers.items() if name.lower() not in skipped}
        connection.request(method, parts.path.rstrip("/") + handler.path, raw or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        kept = ("retry-after", "x-compute-tokens")
        headers = {name: value for name, value in answer.getheaders() if name.lower() in kept}
        try:
            return answer.status, headers, json.loads(data)
        except ValueError:
            return answer.status, headers, data.decode("utf-8", "replace")
    finally:
        connection.close()
