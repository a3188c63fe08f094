"""The middleware before every endpoint: API keys, limits, and the space headers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isospace.service.errors import Problem, problem_response
from isospace.service.metrics import Metrics
from isospace.service.settings import Settings

SPACE_HEADER, SNAPSHOT_HEADER = "X-Isospace-Space", "X-Isospace-Snapshot"
# Monitoring asks these: they need no key, and are answered even when the service is busy.
PROBES = ("/healthz", "/readyz")
_OPEN = (*PROBES, "/")
# This many times as many requests may be sending their body as are being answered: slow clients must not block others.
_BODIES = 4
_LOG = logging.getLogger(__name__)


class Guard:
    """ASGI middleware that checks requests, and adds the headers that name the space.

    `served` returns the space ID and the snapshot number that are served now. Without a key where one is needed, no
    answer names them.
    """

    def __init__(
        self, app: ASGIApp, *, settings: Settings, metrics: Metrics, served: Callable[[], tuple[str, int]]
    ) -> None:
        self.app, self.settings, self.metrics, self.served = app, settings, metrics, served
        self.coming = self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        is_admitted = self.settings.admits(Headers(scope=scope).get("authorization"))
        answer = _Answer(send, self.served if is_admitted else None)
        try:
            await self._guarded(scope, receive, answer, is_admitted=is_admitted)
        except Problem as problem:
            await self._refuse(problem, scope, receive, answer)
        except Exception as error:
            _LOG.exception("%s %s failed", scope["method"], scope["path"])
            await self._refuse(
                Problem(500, f"internal error ({type(error).__name__}): see the log of the service."),
                scope,
                receive,
                answer,
            )
        finally:
            self.metrics.count_request(scope, answer.status, time.perf_counter() - started)

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer, *, is_admitted: bool) -> None:
        path, headers = scope["path"], Headers(scope=scope)
        if path in PROBES:
            await self.app(scope, receive, answer)
            return
        if path not in _OPEN and not is_admitted:
            raise Problem(
                401,
                "the API key is missing or wrong; send the header `Authorization: Bearer KEY`.",
                code="invalid_api_key",
            )
        most = self.settings.limits.requests
        self._require_room(self.coming, _BODIES * most)
        self.coming += 1
        try:
            body = await self._body(receive, headers)
        finally:
            self.coming -= 1
        self._require_room(self.under_way, most)
        self.under_way += 1
        self.metrics.under_way.set(self.under_way)
        try:
            await self._in_time(self.app(scope, _replay(body, receive), answer), answer)
        finally:
            self.under_way -= 1
            self.metrics.under_way.set(self.under_way)

    def _require_room(self, count: int, most: int) -> None:
        if count >= most:
            raise Problem(429, f"{count} requests are in progress; try again in a second.", code="overloaded")

    async def _body(self, receive: Receive, headers: Headers) -> bytes:
        """Read the whole body first, so that a slow client occupies only its own connection."""
        most = self.settings.limits.body_bytes
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > most:
            raise Problem(413, f"the body has {declared} bytes; expected at most {most}. Send fewer texts at once.")
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Problem(400, "the client disconnected before sending its whole body.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > most:
                        raise Problem(413, f"the body exceeds {most} bytes. Send fewer texts at once.")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            seconds = self.settings.limits.body_seconds
            raise Problem(
                408, f"the body did not arrive within {seconds:g} s. Send it faster, or in smaller requests."
            ) from error

    async def _in_time(self, answering: Awaitable[None], answer: _Answer) -> None:
        try:
            async with asyncio.timeout(self.settings.limits.request_seconds):
                await answering
        except TimeoutError as error:
            seconds = self.settings.limits.request_seconds
            if answer.status:
                raise ConnectionError(f"the client did not read the answer within {seconds:g} s") from error
            message = f"no answer within {seconds:g} s: the service is overloaded. Try again later."
            raise Problem(429, message, code="timeout") from error

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if answer.status:
            # Part of the answer has been sent: all that is left is to close the connection.
            raise ConnectionError(problem.message)
        # An unread body would be parsed as the next request.
        answer.close = problem.status in (408, 413, 401, 429)
        await problem_response(problem)(scope, receive, answer)


class _Answer:
    """Send an answer, with headers that name the space if the client may know it."""

    def __init__(self, send: Send, served: Callable[[], tuple[str, int]] | None) -> None:
        self.send, self.served, self.close, self.status = send, served, False, 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            if self.served is not None:
                space_id, snapshot = self.served()
                # An endpoint has set these itself if it answered from an older snapshot than the one served now.
                headers.setdefault(SPACE_HEADER, space_id)
                headers.setdefault(SNAPSHOT_HEADER, str(snapshot))
            headers.setdefault("X-Content-Type-Options", "nosniff")
            if self.close:
                headers["Connection"] = "close"
        await self.send(message)


def _replay(body: bytes, receive: Receive) -> Receive:
    is_sent = False

    async def replay() -> Message:
        nonlocal is_sent
        if not is_sent:
            is_sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay
