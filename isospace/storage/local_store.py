"""A store in a local folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from isospace.errors import ConflictError, NotFoundError
from isospace.storage.guard import check_length, confined, guard
from isospace.storage.local_files import Stat, copy, copy_file, make_folder, stat_local, walk_local, write_local
from isospace.storage.protocol import Store


@dataclass(frozen=True, slots=True)
class LocalStore(Store):
    """A folder that is created by the first write."""

    url: str
    root: Path

    def read(self, path: str) -> bytes:
        with self._guard(path):
            return (self.root / path).read_bytes()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        with self._guard(path), (self.root / path).open("rb") as stream:
            stream.seek(start)
            data = stream.read(length)
        return check_length(data, path, self.url, start, length)

    def digest(self, path: str) -> str:
        with self._guard(path), (self.root / path).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def stat(self, path: str) -> Stat:
        with self._guard(path):
            return stat_local(self.root, self.root / path)

    def write(self, path: str, data: bytes, *, sync: bool = True) -> None:
        self._replace(path, copy(data), sync=sync)

    def write_file(self, path: str, source: Path) -> None:
        self._replace(path, copy_file(source))

    def create(self, path: str, data: bytes) -> None:
        self._link(path, copy(data))

    def create_file(self, path: str, source: Path) -> bool:
        try:
            self._link(path, copy_file(source))
        except ConflictError:
            return False
        return True

    def delete(self, path: str) -> None:
        with contextlib.suppress(NotFoundError), self._guard(path):
            (self.root / path).unlink()

    def move(self, path: str, target: str) -> None:
        with self._guard(target), self._guard(path):
            source = self.root / path
            stat_local(self.root, source)
            make_folder((self.root / target).parent)
            source.replace(self.root / target)

    def walk(self, folder: str) -> Iterator[Stat]:
        with self._guard(folder):
            stats = walk_local(self.root, self.root / folder)
        yield from stats

    def folders(self, folder: str) -> list[str]:
        base = self.root / folder
        with self._guard(folder):
            return sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []

    def leftovers(self, folder: str) -> list[Stat]:
        with self._guard(folder):
            return walk_local(self.root, self.root / folder, temporary=True)

    def remove_empty(self, folder: str) -> None:
        for path, _, _ in os.walk(self.root / confined(folder), topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()

    def _replace(self, path: str, fill: Callable[[IO[bytes]], object], *, sync: bool = True) -> None:
        target = self.root / path
        with self._guard(path):
            write_local(target, fill, lambda temporary: temporary.replace(target), sync=sync)

    def _link(self, path: str, fill: Callable[[IO[bytes]], object]) -> None:
        target = self.root / path
        with guard(path, self.url, conflict=FileExistsError):
            write_local(target, fill, target.hardlink_to)

    def _guard(self, path: str) -> AbstractContextManager[None]:
        return guard(path, self.url)
