"""The interface of a store: what a local folder and an S3 prefix both do, with the same promises.

A file appears whole or not at all, and `create` fails where the name exists: that one operation is the commit. Paths
are relative to the prefix and stay below it, since many come out of files that lie in the store. Every method raises
IntegrityError for a path that leads out of the store, and StoreError where the store fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from isospace.errors import ConflictError, NotFoundError
from isospace.storage.local_files import Stat


class Store(Protocol):
    """A store of files; cheap to open, holds no state, can be pickled."""

    url: str
    """As the user gave it."""
    root: Path | None
    """The local folder, or None for an object store: whoever needs a local path has to copy the file then."""

    def read(self, path: str) -> bytes:
        """Return the bytes of `path`; NotFoundError if it does not exist."""
        ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes of `path` from `start`; StoreError where it is shorter than that."""
        ...

    def digest(self, path: str) -> str:
        """Return the SHA-256 of `path`, read in a stream; NotFoundError if it does not exist."""
        ...

    def stat(self, path: str) -> Stat:
        """Return size and time of `path`; NotFoundError if it does not exist."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write `path` whole, replacing what was there."""
        ...

    def write_file(self, path: str, source: Path) -> None:
        """Write the content of a local file to `path`, whole, without holding it in memory."""
        ...

    def create(self, path: str, data: bytes) -> None:
        """Write `path` whole if there is no such file; ConflictError if there is."""
        ...

    def create_file(self, path: str, source: Path) -> bool:
        """Write a local file to `path` if there is no such file; tell whether this call wrote it."""
        ...

    def delete(self, path: str) -> None:
        """Remove `path`; nothing happens where it does not exist."""
        ...

    def walk(self, folder: str) -> Iterator[Stat]:
        """Yield the files under `folder`, sorted by path, at any depth."""
        ...

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly under `folder`, sorted."""
        ...

    def leftovers(self, folder: str) -> list[Stat]:
        """Return what killed writers left under a local folder; an object store shows nothing that is not whole."""
        ...

    def remove_empty(self, folder: str) -> None:
        """Remove a local folder, and folders in it, as far as they are empty; an object store has none."""
        ...

    def size(self, path: str) -> int:
        """Return the size of `path` in bytes; NotFoundError if it does not exist."""
        return self.stat(path).size

    def exists(self, path: str) -> bool:
        """Tell whether `path` exists."""
        try:
            self.stat(path)
        except NotFoundError:
            return False
        return True

    def create_if_absent(self, path: str, data: bytes) -> bool:
        """Write `path` if there is no such file; tell whether this call wrote it."""
        try:
            self.create(path, data)
        except ConflictError:
            return False
        return True
