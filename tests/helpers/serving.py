"""A real server on loopback, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from isospace.search.index import Index
from isospace.service.app import create_app
from isospace.service.query_logging import Watcher
from isospace.service.server import server_config
from isospace.service.settings import Settings


@contextmanager
def serving_app(app: FastAPI, settings: Settings | None = None, *, port: int = 0) -> Iterator[str]:
    """Serve an application until the block ends; yields the URL."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    server = uvicorn.Server(server_config(app, settings or Settings()))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


@contextmanager
def serving(index: Index, settings: Settings | None = None, *, watcher: Watcher | None = None) -> Iterator[str]:
    """Serve an index until the block ends; yields the URL."""
    chosen = settings or Settings()
    with serving_app(create_app(index, chosen, watcher=watcher), chosen) as url:
        yield url
