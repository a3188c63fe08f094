"""A server that speaks the XML API of Google Cloud Storage, on loopback, in front of one that speaks S3.

No emulator that a package registry has speaks this API, which obstore uses. It differs from that of S3 in the names of
headers, in the condition under which an object is created, and in that deleting what is missing is an error:
https://cloud.google.com/storage/docs/xml-api/reference-methods.
"""

from __future__ import annotations

import http.client
import itertools
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PER_CONNECTION = ("connection", "keep-alive", "transfer-encoding", "authorization", "host")
# moto asks for no more than that a request is signed by someone.
_SIGNED = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
_MISSING = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code><Message>No such object</Message></Error>"


@contextmanager
def gcs_server(upstream: int, *, ignores_conditions: bool = False) -> Iterator[str]:
    """Serve in a thread until the block ends; yields the URL.

    Parameters
    ----------
    upstream
        Port on loopback of a server that speaks S3.
    ignores_conditions
        Whether an object is replaced although the request says that it must not exist.
    """
    server = _Server(upstream, ignores_conditions)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(20)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, upstream: int, ignores_conditions: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.ignores_conditions = upstream, ignores_conditions
        self.generations = itertools.count(1)
        # Whether an object exists is looked up before it is deleted.
        self.deletes = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30

    def pass_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.headers.get("Authorization", "").startswith("Bearer "):
            self.answer(401, [], b"<Error><Code>AuthenticationRequired</Code></Error>")
        elif self.command == "DELETE" and "uploadId=" not in self.path:
            with self.server.deletes:
                missing = self.ask_upstream("HEAD", b"")[0] == 404
                self.answer(404, [], _MISSING) if missing else self.answer(*self.ask_upstream("DELETE", sent))
        else:
            self.answer(*self.ask_upstream(self.command, sent))

    def ask_upstream(self, method: str, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.upstream, timeout=30)) as connection:
            connection.request(method, self.path, sent, self.for_s3())
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()

    def for_s3(self) -> dict[str, str]:
        headers = {"Authorization": _SIGNED}
        for name, value in self.headers.items():
            lower = name.lower()
            if lower == "x-goog-if-generation-match":
                assert value == "0"
                if not self.server.ignores_conditions:
                    headers["If-None-Match"] = "*"
            elif lower not in _PER_CONNECTION:
                # Conditions of S3 mean nothing here.
                assert lower != "if-none-match"
                headers[lower.replace("x-goog-", "x-amz-")] = value
        return headers

    def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        names = {name.lower() for name, _ in headers}
        for name, value in headers:
            if name.lower() not in _PER_CONNECTION:
                self.send_header(name.lower().replace("x-amz-", "x-goog-"), value)
        self.send_header("x-goog-generation", str(next(self.server.generations)))
        if "content-length" not in names and self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on

    def log_message(self, format: str, *args: object) -> None:
        pass
