"""The interface of a store, implemented by a local folder and a prefix of an object store, with the same guarantees.

A file appears whole or not at all, and `create` fails if the file exists; commits rely on this. Paths are relative to
the prefix and must stay below it, since many are read from files in the store. Every method raises IntegrityError for a
path that leads out of the store, and StoreError if the store fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from isospace.errors import ConflictError, NotFoundError
from isospace.storage.local_files import Stat


class Store(Protocol):
    """A store of files. Cheap to open, stateless, and can be pickled."""

    url: str
    """The URL or path that the user gave."""
    root: Path | None
    """The local folder; None for an object store, whose files must be copied if a local path is needed."""

    def read(self, path: str) -> bytes:
        """Return the bytes of `path`; NotFoundError if it does not exist."""
        ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes of `path` from `start`; StoreError if the file is too short."""
        ...

    def digest(self, path: str) -> str:
        """Return the SHA-256 of `path`, read as a stream; NotFoundError if it does not exist."""
        ...

    def stat(self, path: str) -> Stat:
        """Return size and modification time of `path`; NotFoundError if it does not exist."""
        ...

    def write(self, path: str, data: bytes, *, sync: bool = True) -> None:
        """Write `path` atomically, replacing an existing file.

        Without `sync`, a local file outlives this process, but perhaps not a power loss; it takes a fraction of the
        time.
        """
        ...

    def write_file(self, path: str, source: Path) -> None:
        """Write a local file to `path` atomically, without holding it in memory."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write `path` atomically if it does not exist; ConflictError if it does."""
        ...

    def create_file(self, path: str, source: Path) -> bool:
        """Write a local file to `path` if that does not exist; return whether this call wrote it."""
        ...

    def delete(self, path: str) -> None:
        """Remove `path`; do nothing if it does not exist."""
        ...

    def move(self, path: str, target: str) -> None:
        """Rename `path` to `target`, replacing an existing file; NotFoundError if `path` does not exist."""
        ...

    def walk(self, folder: str) -> Iterator[Stat]:
        """Yield the files under `folder`, at any depth, sorted by path."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly under `folder`, sorted."""
        ...

    def leftovers(self, folder: str) -> list[Stat]:
        """Return the temporary files that killed writers left under a local folder; an object store has none."""
        ...

    def remove_empty(self, folder: str) -> None:
        """Remove empty folders at and under a local folder; an object store has no folders."""
        ...

    def size(self, path: str) -> int:
        """Return the size of `path` in bytes; NotFoundError if it does not exist."""
        return self.stat(path).size

    def exists(self, path: str) -> bool:
        """Return whether `path` exists."""
        try:
            self.stat(path)
        except NotFoundError:
            return False
        return True

    def create_if_absent(self, path: str, data: bytes) -> bool:
        """Write `path` if it does not exist; return whether this call wrote it."""
        try:
            self.create(path, data)
        except ConflictError:
            return False
        return True
