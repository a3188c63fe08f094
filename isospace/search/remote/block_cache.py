"""Blocks on this machine's disk: bounded, shared by processes, and never trusted without a checksum.

A block is a file that appears whole and never changes, named by the content of its object. The least recently used ones
are removed. A process that is killed leaves at most a temporary file, which counts and is removed like any other. If
the disk is full or cannot be written, blocks are read from the store again, which only takes longer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from isospace.errors import ConfigError
from isospace.search.locality import LOCAL_CACHE_MB

_LOG = logging.getLogger(__name__)
MEMORY_BYTES = 64 << 20
"""Blocks that this process read last are also in memory, up to this many bytes."""
# The folder is listed again when this share of the limit was written; then it shrinks to a share of the limit.
_SCAN_SHARE, _KEPT_SHARE = 0.05, 0.9
# The time of a file is its last use, to this many seconds.
_USE_SECONDS = 60.0
_RETRY_SECONDS = 60.0
TEMPORARY = ".tmp-"


class BlockCache:
    """A folder of blocks, and the latest ones in memory; thread-safe.

    Parameters
    ----------
    limit_mb
        Megabytes of the folder; a process may add up to 5 % before it notices. 0 keeps nothing on disk.

    Raises
    ------
    ConfigError
        If the limit is negative.
    """

    def __init__(self, folder: Path, limit_mb: int = LOCAL_CACHE_MB, *, memory_bytes: int = MEMORY_BYTES) -> None:
        if isinstance(limit_mb, bool) or not isinstance(limit_mb, int) or limit_mb < 0:
            raise ConfigError(f"local_cache_mb = {limit_mb!r}; expected a whole number of megabytes, 0 or more.")
        self.folder, self.limit = folder, limit_mb * 1_000_000
        self._memory_limit, self._memory_bytes = memory_bytes, 0
        self._memory: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._lock = threading.Lock()
        # Listed before the first block is written: an earlier process may have filled the folder.
        self._unlisted = self.limit
        self._idle_until = 0.0

    def recent(self, key: tuple[str, str]) -> bytes | None:
        """Return a block from memory, where only verified ones are; None if it is not there."""
        with self._lock:
            data = self._memory.get(key)
            if data is not None:
                self._memory.move_to_end(key)
            return data

    def remember(self, key: tuple[str, str], data: bytes) -> None:
        """Keep a verified block in memory."""
        with self._lock:
            if key in self._memory or len(data) > self._memory_limit:
                return
            self._memory[key] = data
            self._memory_bytes += len(data)
            while self._memory_bytes > self._memory_limit:
                self._memory_bytes -= len(self._memory.popitem(last=False)[1])

    def stored(self, key: tuple[str, str]) -> bytes | None:
        """Return a block from disk, which the caller verifies; None if it is not there."""
        path = self._path(key)
        try:
            with path.open("rb") as stream:
                if time.time() - os.fstat(stream.fileno()).st_mtime > _USE_SECONDS:
                    with contextlib.suppress(OSError):
                        os.utime(path)
                return stream.read()
        except OSError:
            return None

    def discard(self, key: tuple[str, str]) -> None:
        """Remove a damaged block."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def store(self, key: tuple[str, str], data: bytes) -> None:
        """Write a block, unless the disk is full or cannot be written."""
        if len(data) > self.limit * _KEPT_SHARE or time.monotonic() < self._idle_until:
            return
        path = self._path(key)
        temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(8)}")
        try:
            self._make_room(len(data))
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(data)
                temporary.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
        except OSError as error:
            self._idle_until = time.monotonic() + _RETRY_SECONDS
            # What another program freed meanwhile is found by listing the folder.
            self._unlisted = self.limit
            _LOG.warning(
                "%s: blocks cannot be cached (%s), and are read from the store again. Free some space there, or set "
                "ISOSPACE_CACHE to another folder",
                self.folder,
                error.strerror or error,
            )

    def _path(self, key: tuple[str, str]) -> Path:
        return self.folder / key[0] / key[1]

    def _make_room(self, size: int) -> None:
        with self._lock:
            self._unlisted += size
            if self._unlisted < self.limit * _SCAN_SHARE:
                return
            self._unlisted = size
        shrink(self.folder, self.limit)


def shrink(folder: Path, limit: int) -> None:
    """Remove the blocks that were not used for longest until a folder holds nine tenths of a limit, in bytes."""
    found = sorted(_blocks(folder))
    total = sum(size for _, size, _ in found)
    if total <= limit * (1.0 - _SCAN_SHARE):
        return
    for _, size, path in found:
        if total <= limit * _KEPT_SHARE:
            break
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        total -= size


def _blocks(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time, size, and path of the files in the folders of a folder; others may be removing them."""
    with contextlib.suppress(FileNotFoundError):
        for group in os.scandir(folder):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                for entry in os.scandir(group.path):
                    with contextlib.suppress(FileNotFoundError):
                        stat = entry.stat(follow_symlinks=False)
                        yield stat.st_mtime, stat.st_size, Path(entry.path)
