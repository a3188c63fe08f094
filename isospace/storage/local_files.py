"""Files of a local store: written under a temporary name, synced, then renamed or linked; listed without leftovers."""

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
    """Path and size in bytes of one object, and when it was written: seconds since the epoch by the store's own clock."""

    path: str
    size: int
    modified: float = 0.0


def walk_local(root: Path, base: Path, *, temporary: bool = False) -> list[Stat]:
    """Return the files under a folder, sorted by path; with `temporary` those alone that killed writers left."""

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for folder, _, names in os.walk(base, onerror=refuse if base.is_dir() else None):
        for path in (Path(folder, name) for name in names if name.startswith(TEMPORARY_PREFIX) == temporary):
            # A file may be renamed or deleted while the folder is read.
            with contextlib.suppress(FileNotFoundError):
                found.append(stat_local(root, path))
    return sorted(found, key=lambda stat: stat.path)


def stat_local(root: Path, path: Path) -> Stat:
    """Return path, size and time of a file."""
    status = path.stat()
    if S_ISDIR(status.st_mode):
        # An object store has no folders: nor does one count as a file here.
        raise FileNotFoundError(path)
    return Stat(path.relative_to(root).as_posix(), status.st_size, status.st_mtime)


def copy(data: bytes) -> Callable[[IO[bytes]], object]:
    """Return what writes these bytes to a stream."""
    return lambda stream: stream.write(data)


def write_local(target: Path, fill: Callable[[IO[bytes]], object], publish: Callable[[Path], Any]) -> None:
    """Write beside `target`, sync, publish by rename or link, and sync the folder."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        # Not to be taken for the conflict of two commits.
        raise StoreError(f"{target.parent}: is a file where the store needs a folder. Give another store.") from error
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
    """Have the names in a folder reach the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_file(source: Path) -> Callable[[IO[bytes]], object]:
    """Return what writes the content of a local file to a stream, without holding it in memory."""

    def copy(stream: IO[bytes]) -> None:
        with source.open("rb") as opened:
            shutil.copyfileobj(opened, stream, 1 << 22)

    return copy
