"""What every access to a store goes through: no path leads out of it, and every failure is a StoreError."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from isospace.errors import ConflictError, IntegrityError, NotFoundError, StoreError


def confined(path: str) -> str:
    """Return a path that stays below the prefix of its store.

    Raises
    ------
    IntegrityError
        If it leads elsewhere, as only a forged record says.
    """
    if "\0" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise IntegrityError(
            f"{path[:200]!r}: leads out of the store; expected a path below its prefix. The record that names it was "
            "forged or damaged: restore that, and find out who wrote it."
        )
    return path


@contextmanager
def guard(
    path: str, url: str, *, failure: type[Exception] = OSError, conflict: type[Exception] | None = None
) -> Iterator[None]:
    """Check that a path stays in the store, and turn errors of the system and of a library into errors of the store.

    Parameters
    ----------
    path
        The file or folder that the block works on.
    url
        The store, for the message.
    failure
        Root of the library's errors; OSError is caught in any case.
    conflict
        What is raised where the file exists already, if the block creates it.

    Raises
    ------
    IntegrityError
        If the path leads out of the store.
    NotFoundError
        If there is no such file.
    ConflictError
        If the block creates a file that exists.
    StoreError
        For any other failure.
    """
    confined(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFoundError(f"{path}: not in the store {url}.") from error
    except (OSError, failure) as error:
        if conflict is not None and isinstance(error, conflict):
            raise ConflictError(f"{path}: exists already in {url}.") from error
        # An endpoint may hold a password.
        reason = re.sub(r"//[^/\s]*@", "//", str(error).split("\n", 1)[0])
        raise StoreError(
            f"{path}: the store {url} failed ({reason}). Nothing half-written is visible; fix the store and "
            "run the same command again."
        ) from error


def check_length(data: bytes, path: str, url: str, start: int, length: int) -> bytes:
    """Return the bytes of a range, or raise StoreError where there are fewer than were asked for."""
    if len(data) != length:
        raise StoreError(
            f"{path}: the store {url} gave {len(data)} bytes from {start}; expected {length}. The file was "
            "replaced while it was read: run the same command again."
        )
    return data
