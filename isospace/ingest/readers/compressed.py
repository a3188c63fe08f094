"""Read compressed files: .gz, .bz2, .xz, and .zst as streams, and the members of .zip archives.

A file of some kilobytes can expand to terabytes, so what is read is bounded by the size of the compressed file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import PurePosixPath
from typing import IO, Any, cast

from isospace.ingest.document import QuarantineEntry, without_surrogates
from isospace.ingest.readers.pointers import stored_pointer
from isospace.ingest.readers.source_file import Listing, SourceFile, left_out

COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst"})
ARCHIVES = frozenset({".zip"})
# Ordinary text shrinks to a fifth, very regular tables to a hundredth. Below the free size the ratio says nothing.
MAX_RATIO, FREE_BYTES = 250, 100_000_000
_MAX_MEMBERS = 100_000
UNREAD_ARCHIVES = frozenset({".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".tzst", ".7z", ".rar"})
UNREAD_FILES = frozenset({".lz4", ".br", ".lzma", ".z", ".snappy", ".sz"})
# What the libraries raise for damaged, encrypted, and unknown data; NotImplementedError is zipfile's for a compression
# that it does not know.
_ERRORS = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)


class ExpansionError(OSError):
    """A compressed file expands to more than its size allows."""


def unpacked(file: SourceFile) -> SourceFile:
    """Return a file as it is read: a compressed one expands when it is opened, and is called what it holds."""
    suffix = PurePosixPath(file.name).suffix
    if suffix.lower() not in COMPRESSED or file.is_compressed:
        return file
    limit = max(FREE_BYTES, MAX_RATIO * file.size)
    return replace(
        file,
        open=lambda: _expanded(file.open, suffix.lower(), limit),
        content_name=file.name.removesuffix(suffix),
        is_compressed=True,
        stored=file.open,
    )


@contextmanager
def archive_members(file: SourceFile) -> Iterator[Listing | QuarantineEntry]:
    """Open a ZIP archive; give its members, without hidden files and folders, or why they cannot be read.

    A member is called by the archive and its path in it; its URI separates them by `#`. Of several with one name, the
    last one counts, as for `unzip -o`: tools that replace a member append it.
    """
    try:
        if pointer := stored_pointer(file):
            # One file is missing, whatever it holds.
            yield replace(_unreadable(file, pointer), documents=1)
            return
        stream = file.open()
    except OSError as error:
        yield _unreadable(file, f"cannot be read: {error.strerror or error}")
        return
    with closing(stream):
        try:
            archive = zipfile.ZipFile(stream)
            members = [info for info in archive.infolist() if _is_shown(info)]
            problem = _excess(file, members)
        except (*_ERRORS, OSError) as error:
            archive, problem = None, f"cannot be opened as a ZIP archive ({str(error)[:120]})"
        if archive is None or problem:
            yield _unreadable(file, problem)
            return
        with archive:
            yield _members(file, archive, members)


def _members(file: SourceFile, archive: zipfile.ZipFile, infos: list[zipfile.ZipInfo]) -> Listing:
    inside = [info for info in infos if not _leads_out(info)]
    # A later one replaces an earlier one.
    members = {member.name: member for member in (_member(file, archive, info) for info in inside)}
    counts = Counter(_member_name(file, info) for info in inside)
    outside = dict.fromkeys(_member_name(file, info) for info in infos if _leads_out(info))
    aside = [
        *(
            left_out(name, "has .. in its path, which can lead out of its archive; pack it with another path")
            for name in outside
        ),
        *(
            left_out(name, f"is the name of {count:,} members of its archive, of which only the last one is read")
            for name, count in counts.items()
            if count > 1
        ),
    ]
    return Listing(sorted(members.values(), key=lambda member: member.name), aside)


def _unreadable(file: SourceFile, reason: str) -> QuarantineEntry:
    # Documents that an earlier run read from it stay.
    return QuarantineEntry(file.name, reason, within=file.name, documents=None)


def _is_shown(info: zipfile.ZipInfo) -> bool:
    parts = [part for part in _parts(info) if part != ".."]
    return not info.is_dir() and not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _leads_out(info: zipfile.ZipInfo) -> bool:
    return ".." in _parts(info)


def _parts(info: zipfile.ZipInfo) -> tuple[str, ...]:
    # Some programs of Windows separate folders by its own sign.
    return PurePosixPath(info.filename.replace("\\", "/")).parts


def _member_name(file: SourceFile, info: zipfile.ZipInfo) -> str:
    return f"{file.name}#{without_surrogates(info.filename)}"


def _excess(file: SourceFile, members: list[zipfile.ZipInfo]) -> str:
    if len(members) > _MAX_MEMBERS:
        return f"holds {len(members):,} files; an archive may hold {_MAX_MEMBERS:,}. Unpack it"
    size, limit = sum(info.file_size for info in members), max(FREE_BYTES, MAX_RATIO * file.size)
    return f"expands to {size:,} bytes; expected at most {limit:,}. Unpack it if you trust it" if size > limit else ""


def _member(file: SourceFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> SourceFile:
    return SourceFile(
        _member_name(file, info),
        info.file_size,
        lambda: _open_member(archive, info),
        content_name=f"{file.name}/{without_surrogates(info.filename)}",
        is_compressed=True,
    )


def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.flag_bits & 1:
        raise OSError("it is encrypted; put an unencrypted copy there")
    with _as_os_error():
        # The sizes that the archive declares are checked, and zipfile reads no more than they say.
        return cast("IO[bytes]", io.BufferedReader(_Bounded(lambda: archive.open(info), info.file_size)))


def _expanded(opened: Callable[[], IO[bytes]], suffix: str, limit: int) -> IO[bytes]:
    return cast("IO[bytes]", io.BufferedReader(_Bounded(lambda: _decompressor(opened(), suffix), limit)))


def _decompressor(stream: IO[bytes], suffix: str) -> Any:
    match suffix:
        case ".gz":
            return _Closing(gzip.GzipFile(fileobj=stream, mode="rb"), stream)
        case ".bz2":
            return _Closing(bz2.BZ2File(stream), stream)
        case ".xz":
            return _Closing(lzma.LZMAFile(stream), stream)
        case _:
            import pyarrow as pa

            return _Closing(pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd"), stream)


class _Closing:
    """A stream that closes the one below it."""

    def __init__(self, stream: Any, below: IO[bytes]) -> None:
        self._stream, self._below = stream, below

    def read(self, size: int) -> bytes:
        return bytes(self._stream.read(size))

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._below.close()


class _Bounded(io.RawIOBase):
    """A stream that expands as it is read, up to a limit; seeking backward starts it anew."""

    def __init__(self, reopen: Callable[[], Any], limit: int) -> None:
        self._reopen, self._limit = reopen, limit
        self._stream, self._position = reopen(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _as_os_error():
            data = self._stream.read(len(buffer))
        self._position += len(data)
        if self._position > self._limit:
            raise ExpansionError(f"it expands to more than {self._limit:,} bytes; unpack it if you trust it")
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            while self.read(1 << 20):
                pass
        target = offset if whence == io.SEEK_SET else self._position + offset
        if target < self._position:
            self._stream.close()
            self._stream, self._position = self._reopen(), 0
        while self._position < target and self.read(min(1 << 20, target - self._position)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


@contextmanager
def _as_os_error() -> Iterator[None]:
    """Raise what a library says of broken data as an OSError, which quarantines the file."""
    try:
        yield
    except _ERRORS as error:
        raise OSError(f"its compressed data are broken ({str(error)[:120] or type(error).__name__})") from error


@contextmanager
def spooled(file: SourceFile) -> Iterator[SourceFile]:
    """Give a file for random access: a compressed one is expanded into a temporary file."""
    if not file.is_compressed:
        yield file
        return
    with tempfile.TemporaryFile() as copy:
        with file.open() as stream:
            while block := stream.read(1 << 20):
                copy.write(block)
        copy.seek(0)
        # The reader closes what it opens; the copy is closed here.
        yield replace(file, open=lambda: io.BufferedReader(io.FileIO(copy.fileno(), closefd=False)))
