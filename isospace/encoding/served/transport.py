"""One request and its outcome, over HTTP. No exception that leaves this module knows the request or its headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx

from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.faults import ErrorBody, Outcome, judge, read_error
from isospace.encoding.served.model import ServedModel
from isospace.encoding.served.parsing import WrongAnswer, billed_tokens, parse_answer
from isospace.encoding.served.secret import Key
from isospace.encoding.served.wire import build_request, on_vertex
from isospace.transform.affine import Role

_CONNECT_SECONDS = 10.0


@dataclass(frozen=True)
class Sent:
    """The outcome of a request, with what its answer said about money and limits."""

    outcome: Outcome
    headers: Mapping[str, str]
    billed: int | None = None


class Transport:
    """Sends the requests of one model to one endpoint. Used by one event loop."""

    def __init__(self, model: ServedModel, endpoint: Endpoint, key: Key) -> None:
        self._model, self._endpoint, self._key = model, endpoint, key
        self._vertex = model.protocol == "google" and on_vertex(endpoint)
        # Shared, since it takes long to make: the certificates are read from disk.
        self._certificates = httpx.create_ssl_context()
        # One HTTP client per request in flight, each with its one connection: in a pool of many, httpx looks at all of
        # them for every request, which takes more time than the request itself.
        self._idle: list[httpx.AsyncClient] = []

    async def close(self) -> None:
        """Close all connections that are not in use."""
        while self._idle:
            await self._idle.pop().aclose()

    async def embed(self, texts: Sequence[str], role: Role, seconds: float) -> Sent:
        """Send texts, and return what became of them; ProviderRefusedError if there is no usable key."""
        request = build_request(self._model, self._endpoint, role, texts)
        body = json.dumps(request.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode("utf-8")
        sent_headers = self._key.headers(self._model.protocol)
        response, failure = await self._exchange("POST", request.path, body, seconds, sent_headers)
        if response is None:
            return Sent(failure, {})
        headers = response.headers
        payload, problem = _decoded(response)
        error = read_error(payload)
        if response.status_code == 401 and self._key.headers(self._model.protocol) != sent_headers:
            return Sent(Outcome("failed", "the key was replaced during the request", 0.0, 401), headers)
        if response.status_code != 200 or (error is not None and not _has_vectors(payload)):
            return Sent(self._scrubbed(judge(response.status_code, headers, error or _plain_error(response))), headers)
        if problem is not None:
            return Sent(Outcome("wrong", problem, status=200), headers)
        prompted = [self._model.prompted(text, role) for text in texts]
        billed = billed_tokens(self._model.protocol, payload, headers, vertex=self._vertex)
        try:
            parsed = parse_answer(self._model.protocol, payload, prompted, vertex=self._vertex)
        except WrongAnswer as wrong:
            return Sent(self._scrubbed(Outcome("wrong", str(wrong), status=200)), headers, billed)
        if parsed.model is not None:
            parsed = replace(parsed, model=self._key.scrubbed(parsed.model))
        return Sent(Outcome("answered", status=200, parsed=parsed), headers, billed)

    async def info(self, seconds: float) -> dict[str, Any] | None:
        """Return what TEI's /info says; None if the server does not have it, or does not answer."""
        response, _ = await self._exchange("GET", "/info", None, seconds, self._key.headers(self._model.protocol))
        if response is None or response.status_code != 200:
            return None
        payload, _ = _decoded(response)
        return payload if isinstance(payload, dict) else None

    async def _exchange(
        self, method: str, path: str, body: bytes | None, seconds: float, headers: dict[str, str]
    ) -> tuple[httpx.Response | None, Outcome]:
        if body is not None:
            headers = {**headers, "Content-Type": "application/json"}
        url, response = self._endpoint.base + path, None
        # The one used last, whose connection is the freshest.
        http = self._idle.pop() if self._idle else self._new_client()
        try:
            # The limit is for the whole answer: httpx's own is for each piece, and a server may send them slowly.
            async with asyncio.timeout(seconds):
                limit = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS), pool=None)
                response = await http.request(method, url, content=body, headers=headers, timeout=limit)
            failure = Outcome("failed")
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            failure = Outcome("failed", f"cannot connect ({_words(error, 'no answer in time')})", reached=False)
        except (TimeoutError, httpx.TimeoutException):
            failure = Outcome("failed", f"no answer within {seconds:.3g} s")
        except httpx.HTTPError as error:
            failure = Outcome("failed", f"the connection broke ({_words(error, type(error).__name__)})")
        finally:
            self._idle.append(http)
        return response, self._scrubbed(failure)

    def _new_client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._certificates, params=list(self._endpoint.pairs), headers={"User-Agent": "isospace"}
        )

    def _scrubbed(self, outcome: Outcome) -> Outcome:
        return replace(outcome, reason=self._key.scrubbed(outcome.reason))


def _decoded(response: httpx.Response) -> tuple[Any, str | None]:
    try:
        return json.loads(response.content), None
    except (ValueError, RecursionError):
        start = response.content[:40].decode("utf-8", "replace")
        return None, f"the answer is not JSON ({len(response.content)} bytes, starts with {start!r})"


def _has_vectors(payload: Any) -> bool:
    return isinstance(payload, dict) and any(payload.get(name) for name in ("data", "embeddings", "predictions"))


def _plain_error(response: httpx.Response) -> ErrorBody:
    text = response.text.strip() if len(response.content) < 10_000 else ""
    readable = text and not text.startswith(("<", "{", "["))
    return ErrorBody(f"HTTP status {response.status_code}" + (f": {text}" if readable else ""))


def _words(error: Exception, otherwise: str) -> str:
    return str(error) or otherwise
