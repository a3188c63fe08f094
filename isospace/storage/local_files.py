"""Read and write files of a local store.

A file is written under a temporary name, synced, and then renamed or linked. Temporary files are not listed.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import IO, Any

from isospace.errors import StoreError

TEMPORARY_PREFIX = ".tmp-"


@dataclass(frozen=True, slots=True)
class Stat:
    """Path, size in bytes, and modification time of one file, by the store's clock, since the epoch."""

    path: str
    size: int
    modified: float = 0.0


def walk_local(root: Path, base: Path, *, temporary: bool = False) -> list[Stat]:
    """Return the files under a folder, sorted by path; with `temporary`, only temporary files."""

    def fail(error: OSError) -> None:
        raise error

    stats = []
    for folder, _, names in os.walk(base, onerror=fail if base.is_dir() else None):
        for path in (Path(folder, name) for name in names if name.startswith(TEMPORARY_PREFIX) == temporary):
            # A file may be renamed or deleted while the folder is read.
            with contextlib.suppress(FileNotFoundError):
                stats.append(stat_local(root, path))
    return sorted(stats, key=lambda stat: stat.path)


def stat_local(root: Path, path: Path) -> Stat:
    """Return path, size, and modification time of a file."""
    status = path.stat()
    if S_ISDIR(status.st_mode):
        # As in an object store, a folder is not a file.
        raise FileNotFoundError(path)
    return Stat(path.relative_to(root).as_posix(), status.st_size, status.st_mtime)


def copy(data: bytes) -> Callable[[IO[bytes]], object]:
    """Return a function that writes these bytes to a stream."""
    return lambda stream: stream.write(data)


def write_local(target: Path, fill: Callable[[IO[bytes]], object], publish: Callable[[Path], Any]) -> None:
    """Write a temporary file next to `target`, sync, publish by rename or link, and sync the folder."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # The caller would take FileExistsError for a conflict of two commits.
        raise StoreError(
            f"{target.parent}: is a file, but the store needs a folder there. Move the file, or use another store."
        ) from error
    temporary = target.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with temporary.open("wb") as stream:
            fill(stream)
            stream.flush()
            os.fsync(stream.fileno())
        publish(temporary)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush the entries of a folder to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Path) -> Callable[[IO[bytes]], object]:
    """Return a function that copies a local file to a stream, without holding it in memory."""

    def copy(stream: IO[bytes]) -> None:
        with source.open("rb") as opened:
            shutil.copyfileobj(opened, stream, 1 << 22)

    return copy
