"""A real server on loopback, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from isospace.search.index import Index
from isospace.service.app import create_app
from isospace.service.query_logging import Watcher
from isospace.service.server import server_config
from isospace.service.settings import Settings


@contextmanager
def serving(index: Index, settings: Settings | None = None, *, watcher: Watcher | None = None) -> Iterator[str]:
    """Serve until the block ends; yields the url."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    chosen = settings or Settings()
    server = uvicorn.Server(server_config(create_app(index, chosen, watcher=watcher), chosen))
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
