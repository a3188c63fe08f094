"""Read many ranges of one file: a local one is opened once, those of an object are requested side by side."""

from __future__ import annotations

import contextlib
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
        # A disk serves many small reads at once faster than one after the other.
        _advise(descriptor, ranges)
        for start, length in ranges:
            with guard(path, store.url):
                data = os.pread(descriptor, length, start)
            yield check_length(data, path, store.url, start, length)
    finally:
        os.close(descriptor)


def prefetch(store: Store, paths: Sequence[str]) -> None:
    """Have the system read whole local files that will be needed next, while others are being worked on."""
    root = store.root
    if root is None:
        return
    for path in paths:
        # Whoever reads it says what is wrong with it.
        with contextlib.suppress(OSError):
            descriptor = os.open(root / path, os.O_RDONLY)
            try:
                _advise(descriptor, [(0, 0)])
            finally:
                os.close(descriptor)


def _advise(descriptor: int, ranges: Sequence[tuple[int, int]]) -> None:
    if not hasattr(os, "posix_fadvise"):
        return
    for start, length in ranges:
        os.posix_fadvise(descriptor, start, length, os.POSIX_FADV_WILLNEED)
