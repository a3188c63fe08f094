"""The outermost middleware: request IDs, HEAD, metrics, and the access log."""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isospace.service.access_log import AccessLog
from isospace.service.metrics import Metrics

REQUEST_ID = "X-Request-Id"
# The status that nginx logs when the client has closed the connection before it was answered.
CLIENT_GONE = 499
_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_LONGEST = 200


class Observe:
    """ASGI middleware that names, counts, and logs requests.

    A client may send its own `X-Request-Id`; otherwise the request gets a new one. HEAD is answered like GET, without
    the body. What the inner parts add to `scope["state"]["notes"]` becomes part of the log's line. `path_of` returns
    the path of the route that a request is for.
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, log: AccessLog | None, path_of: Callable[[Scope], str]
    ) -> None:
        self.app, self.metrics, self.log, self.path_of = app, metrics, log, path_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, at = time.perf_counter(), datetime.now(UTC)
        notes: dict[str, Any] = {"request_id": request_id(Headers(scope=scope))}
        is_head = scope["method"] == "HEAD"
        answer = _Observed(send, notes["request_id"], is_head=is_head)
        inner = {**scope, "state": {**scope.get("state", {}), "notes": notes}}
        if is_head:
            inner["method"] = "GET"
        try:
            await self.app(inner, receive, answer)
        finally:
            seconds = time.perf_counter() - started
            status = answer.status or CLIENT_GONE
            self.metrics.count_request(self.path_of(inner), status, seconds)
            if self.log is not None:
                self.log.write(_line(scope, at, notes, answer, status, seconds))


def request_id(headers: Headers) -> str:
    """Return the client's request ID if it is short and plain, else a new one."""
    given = headers.get(REQUEST_ID, "")
    return given if _ID.fullmatch(given) else uuid.uuid4().hex


def _line(
    scope: Scope, at: datetime, notes: dict[str, Any], answer: _Observed, status: int, seconds: float
) -> dict[str, Any]:
    client = scope.get("client")
    return {
        "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        **notes,
        "client": client[0] if client else None,
        "user_agent": Headers(scope=scope).get("user-agent", "")[:_LONGEST],
        "method": scope["method"],
        # Without what follows a question mark: some clients send texts or keys there.
        "path": scope["path"][:_LONGEST],
        "status": status,
        "milliseconds": round(1000 * seconds, 1),
        "bytes_sent": answer.size,
    }


class _Observed:
    """Pass an answer on, with its request ID; without its body if the client wants only the headers."""

    def __init__(self, send: Send, name: str, *, is_head: bool) -> None:
        self.send, self.name, self.is_head, self.status, self.size = send, name, is_head, 0, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[REQUEST_ID] = self.name
            allowed = headers.get("allow", "").split(", ")
            if "GET" in allowed:
                headers["Allow"] = ", ".join([*allowed, "HEAD"])
        elif message["type"] == "http.response.body" and self.is_head:
            message = {**message, "body": b""}
        self.size += len(message.get("body", b""))
        await self.send(message)
