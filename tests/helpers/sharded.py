"""Shards of a collection as real servers on loopback, in threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.service.shard_app import create_shard_app
from tests.helpers.serving import serving_app


def open_shard(store: str, number: int, of: int) -> Index:
    return open_index(store, "c", encode=False, shard=(number, of))


@contextmanager
def serving_shards(store: str, count: int) -> Iterator[list[str]]:
    """Serve all shards of the collection `c`; yields their URLs, the last shard first."""
    with ExitStack() as stack:
        indexes = [stack.enter_context(open_shard(store, number, count)) for number in range(count, 0, -1)]
        yield [stack.enter_context(serving_app(create_shard_app(index))) for index in indexes]
