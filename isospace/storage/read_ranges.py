"""Read many ranges of one file: a local one is opened once, those of an object are requested side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from isospace.storage.guard import check_length, guard
from isospace.storage.store import Store

_REQUESTS = 16
# Ranges of an object that are in memory at a time.
_WINDOW = 32


def read_ranges(store: Store, path: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    """Yield the bytes of each range (start, length) of a file, in their order.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    StoreError
        If it is too short, or the store fails.
    """
    if store.root is None:
        with ThreadPoolExecutor(_REQUESTS) as pool:
            for first in range(0, len(ranges), _WINDOW):
                yield from pool.map(lambda span: store.read_range(path, *span), ranges[first : first + _WINDOW])
        return
    with guard(path, store.url):
        descriptor = os.open(store.root / path, os.O_RDONLY)
    try:
        for start, length in ranges:
            with guard(path, store.url):
                data = os.pread(descriptor, length, start)
            yield check_length(data, path, store.url, start, length)
    finally:
        os.close(descriptor)
