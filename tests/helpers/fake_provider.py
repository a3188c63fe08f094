"""A provider of embeddings on loopback that speaks five protocols, and fails on request.

    with FakeProvider(faults=[Fault("limited", every=3)]) as provider:
        ServedClient(ServedModel("openai", "m"), Endpoint(provider.url("openai"))).embed(texts, "document")

With `upstream`, it is a proxy: it passes requests on to another server and spoils that server's answers. A vector
depends on the text and on everything in the request that tells the role.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

Kind = Literal[
    "limited",  # 429, without headers
    "limited, with Retry-After",
    "limited, inside 200",
    "failed",  # 500
    "failed, inside 200",
    "silent",  # no answer within the client's timeout
    "half an answer",
    "not JSON",
    "shuffled",  # the vectors in another order, each with its right index where the protocol has one
    "doubled index",
    "missing vectors",
    "not finite",
    "all equal",
    "another dimension",
    "another model",
    "role dropped",  # the parameters of the role never reach the model
]
ROLE_FIELDS = ("input_type", "prompt_name", "taskType", "task_type", "prompt")
DIMENSION = 16


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


def vector_of(text: str, marker: str = "", dimension: int = DIMENSION) -> np.ndarray:
    """Return the (dimension,) float32 unit vector of a text in a role."""
    seed = hashlib.sha256(f"{marker}|{text}".encode("utf-8", "replace")).digest()
    values = np.random.default_rng(np.frombuffer(seed, np.uint32)).standard_normal(dimension)
    return (values / np.linalg.norm(values)).astype(np.float32)


def tokens_of(text: str) -> int:
    return len(text.split()) + 2


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
    rejects: Callable[[str], str | None] = lambda text: None
    most_texts: int = 10_000
    parameters_wrong: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    usage: bool = True
    received: list[Received] = field(default_factory=list)
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
        if self.key is not None and self.key not in "".join(handler.headers.values()):
            sent = handler.headers.get("Authorization") or handler.headers.get("x-goog-api-key") or ""
            return 401, {}, {"error": {"message": f"Incorrect API key provided: {sent}", "code": "invalid_api_key"}}
        if fault is not None and (early := self._fail_early(fault)) is not None:
            return None if early == "drop" else early
        if fault is not None and fault.kind == "role dropped":
            body = without_role(body)
            raw = json.dumps(body).encode()
        if self.upstream is not None:
            status, headers, answer = _forward(self.upstream, method, handler, raw)
        else:
            status, headers, answer = self._embed(method, path, body)
        if fault is not None and status == 200:
            answer = self._spoil(fault, answer)
        return status, {**headers, **self.headers}, answer

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
            case "silent":
                self._closing.wait(self.silence)
                return "drop"
        return None

    def _embed(self, method: str, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        if path == "/info" and method == "GET":
            return 200, {}, {"model_id": self.model, "model_sha": "abc", "max_client_batch_size": 32}
        protocol = _protocol_of(path)
        if protocol is None:
            return 404, {}, {"error": {"message": f"unknown path {path}", "code": "not_found"}}
        if self.parameters_wrong is not None:
            return 400, {}, _error(protocol, self.parameters_wrong)
        texts = texts_in(body)
        if len(texts) > self.most_texts:
            return 413, {}, _error(protocol, f"batch of {len(texts)} texts, at most {self.most_texts}")
        for text in texts:
            if (reason := self.rejects(text)) is not None:
                return 400, {}, _error(protocol, reason)
        vectors = [vector_of(text, marker_of(body), self._wanted(body)) for text in texts]
        return 200, *self._written(protocol, body, texts, vectors)

    def _wanted(self, body: Any) -> int:
        each = body["requests"][0] if "requests" in body else body.get("parameters", body)
        found = [each.get(name) for name in ("dimensions", "output_dimension", "outputDimensionality")]
        return next((value for value in found if value), self.dimension)

    def _written(
        self, protocol: str, body: Any, texts: list[str], vectors: list[np.ndarray]
    ) -> tuple[dict[str, str], Any]:
        tokens = sum(map(tokens_of, texts))
        lists = [[float(value) for value in vector] for vector in vectors]
        match protocol:
            case "openai" | "voyage":
                form = [_base64(v) for v in vectors] if body.get("encoding_format") == "base64" else lists
                data = [{"object": "embedding", "index": i, "embedding": one} for i, one in enumerate(form)]
                usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if self.usage else {}
                return {}, {"object": "list", "data": data, "model": self.model, **usage}
            case "tei":
                return {"x-compute-tokens": str(tokens)} if self.usage else {}, lists
            case "cohere":
                meta = {"meta": {"billed_units": {"input_tokens": tokens}}} if self.usage else {}
                return {}, {"id": "1", "embeddings": {"float": lists}, "texts": [t.lower() for t in texts], **meta}
            case "vertex":
                one = [{"embeddings": {"values": v, "statistics": {"truncated": False, "token_count": tokens_of(t)}}}
                       for v, t in zip(lists, texts, strict=True)]  # fmt: skip
                return {}, {"predictions": one}
            case _:
                usage = {"usageMetadata": {"promptTokenCount": tokens}} if self.usage else {}
                return {}, {"embeddings": [{"values": values} for values in lists], **usage}

    def _spoil(self, fault: Fault, answer: Any) -> Any:
        items = _items(answer)
        match fault.kind:
            case "half an answer":
                text = json.dumps(answer)
                return text[: len(text) // 2]
            case "shuffled":
                return _with_items(answer, items[1:] + items[:1])
            case "missing vectors":
                return _with_items(answer, items[:-1])
            case "doubled index" if isinstance(answer, dict) and "data" in answer:
                return {**answer, "data": [{**item, "index": 0} for item in items]}
            case "not finite":
                return _with_items(answer, [_mapped(items[0], lambda v: np.full_like(v, np.nan)), *items[1:]])
            case "all equal":
                first = items[0]
                return _with_items(answer, [_mapped(item, lambda _: _vector(first)) for item in items])
            case "another dimension":
                return _with_items(answer, [_mapped(item, lambda v: v[:-1]) for item in items])
            case "another model" if isinstance(answer, dict):
                return {**answer, "model": f"{answer.get('model')}-new"}
        return answer


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


def texts_in(body: Any) -> list[str]:
    """Return the texts of a request of any protocol."""
    if not isinstance(body, dict):
        return []
    if "requests" in body:
        return [one["content"]["parts"][0]["text"] for one in body["requests"]]
    if "instances" in body:
        return [one["content"] for one in body["instances"]]
    found = next((body[name] for name in ("input", "inputs", "texts") if name in body), [])
    return [found] if isinstance(found, str) else list(found)


def marker_of(body: Any) -> str:
    """Return what tells the role in a request."""
    each = body.get("requests", body.get("instances", [{}]))[0]
    return json.dumps([{name: where[name] for name in ROLE_FIELDS if name in where} for where in (body, each)])


def without_role(body: Any) -> Any:
    """Return a request without what tells the role."""
    if isinstance(body, list):
        return [without_role(one) for one in body]
    if isinstance(body, dict):
        return {name: without_role(value) for name, value in body.items() if name not in ROLE_FIELDS}
    return body


def _protocol_of(path: str) -> str | None:
    ends = {"/embeddings": "openai", "/v2/embed": "cohere", ":batchEmbedContents": "google", ":predict": "vertex"}
    found = next((protocol for end, protocol in ends.items() if path.endswith(end)), None)
    return found or ("tei" if path == "/embed" else None)


def _error(protocol: str, reason: str) -> Any:
    match protocol:
        case "tei":
            return {"error": reason, "error_type": "validation"}
        case "cohere":
            return {"id": "1", "message": reason}
        case "google" | "vertex":
            return {"error": {"code": 400, "message": reason, "status": "INVALID_ARGUMENT"}}
        case _:
            return {"error": {"message": reason, "type": "invalid_request_error", "param": None, "code": None}}


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


def _items(answer: Any) -> list[Any]:
    if isinstance(answer, list):
        return answer
    if "data" in answer:
        return list(answer["data"])
    found = answer.get("embeddings", answer.get("predictions"))
    return list(found["float"]) if isinstance(found, dict) else list(found)


def _with_items(answer: Any, items: Iterable[Any]) -> Any:
    items = list(items)
    if isinstance(answer, list):
        return items
    for name in ("data", "predictions"):
        if name in answer:
            return {**answer, name: items}
    if isinstance(answer["embeddings"], dict):
        return {**answer, "embeddings": {"float": items}}
    return {**answer, "embeddings": items}


def _mapped(item: Any, change: Callable[[np.ndarray], np.ndarray]) -> Any:
    if isinstance(item, list):
        return change(_vector(item)).tolist()
    if "embedding" in item:
        changed = change(_vector(item))
        return {**item, "embedding": _base64(changed) if isinstance(item["embedding"], str) else changed.tolist()}
    if "values" in item:
        return {**item, "values": change(_vector(item)).tolist()}
    return {"embeddings": {**item["embeddings"], "values": change(_vector(item)).tolist()}}


def _vector(item: Any) -> np.ndarray:
    if isinstance(item, dict):
        item = item.get("embedding", item.get("values", (item.get("embeddings") or {}).get("values")))
    if isinstance(item, str):
        return np.frombuffer(base64.b64decode(item), "<f4")
    return np.array(item, np.float32)


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode("ascii")
