"""A file of an object store as a seekable stream that fetches only the bytes that are read."""

from __future__ import annotations

import io

from isospace.storage.store import Store


class RangedFile(io.RawIOBase):
    """Random access to a file in a store, with one request for every read and no buffer.

    Raises
    ------
    NotFoundError
        If the file does not exist.
    """

    def __init__(self, store: Store, path: str) -> None:
        super().__init__()
        self._store, self._path, self._position = store, path, 0
        self._size = store.size(path)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position, which may lie beyond the end."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, start + offset)
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, or the rest if `size` is negative; StoreError if the store fails."""
        remaining = max(0, self._size - self._position)
        length = remaining if size < 0 else min(size, remaining)
        data = self._store.read_range(self._path, self._position, length) if length else b""
        self._position += len(data)
        return data
