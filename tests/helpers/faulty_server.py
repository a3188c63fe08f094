"""A reverse proxy on loopback that fails on request: what a server, or the way to it, can do to a client."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Matches = Callable[[str, str], bool]
Kind = Literal["refuse", "delay", "lose the answer", "cut the body"]

_PER_CONNECTION = ("connection", "keep-alive", "transfer-encoding")
_REASONS = {409: "ConditionalRequestConflict", 500: "InternalError", 503: "SlowDown"}
ALWAYS = 1 << 30


def anything(method: str, path: str) -> bool:
    return True


@dataclass
class _Fault:
    kind: Kind
    left: int
    matches: Matches
    status: int = 0
    seconds: float = 0.0


@dataclass
class FaultyServer:
    """Passes requests on to `upstream`, a port on loopback, unless it was told to fail."""

    upstream: int
    url: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    _faults: list[_Fault] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refuse(self, times: int, *, status: int = 500, matches: Matches = anything) -> None:
        """Answer the next matching requests with an error, and do not pass them on."""
        self._add(_Fault("refuse", times, matches, status=status))

    def slow_down(self, times: int, *, matches: Matches = anything) -> None:
        """Answer the next matching requests as S3 does that is asked too much."""
        self.refuse(times, status=503, matches=matches)

    def delay(self, times: int, seconds: float, *, matches: Matches = anything) -> None:
        """Pass the next matching requests on, and answer later."""
        self._add(_Fault("delay", times, matches, seconds=seconds))

    def lose_answer(self, times: int, *, matches: Matches = anything) -> None:
        """Pass the next matching requests on, and drop the connection in place of the answer."""
        self._add(_Fault("lose the answer", times, matches))

    def cut_body(self, times: int, *, matches: Matches = anything) -> None:
        """Pass the next matching requests on, and drop the connection after half of the body of the answer."""
        self._add(_Fault("cut the body", times, matches))

    def heal(self) -> None:
        """Forget what is left to be injected, and the requests seen so far."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def pending(self) -> int:
        """Return how many faults are still to be injected."""
        with self._lock:
            return sum(fault.left for fault in self._faults)

    def count(self, method: str) -> int:
        """Return how many requests of a method have come since the last `heal`."""
        with self._lock:
            return sum(seen == method for seen, _ in self.requests)

    def take(self, method: str, path: str) -> _Fault | None:
        """Note a request, and return the fault that is to befall it."""
        with self._lock:
            self.requests.append((method, path))
            for fault in self._faults:
                if fault.left and fault.matches(method, path):
                    fault.left -= 1
                    return fault
        return None

    def _add(self, fault: _Fault) -> None:
        with self._lock:
            self._faults.append(fault)


@contextmanager
def faulty_server(upstream: int) -> Iterator[FaultyServer]:
    """Serve in a thread until the block ends."""
    faulty = FaultyServer(upstream)
    server = _Server(faulty)
    faulty.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, faulty: FaultyServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faulty = faulty


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    # A connection that its client keeps open must not keep a thread for ever.
    timeout = 30

    def pass_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.faulty.take(self.command, self.path)
        if fault is not None and fault.kind == "refuse":
            self.refuse(fault.status)
            return
        status, headers, body = self.ask_upstream(sent)
        if fault is not None and fault.kind == "delay":
            time.sleep(fault.seconds)
        if fault is not None and fault.kind == "lose the answer":
            self.hang_up()
            return
        # A client that waited too long has gone.
        with suppress(ConnectionError):
            self.answer(status, headers, body, cut=fault is not None and fault.kind == "cut the body")

    def ask_upstream(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.faulty.upstream, timeout=30)) as connection:
            connection.request(self.command, self.path, sent, dict(self.headers.items()))
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()

    def refuse(self, status: int) -> None:
        code = _REASONS.get(status, "Error")
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
        headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
        self.answer(status, headers, b"" if self.command == "HEAD" else body, cut=False)

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool) -> None:
        self.send_response_only(status)
        names = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in _PER_CONNECTION:
                self.send_header(name, value)
        if "content-length" not in names and self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if cut else body)
        self.server.faulty.sent += len(body)
        if cut:
            self.wfile.flush()
            self.hang_up()

    def hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

    def log_message(self, format: str, *args: object) -> None:
        pass
