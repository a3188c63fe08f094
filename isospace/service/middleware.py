"""The middleware before every endpoint: API keys, limits, and the space headers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isospace.errors import ScopeError
from isospace.service.errors import Problem, note_problem, problem_response, refused_scope
from isospace.service.keys import Keys
from isospace.service.limits import Limits
from isospace.service.metrics import Metrics

SPACE_HEADER, SNAPSHOT_HEADER = "X-Isospace-Space", "X-Isospace-Snapshot"
# Monitoring asks these: they need no key, and are answered even when the service is busy.
PROBES = ("/healthz", "/readyz")
# The pages ask for the key themselves.
_OPEN = (*PROBES, "/", "/docs")
# This many times as many requests may be sending their body as are being answered: slow clients must not block others.
_BODIES = 4
_LOG = logging.getLogger(__name__)


class ClientGoneError(Exception):
    """The client has closed the connection before it was answered."""


class Guard:
    """ASGI middleware that checks requests, and adds the headers that name the space.

    `served` returns the space ID and the snapshot number that are served now. Without a key where one is needed, no
    answer names them. Requests come through `Observe`.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, keys: Keys, metrics: Metrics, served: Callable[[], tuple[str, int]]
    ) -> None:
        self.app, self.limits, self.keys, self.metrics, self.served = app, limits, keys, metrics, served
        self.coming = self.under_way = self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send, None)
        try:
            is_admitted = self._admit(scope, answer)
            await self._guarded(scope, receive, answer, is_admitted=is_admitted)
        except ClientGoneError:
            return
        except asyncio.CancelledError:
            # Requests that take longer than the drain are canceled. Clients send them again, to the next service.
            message = "the service is shutting down, and the request took too long. Send it again."
            await self._refuse(Problem(503, message, code="shutting_down"), scope, receive, answer)
        except Problem as problem:
            await self._refuse(problem, scope, receive, answer)
        except ScopeError as error:
            await self._refuse(refused_scope(error), scope, receive, answer)
        except Exception as error:
            name = scope["state"]["notes"]["request_id"]
            _LOG.exception("%s %s failed (request %s)", scope["method"], scope["path"], name)
            message = f"internal error ({type(error).__name__}): see the log of the service, request {name}."
            await self._refuse(Problem(500, message), scope, receive, answer)

    def _admit(self, scope: Scope, answer: _Answer) -> bool:
        """Note who sends a request; ScopeError if what they may see cannot be told, where it matters."""
        try:
            access = self.keys.admitted(Headers(scope=scope).get("authorization"))
        except ScopeError:
            if scope["path"] in _OPEN:
                return False
            raise
        if access is None:
            return False
        answer.served, scope["state"]["access"] = self.served, access
        if access.name:
            # Which key it was, for the access log; the key itself cannot be found from this.
            scope["state"]["notes"]["key"] = access.name
        return True

    async def _guarded(self, scope: Scope, receive: Receive, answer: _Answer, *, is_admitted: bool) -> None:
        path = scope["path"]
        if path in PROBES or (path in _OPEN and not is_admitted):
            # Their bodies are not read: whoever has no key takes no room from the requests of others.
            await self.app(scope, receive, answer)
            return
        if not is_admitted:
            raise Problem(
                401,
                "the API key or the token is missing or wrong; send the header `Authorization: Bearer KEY`.",
                code="invalid_api_key",
            )
        body = _Body(self)
        try:
            await self._with_body(scope, receive, answer, body)
        finally:
            self.held -= body.size

    async def _with_body(self, scope: Scope, receive: Receive, answer: _Answer, body: _Body) -> None:
        most = self.limits.requests
        self._require_room(self.coming, _BODIES * most)
        self.coming += 1
        try:
            content = await body.read(receive, Headers(scope=scope))
        finally:
            self.coming -= 1
        scope["state"]["notes"]["bytes_received"] = body.size
        self._require_room(self.under_way, most)
        self.under_way += 1
        self.metrics.under_way.set(self.under_way)
        try:
            await self._in_time(scope, content, receive, answer)
        finally:
            self.under_way -= 1
            self.metrics.under_way.set(self.under_way)

    def _require_room(self, count: int, most: int) -> None:
        if count >= most:
            raise Problem(429, f"{count} requests are in progress; try again in a second.", code="overloaded")

    async def _in_time(self, scope: Scope, content: bytes, receive: Receive, answer: _Answer) -> None:
        """Answer within the time limit; stop when the client closes the connection, since nobody reads the answer."""
        gone = asyncio.ensure_future(receive())
        answering = asyncio.ensure_future(self._answer(scope, content, gone, answer))
        try:
            await asyncio.wait({gone, answering}, timeout=self.limits.request_seconds, return_when="FIRST_COMPLETED")
            if answering.done() or answer.is_complete:
                await answering
            elif gone.done():
                raise ClientGoneError
            elif answer.status:
                raise ConnectionError("the client did not read the answer in time")
            else:
                seconds = self.limits.request_seconds
                message = f"no answer within {seconds:g} s: the service is overloaded. Try again later."
                raise Problem(429, message, code="timeout")
        finally:
            gone.cancel()
            answering.cancel()

    async def _answer(self, scope: Scope, content: bytes, gone: asyncio.Future[Message], answer: _Answer) -> None:
        is_sent = False

        async def replay() -> Message:
            nonlocal is_sent
            if not is_sent:
                is_sent = True
                return {"type": "http.request", "body": content, "more_body": False}
            return await asyncio.shield(gone)

        await self.app(scope, replay, answer)

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if answer.status:
            # Part of the answer has been sent: all that is left is to close the connection.
            raise ConnectionError(problem.message)
        note_problem(scope, problem)
        # An unread body would be parsed as the next request.
        answer.close = problem.status in (408, 413, 401, 429, 503)
        await problem_response(problem)(scope, receive, answer)


class _Answer:
    """Send an answer, with headers that name the space if the client may know it."""

    def __init__(self, send: Send, served: Callable[[], tuple[str, int]] | None) -> None:
        self.send, self.served, self.close, self.status = send, served, False, 0
        self.is_complete = False

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
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.is_complete = True
        await self.send(message)


class _Body:
    """Read the body of one request, within the limits on single bodies and on all of them together."""

    def __init__(self, guard: Guard) -> None:
        self.guard, self.size = guard, 0

    async def read(self, receive: Receive, headers: Headers) -> bytes:
        """Read the whole body before anything else, so that a slow client occupies only its own connection."""
        limits = self.guard.limits
        declared = headers.get("content-length", "0")
        if declared.isdecimal() and int(declared) > limits.body_bytes:
            raise Problem(
                413, f"the body has {declared} bytes; expected at most {limits.body_bytes}. Send fewer texts at once."
            )
        parts = []
        try:
            async with asyncio.timeout(limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    parts.append(message.get("body", b""))
                    self._count(len(parts[-1]))
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError as error:
            raise Problem(
                408,
                f"the body did not arrive within {limits.body_seconds:g} s. Send it faster, or in smaller requests.",
            ) from error

    def _count(self, size: int) -> None:
        limits = self.guard.limits
        self.size += size
        self.guard.held += size
        if self.size > limits.body_bytes:
            raise Problem(413, f"the body exceeds {limits.body_bytes} bytes. Send fewer texts at once.")
        if self.guard.held > limits.all_bodies_bytes:
            raise Problem(
                429,
                f"the requests in progress hold {self.guard.held} bytes; expected at most {limits.all_bodies_bytes}. "
                "Try again in a second.",
                code="overloaded",
            )
