"""A file of an object store as a seekable stream: of a large object, no more is fetched than is asked for."""

from __future__ import annotations

import io

from isospace.storage.store import Store


class RangedFile(io.RawIOBase):
    """Random access to a file in a store, a request for every read; nothing is kept.

    Parameters
    ----------
    store, path
        Where.

    Raises
    ------
    NotFoundError
        If there is no such file.
    """

    def __init__(self, store: Store, path: str) -> None:
        super().__init__()
        self._store, self._path, self._position = store, path, 0
        self._size = store.size(path)

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from anywhere."""
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
        """Return up to `size` bytes, or all that are left; StoreError where the store fails."""
        left = max(0, self._size - self._position)
        length = left if size < 0 else min(size, left)
        data = self._store.read_range(self._path, self._position, length) if length else b""
        self._position += len(data)
        return data
