"""Guard every access to a store: no path leads out of it, and every failure is a StoreError."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from isospace.errors import ConflictError, IntegrityError, NotFoundError, StoreError


def without_passwords(text: str) -> str:
    """Return a text without the user and password of the URLs in it; a password may contain an @."""
    return re.sub(r"//[^/\s]*@", "//", text)


def confined(path: str) -> str:
    """Return a path unchanged if it stays below the prefix of its store.

    Raises
    ------
    IntegrityError
        If it leads out of the store, which only happens with a forged or damaged record.
    """
    if "\0" in path or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise IntegrityError(
            f"{path[:200]!r}: leads out of the store; expected a path below its prefix. The record with this path was "
            "forged or damaged: restore the record, and find out who wrote it."
        )
    return path


@contextmanager
def guard(
    path: str,
    url: str,
    *,
    failure: type[Exception] = OSError,
    conflict: type[Exception] | None = None,
    explain: Callable[[BaseException, str], str | None] = lambda error, url: None,
) -> Iterator[None]:
    """Check that a path stays in the store, and convert other exceptions to a StoreError.

    Parameters
    ----------
    path
        The file or folder that the block works on.
    url
        URL of the store, for messages.
    failure
        Base class of the library's exceptions; OSError is always caught.
    conflict
        If the block creates a file: the exception for a file that already exists.
    explain
        Returns the message for an error that concerns the whole store, given its URL; None for others.

    Raises
    ------
    IntegrityError
        If the path leads out of the store.
    NotFoundError
        If the file does not exist.
    ConflictError
        If the block creates a file that already exists.
    StoreError
        For any other failure.
    """
    confined(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        if (message := explain(error, url)) is not None:
            raise StoreError(message) from error
        raise NotFoundError(f"{path}: not in the store {url}.") from error
    except (OSError, failure) as error:
        if conflict is not None and isinstance(error, conflict):
            raise ConflictError(f"{path}: already exists in {url}.") from error
        if (message := explain(error, url)) is not None:
            raise StoreError(message) from error
        named = isinstance(error, OSError) and error.strerror
        reason = named or without_passwords(str(error).split("\n", 1)[0])
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            f"{path}: the store {url} failed ({reason}). No partly written file is visible. "
            f"{'Free space there' if full else 'Fix the store'}, and run the same command again."
        ) from error


def check_length(data: bytes, path: str, url: str, start: int, length: int) -> bytes:
    """Return the bytes of a range; StoreError if there are fewer than `length`."""
    if len(data) != length:
        raise StoreError(
            f"{path}: the store {url} returned {len(data)} bytes from position {start}; expected {length}. The file "
            "was replaced while it was read: run the same command again."
        )
    return data
