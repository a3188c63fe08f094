"""A file of a source, a list of them, and the globs that choose them."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from isospace.errors import SourceError
from isospace.ingest.document import QuarantineEntry

_GLOB_CHARACTERS = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source.

    Attributes
    ----------
    name
        Path relative to the source, with forward slashes.
    size
        Bytes.
    open
        Opens a seekable binary stream.
    content_name
        Its name without the suffix of its compression; empty if that is `name`.
    is_compressed
        Whether it expands when it is read, so that `size` is not that of its content.
    stored
        Opens a compressed file as it is stored; None if `open` does.
    stamp
        What the source says of its version: another one after every change of the content. Empty if it says nothing.
    changed
        When that was last changed, in seconds since the epoch. A change that follows at once may have the same stamp.
    is_remote
        Whether it is in an object store, so that reading it is mostly waiting.
    opened
        The stamps that it had when it was opened: it may have changed since it was listed, and may change back.
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]
    content_name: str = ""
    is_compressed: bool = False
    stored: Callable[[], IO[bytes]] | None = None
    stamp: str = ""
    changed: float = 0.0
    is_remote: bool = False
    opened: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def identifier(self) -> str:
        """The ID of the document if the file is one: compressing a file does not make it another document."""
        return self.content_name or self.name

    @property
    def suffix(self) -> str:
        """Lower-case suffix of what it holds, with its dot."""
        return PurePosixPath(self.identifier).suffix.lower()

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Return whether the file name, without folders, matches one of the shell patterns, ignoring case."""
        name = PurePosixPath(self.identifier).name.lower()
        return any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of a source or an archive, sorted by name, and what was left out of it."""

    files: list[SourceFile]
    left_out: list[QuarantineEntry] = field(default_factory=list)


def left_out(name: str, reason: str) -> QuarantineEntry:
    """Return an entry for what is no document, so that no limit counts it, but that a person should know of."""
    return QuarantineEntry(name, reason, documents=0)


def store_is_source(url: str) -> SourceError:
    """Return the error for a source that is the store of the run."""
    return SourceError(
        f"source {url[:200]}: is the store itself, whose own files are not documents. Keep the documents and the store "
        "in two folders, and name them in runtime.source and runtime.store."
    )


def split_glob(url: str) -> tuple[str, str | None]:
    """Return the folders before the first wildcard, and the rest, which is None without one."""
    parts = url.split("/")
    first = next((i for i, part in enumerate(parts) if _GLOB_CHARACTERS & set(part)), None)
    if first is None or Path(url).exists():
        return url, None
    return "/".join(parts[:first]) or ("/" if url.startswith("/") else "."), "/".join(parts[first:])


def glob_pattern(url: str, pattern: str | None) -> re.Pattern[str] | None:
    """Compile a glob by the rules of Python's `glob.translate`, where `*` does not cross a slash; None stays None.

    Raises
    ------
    SourceError
        If `**` is only part of a name.
    """
    if pattern is None:
        return None
    from fsspec.utils import glob_translate

    try:
        return re.compile(glob_translate(pattern))
    except (ValueError, re.error) as error:
        raise SourceError(
            f"source {url[:200]}: is a glob that cannot be read ({error}). Write * for a name in one folder, and **/ "
            "for any folders, as in docs/**/*.md."
        ) from error
