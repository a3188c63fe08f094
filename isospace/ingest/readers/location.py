"""List the files of a source, on a local path or under an s3:// prefix."""

from __future__ import annotations

import fnmatch
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from isospace.errors import SourceError
from isospace.ingest.document import without_surrogates

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
    """

    name: str
    size: int
    open: Callable[[], IO[bytes]]

    @property
    def suffix(self) -> str:
        """Lower-case suffix with its dot."""
        return PurePosixPath(self.name).suffix.lower()

    def matches(self, patterns: tuple[str, ...]) -> bool:
        """Return whether the file name, without folders, matches one of the shell patterns, ignoring case."""
        name = PurePosixPath(self.name).name.lower()
        return any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in patterns)


def list_source(url: str) -> list[SourceFile]:
    """Return the files of a folder, a glob, or a single file, sorted by name, without hidden files.

    Raises
    ------
    SourceError
        If the path does not exist or cannot be listed.
    """
    return _list_s3(url) if url.startswith("s3://") else _list_local(url.removeprefix("file://"))


def _list_local(url: str) -> list[SourceFile]:
    try:
        fixed, pattern = _split_glob(url)
        base = Path(fixed).expanduser()
        if base.is_file():
            # A link that is itself the source may point anywhere.
            return [_local_file(base.name, base, base.resolve().parent)]
        if not base.is_dir():
            raise SourceError(f"source {url[:200]}: no such file or folder. Give an existing path in runtime.source.")
        return _list_folder(base, pattern)
    except (OSError, RuntimeError) as error:
        raise SourceError(f"source {url[:200]}: cannot be listed ({error}).") from error


def _list_folder(base: Path, pattern: str | None) -> list[SourceFile]:
    files = []
    within = base.resolve()
    # os.walk, unlike rglob, lets us choose the order, which links are followed, and how errors are handled.
    for folder, subfolders, names in os.walk(base, onerror=_raise_unlistable):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        for name in names:
            path = Path(folder, name)
            relative = without_surrogates(path.relative_to(base).as_posix())
            if not name.startswith(".") and path.is_file() and _in_glob(relative, pattern):
                files.append(_local_file(relative, path, within))
    return sorted(files, key=lambda file: file.name)


def _raise_unlistable(error: OSError) -> None:
    raise SourceError(f"source {error.filename}: cannot be listed ({error.strerror}).") from error


def _local_file(name: str, path: Path, within: Path) -> SourceFile:
    return SourceFile(name, path.stat().st_size, lambda: _open_within(path, within))


def _open_within(path: Path, within: Path) -> IO[bytes]:
    """Open a file only if it is really inside a folder; OSError otherwise."""
    # A link placed in the source must not expose other files that this process can read.
    resolved = path.resolve(strict=True)
    if not resolved.is_relative_to(within):
        raise OSError("a link that leads out of the source; put a copy there, or make its folder a source")
    # O_NOFOLLOW, because the file may have been replaced by a link since it was resolved.
    return os.fdopen(os.open(resolved, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")


def _list_s3(url: str) -> list[SourceFile]:
    import obstore
    from obstore.exceptions import BaseError

    from isospace.storage.s3_store import s3_client

    fixed, pattern = _split_glob(url)
    if len(fixed) <= len("s3://"):
        raise SourceError(f"source {url}: expected s3://bucket/prefix.")
    bucket_url, _, prefix = fixed.removeprefix("s3://").partition("/")
    remote = s3_client(f"s3://{bucket_url}")
    try:
        objects = [item for page in obstore.list(remote, prefix.rstrip("/") or None) for item in page]
        if not objects and prefix:
            head = obstore.head(remote, prefix)
            return [_s3_file(remote, PurePosixPath(prefix).name, head)]
    except (BaseError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise SourceError(f"source {url}: cannot be listed ({reason}).") from error
    files = []
    for item in objects:
        name = str(item["path"])[len(prefix) :].lstrip("/")
        hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
        if name and not hidden and _in_glob(name, pattern):
            files.append(_s3_file(remote, name, item))
    return sorted(files, key=lambda file: file.name)


def _s3_file(remote: Any, name: str, item: Any) -> SourceFile:
    return SourceFile(name, int(item["size"]), lambda: io.BufferedReader(_RemoteStream(remote, item["path"])))


class _RemoteStream(io.RawIOBase):
    """obstore's reader with the interface of a Python file."""

    def __init__(self, remote: Any, path: str) -> None:
        import obstore

        self._reader = obstore.open_reader(remote, path)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from obstore.exceptions import BaseError

        try:
            data = bytes(self._reader.read(len(buffer)))
        except BaseError as error:
            raise OSError(str(error).split("\n", 1)[0]) from error
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._reader.seek(offset, whence))

    def tell(self) -> int:
        return int(self._reader.tell())


def _split_glob(url: str) -> tuple[str, str | None]:
    parts = url.split("/")
    first = next((i for i, part in enumerate(parts) if _GLOB_CHARACTERS & set(part)), None)
    if first is None or Path(url).exists():
        return url, None
    return "/".join(parts[:first]) or ("/" if url.startswith("/") else "."), "/".join(parts[first:])


def _in_glob(name: str, pattern: str | None) -> bool:
    if pattern is None:
        return True
    # `**/` also matches no folder at all.
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name, pattern.replace("**/", ""))
