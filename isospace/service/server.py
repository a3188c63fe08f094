"""Run the service with uvicorn: one process, a socket that a successor may share, and an end that loses nothing."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from isospace.errors import ConfigError
from isospace.service.settings import Settings

_LOG = logging.getLogger(__name__)
_BACKLOG = 1024


def serve(app: FastAPI, settings: Settings, *, told: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first.

    Parameters
    ----------
    app
        As `create_app` builds it.
    settings
        Address and limits.
    told
        Is given one line when the service listens.

    Raises
    ------
    ConfigError
        If the address cannot be had.
    """
    listening = _listen(settings)
    server = _Server(server_config(app, settings), app)
    host, port = listening.getsockname()[:2]
    told(f"listening on http://{f'[{host}]' if ':' in host else host}:{port}")
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn runs the service."""
    limits = {
        "seconds": settings.limits.header_seconds,
        "answer_seconds": settings.limits.request_seconds,
        "most": settings.limits.connections,
    }
    return uvicorn.Config(
        app,
        http=type("Timed", (_Timed,), limits),
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=round(settings.limits.drain_seconds),
        backlog=_BACKLOG,
    )


class _Server(uvicorn.Server):
    """Says that it is not ready as soon as it is told to end, and goes on answering what comes for a moment."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._service = app.state.service
        self._ending: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; uvicorn would raise the signal again afterwards, and a service that ended as told would look killed."""
        if self.should_exit or self._ending is not None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        # Whoever balances load has to see it first: connections would be refused meanwhile.
        self._service.ready = False
        self._ending = asyncio.get_running_loop().create_task(self._end(0.5 if sig == signal.SIGTERM else 0.0))

    async def _end(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    """Open the socket so that the next process, told to take over, can listen before this one ends."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if not settings.take_over:
            _require_free(family, kind, protocol, address)
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        remedy = (
            "Choose another, or take over from an isospace service there with --take-over"
            if taken
            else "Choose another"
        )
        raise ConfigError(
            f"--host {settings.host} --port {settings.port}: cannot listen there ({error.strerror or error}). {remedy}."
        ) from error
    return listening


def _require_free(family: int, kind: int, protocol: int, address: Any) -> None:
    """Raise OSError if anybody listens: two services on one port would share the requests unseen."""
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


class _Timed(H11Protocol):
    """Ends connections whose request has no whole head in time.

    uvicorn alone waits for ever for a client that sends nothing, or a header a minute.
    """

    seconds = 10.0
    answer_seconds = 30.0
    most = 1_024
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_idle():
            self._expect_head()
        else:
            self._forget()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = asyncio.get_running_loop().call_later(self.seconds, self._give_up)

    def _forget(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up(self) -> None:
        self._head = None
        if self._is_idle() and not self.transport.is_closing():
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            # The answer is written, and the client has not taken it: it would stay in memory as long as they like.
            asyncio.get_running_loop().call_later(self.answer_seconds, self._let_go)

    def _let_go(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
