"""Shards of a collection as real servers on loopback, in threads."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from fastapi import FastAPI

from isospace.search.index import Index, open_index
from isospace.service.server import server_config
from isospace.service.settings import Settings
from isospace.service.shard_app import create_shard_app


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


def open_shard(store: str, number: int, of: int) -> Index:
    return open_index(store, "c", encode=False, shard=(number, of))


@contextmanager
def serving_shards(store: str, count: int) -> Iterator[list[str]]:
    """Serve all shards of the collection `c`; yields their URLs, the last shard first."""
    with ExitStack() as stack:
        indexes = [stack.enter_context(open_shard(store, number, count)) for number in range(count, 0, -1)]
        yield [stack.enter_context(serving_app(create_shard_app(index))) for index in indexes]
