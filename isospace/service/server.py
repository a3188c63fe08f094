"""Run the service with uvicorn: one process, a shareable socket, and a graceful shutdown."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from isospace.errors import ConfigError
from isospace.service.lingering import LingeringTransport
from isospace.service.settings import Settings

_LOG = logging.getLogger(__name__)
_BACKLOG = 1024


def serve(app: FastAPI, settings: Settings, *, on_progress: Callable[[str], None] = print) -> None:
    """Serve until SIGTERM or SIGINT; requests in progress are answered first.

    `app` is built by `create_app`; `on_progress` is called with one line when the service listens.

    Raises
    ------
    ConfigError
        If the service cannot listen on the address.
    """
    listening = _listen(settings)
    host, port = listening.getsockname()[:2]
    line = f"listening on http://{f'[{host}]' if ':' in host else host}:{port}"
    server = _Server(server_config(app, settings), app, on_listening=lambda: on_progress(line))
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()


def require_port(settings: Settings) -> None:
    """Raise ConfigError if the service could not listen on its address."""
    _listen(settings).close()


def server_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Build the configuration of uvicorn."""
    limits = {
        "seconds": settings.limits.header_seconds,
        "answer_seconds": settings.limits.answer_seconds,
        "most": settings.limits.connections,
        "linger_seconds": settings.limits.body_seconds,
        "linger_bytes": settings.limits.discarded_bytes,
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
    """On SIGTERM, report not ready at once, but keep accepting requests for a moment.

    `on_listening` is called when clients can connect.
    """

    def __init__(self, config: uvicorn.Config, app: FastAPI, *, on_listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._service = app.state.service
        self._on_listening = on_listening
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the socket, and only then say so: scripts connect as soon as they read the line."""
        await super().startup(sockets)
        self._reload_on_hangup()
        self._on_listening()

    def _reload_on_hangup(self) -> None:
        """On SIGHUP, reload; but in a terminal, end when the terminal is closed, as other commands do."""
        if threading.current_thread() is threading.main_thread() and not os.isatty(0):
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._service.reload)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Shut down; uvicorn would raise the signal again, and a clean exit would look like a kill."""
        if self.should_exit or self._ending is not None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        # Load balancers need a moment to notice; until then, connections would be refused.
        self._service.ready = False
        self._ending = asyncio.get_running_loop().create_task(self._end(0.5 if sig == signal.SIGTERM else 0.0))

    async def _end(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.should_exit = True


def _listen(settings: Settings) -> socket.socket:
    """Open the socket so that a successor with --take-over can listen before this process exits."""
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
    """Raise OSError if the port is in use: two services on one port would silently share the requests."""
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


class _Timed(H11Protocol):
    """Close connections that do not send the complete headers of a request in time, and linger when closing others.

    By itself, uvicorn waits indefinitely for a client that sends nothing, or one header per minute. It also closes a
    connection whose client still sends the body of a refused request, and the client loses the answer.
    """

    seconds = 10.0
    answer_seconds = 30.0
    linger_seconds = 10.0
    linger_bytes = 64_000_000
    most = 1_024
    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._closing = LingeringTransport(
            transport, is_sending=self._is_sending, seconds=self.linger_seconds, most=self.linger_bytes
        )
        self.transport = self._closing  # type: ignore[assignment]
        if len(self.connections) > self.most:
            transport.abort()
            return
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if self._closing.is_lingering:
            self._closing.discard(len(data))
            return
        super().data_received(data)
        if self._is_idle():
            self._expect_head()
        else:
            self._cancel_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        self._closing.forget()
        super().connection_lost(exc)

    def _is_sending(self) -> bool:
        """Return whether the client may be sending: the rest of a body, an invalid request, or a further request."""
        return self.conn.their_state in (h11.SEND_BODY, h11.ERROR) or bool(self.conn.trailing_data[0])

    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._head is None:
            self._head = asyncio.get_running_loop().call_later(self.seconds, self._abort_idle)

    def _cancel_timer(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _abort_idle(self) -> None:
        self._head = None
        if self._is_idle() and not self.transport.is_closing():
            self.transport.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            # The client has not read the whole answer, which would stay in memory as long as the client likes.
            asyncio.get_running_loop().call_later(self.answer_seconds, self._abort_unread)

    def _abort_unread(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()
