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


def write_local(
    target: Path, fill: Callable[[IO[bytes]], object], publish: Callable[[Path], Any], *, sync: bool = True
) -> None:
    """Write a temporary file next to `target`, sync, publish by rename or link, and sync the folder.

    Once this returns, or `publish` finds that the file exists, the file and all folders above it survive a power loss;
    without `sync`, the file survives the end of the process alone.
    """
    try:
        make_folder(target.parent)
    except FileExistsError as error:
        # The caller would take FileExistsError for a conflict of two commits.
        raise StoreError(
            f"{error.filename}: is a file, but the store needs a folder there. Move the file, or use another store."
        ) from error
    temporary = target.parent / f"{TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
    try:
        with temporary.open("wb") as stream:
            fill(stream)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        try:
            publish(temporary)
        finally:
            # Also if the file exists: its writer may have been killed before this, and the caller will rely on it.
            if sync:
                sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Create a folder and all folders above it that are missing, and sync their entries, the topmost first.

    An empty folder counts as new: whoever created it may have been killed before its entry was synced. A folder gets
    its first file or subfolder only after that, so the entry of any other folder is on disk.
    """
    if _is_in_use(folder) or folder == folder.parent:
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    # A folder above the store may be closed to its user.
    with contextlib.suppress(PermissionError):
        sync_folder(folder.parent)


def _is_in_use(folder: Path) -> bool:
    """Return whether a folder has an entry other than temporary files; False if there is no folder."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.name.startswith(TEMPORARY_PREFIX) for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        # The store did not create it: the store can list its own folders.
        return True


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
