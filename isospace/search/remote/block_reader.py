"""Read blocks: from memory, else from disk, else from the store, by parallel requests for ranges."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

from isospace.encoding.forks import require_loaded_here
from isospace.errors import IntegrityError, IsospaceError, NotFoundError, StoreError
from isospace.search.remote.block_cache import BlockCache
from isospace.search.remote.blocks import BlockFile
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import sha256
from isospace.storage.store import Store

Wanted: TypeAlias = tuple[BlockFile, int]
Key: TypeAlias = tuple[str, str]

_PARALLEL = 48
# Blocks so near to each other are read with what lies between: a request costs more than these bytes.
_GAP_BYTES = 65_536
# Longer ranges are divided, so that they are read in parallel.
_MOST_BYTES = 4 << 20


class BlockReader:
    """Reads verified blocks of a store; thread-safe.

    Attributes
    ----------
    requests, fetched
        How many requests were sent to the store, and how many bytes they read.
    """

    def __init__(self, store: Store, cache: BlockCache) -> None:
        self.store, self.cache = store, cache
        self.requests = self.fetched = 0
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    def read(self, wanted: Sequence[Wanted]) -> list[bytes]:
        """Return blocks, in the order given; those of the store are read at once, in parallel.

        Raises
        ------
        IntegrityError
            If a file of the store is missing, or a block of it is damaged; the message names it.
        StoreError
            If the store fails.
        """
        found: dict[Key, bytes] = {}
        missing: dict[Key, Wanted] = {}
        for file, number in wanted:
            key = file.key(number)
            if key in found or key in missing:
                continue
            data = self._kept(file, number)
            if data is None:
                missing[key] = (file, number)
            else:
                found[key] = data
        if missing:
            found |= self._fetched(list(missing.values()))
        return [found[file.key(number)] for file, number in wanted]

    def whole(self, ref: FileRef, folder: str) -> bytes:
        """Return a small file that is read whole, verified by its SHA-256; it is cached, too.

        Raises
        ------
        IntegrityError
            If it is missing or was changed.
        """
        key = (folder, f"{ref.sha256[:32]}-whole")
        data = self.cache.stored(key)
        if data is not None and sha256(data) == ref.sha256:
            return data
        self.cache.discard(key)
        data = self._range(ref, 0, ref.size)
        if (digest := sha256(data)) != ref.sha256:
            raise IntegrityError(
                f"{ref.path}: has SHA-256 {digest[:16]}…, expected {ref.sha256[:16]}…. Delete it, and run the pipeline "
                "again, or isospace publish; until then, open the index with a local copy."
            )
        self.cache.store(key, data)
        return data

    def close(self) -> None:
        """End the threads that read."""
        with self._lock:
            if self._pool is not None and self._process == os.getpid():
                self._pool.shutdown(wait=False)
            self._pool = None

    def _kept(self, file: BlockFile, number: int) -> bytes | None:
        key = file.key(number)
        data = self.cache.recent(key)
        if data is not None:
            return data
        data = self.cache.stored(key)
        if data is None:
            return None
        if not file.is_intact(number, data):
            self.cache.discard(key)
            return None
        self.cache.remember(key, data)
        return data

    def _fetched(self, missing: Sequence[Wanted]) -> dict[Key, bytes]:
        require_loaded_here(self._process, "the index")
        runs = list(_runs(missing))
        if len(runs) == 1:
            parts = [self._run(*runs[0])]
        else:
            parts = list(self._threads().map(lambda one: self._run(*one), runs))
        return {key: data for part in parts for key, data in part.items()}

    def _run(self, file: BlockFile, numbers: Sequence[int]) -> dict[Key, bytes]:
        """Read blocks by one range."""
        start, end = file.span(numbers[0])[0], file.span(numbers[-1])[1]
        data = memoryview(self._range(file.ref, start, end - start))
        found = {}
        for number in numbers:
            first, last = file.span(number)
            block = bytes(data[first - start : last - start])
            if not file.is_intact(number, block):
                raise file.damaged(number)
            key = file.key(number)
            self.cache.remember(key, block)
            self.cache.store(key, block)
            found[key] = block
        return found

    def _range(self, ref: FileRef, start: int, length: int) -> bytes:
        if not length:
            return b""
        try:
            data = self.store.read_range(ref.path, start, length)
        except StoreError as error:
            raise self._explained(ref, error) from error
        with self._lock:
            self.requests += 1
            self.fetched += length
        return data

    def _explained(self, ref: FileRef, error: StoreError) -> IsospaceError:
        """Return why a range could not be read: the file is missing or has another size, else what the store said."""
        try:
            problem = "" if (size := self.store.size(ref.path)) == ref.size else f"has {size} bytes, not {ref.size}"
        except NotFoundError:
            problem = "is missing"
        except StoreError:
            return error
        if not problem:
            return error
        return IntegrityError(
            f"{ref.path}: {problem}, as the snapshot's record of published files says. Run the pipeline again, or "
            "isospace publish; until then, open the index with a local copy."
        )

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(_PARALLEL, thread_name_prefix="isospace-ranges")
            return self._pool


def _runs(missing: Iterable[Wanted]) -> Iterable[tuple[BlockFile, list[int]]]:
    """Yield blocks that are read by one range: of one file, ascending, and near to each other."""
    files: dict[int, tuple[BlockFile, list[int]]] = {}
    for file, number in missing:
        files.setdefault(id(file), (file, []))[1].append(number)
    for file, chosen in files.values():
        run: list[int] = []
        for number in sorted(chosen):
            start, end = file.span(number)
            is_near = bool(run) and start - file.span(run[-1])[1] <= _GAP_BYTES
            if run and not (is_near and end - file.span(run[0])[0] <= _MOST_BYTES):
                yield file, run
                run = []
            run.append(number)
        if run:
            yield file, run
