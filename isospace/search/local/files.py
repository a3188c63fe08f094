"""Files of the local copy: written whole, named by what they hold, and checked when they are opened."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from isospace.errors import StoreError

Verify: TypeAlias = Literal["content", "size"]


class LocalFile(BaseModel):
    """A file with its content and its stamp (size, times, inode) when it was hashed."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    stamp: tuple[int, ...]


def synced(paths: Iterable[Path]) -> dict[str, LocalFile]:
    """Sync and hash files; return them by name."""
    files = {}
    for path in sorted(paths):
        # Sync each file before recording its stamp: after a power failure it could have the stamp, not the content.
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        files[path.name] = LocalFile(sha256=_digest(path), stamp=_stamp(path))
    return files


def is_unchanged(path: Path, file: LocalFile, verify: Verify) -> bool:
    """Return whether a file is as it was: a file with the same stamp counts as unchanged, any other is hashed.

    With `verify="size"`, only the size is compared.
    """
    stamp = _stamp(path)
    if stamp == file.stamp or stamp[0] != file.stamp[0] or verify == "size":
        return stamp[0] == file.stamp[0]
    return _digest(path) == file.sha256


def load_array(path: Path) -> npt.NDArray[Any]:
    """Map an array."""
    # Copy-on-write: libraries demand writable memory, and the file must not change.
    array: npt.NDArray[Any] = np.load(path, mmap_mode="c")
    return array


def load_table(path: Path) -> pa.Table:
    """Map a table."""
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def write_table(path: Path, table: pa.Table) -> None:
    """Write a table that `load_table` can map."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())


def write_synced(path: Path, data: bytes) -> None:
    """Write a small file and sync it."""
    with path.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def publish(temporary: Path, folder: Path, is_whole: Callable[[], bool]) -> None:
    """Move a folder into place, unless another process has put a complete one there, and may be using it."""
    with contextlib.suppress(OSError):
        temporary.rename(folder)
        return
    if is_whole():
        return
    aside = temporary.with_name(f".making-{secrets.token_hex(6)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    with contextlib.suppress(OSError):
        temporary.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def cannot_write(base: Path, error: OSError) -> StoreError:
    """Return the error for a copy that cannot be written."""
    return StoreError(
        f"{base}: cannot write the local copy of the snapshot ({error.strerror or error}). Free some space there, or "
        "set ISOSPACE_CACHE to a folder with room for the snapshot's vectors and texts."
    )


def _stamp(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
