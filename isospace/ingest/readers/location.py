"""List the files of a source, on a local path or in an object store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from isospace.errors import SourceError
from isospace.ingest.document import QuarantineEntry, without_surrogates
from isospace.ingest.readers.object_listing import list_objects
from isospace.ingest.readers.source_file import (
    Listing,
    SourceFile,
    glob_pattern,
    left_out,
    split_glob,
    store_is_source,
)
from isospace.storage.object_url import EXPECTED, is_object_url, shown_url

__all__ = ["list_source"]


def list_source(url: str, *, store: str | None = None) -> Listing:
    """List a folder, a glob, or a single file, without hidden files.

    A link to a folder of the source is followed, unless that folder holds the link. Nothing outside the source is read.

    Parameters
    ----------
    url
        A local path, or a prefix of an object store such as `s3://bucket/prefix`. It may be a glob: `*` matches within
        a folder, `**/` any folders.
    store
        The store of the run, which is left out if it lies in the source.

    Raises
    ------
    SourceError
        If the path does not exist, cannot be listed, or is the store itself.
    ConfigError
        If the URL of an object store contains credentials, or a setting in the environment cannot be used.
    """
    if is_object_url(url):
        return list_objects(url, store if store and is_object_url(store) else None)
    if "://" in url and not url.startswith("file://"):
        raise SourceError(f"source {shown_url(url)}: unknown scheme. Expected a local path, {EXPECTED}.")
    folder = None if store is None or is_object_url(store) else store.removeprefix("file://")
    return _list_local(url.removeprefix("file://"), folder)


def _list_local(url: str, store: str | None) -> Listing:
    try:
        fixed, pattern = split_glob(url)
        base = Path(fixed).expanduser()
        if base.is_file():
            # A link that is itself the source may point anywhere.
            return Listing([_local_file(base.name, base, base.resolve().parent)])
        if not base.is_dir():
            raise SourceError(f"source {url[:200]}: no such file or folder. Give an existing path in runtime.source.")
        excluded = None if store is None else Path(store).expanduser().resolve()
        if excluded == base.resolve():
            raise store_is_source(url)
        walk = _Walk(base, base.resolve(), excluded, glob_pattern(url, pattern))
        files = list(walk.files(base))
        return Listing(sorted(files, key=lambda file: file.name), walk.left_out)
    except (OSError, RuntimeError) as error:
        raise SourceError(f"source {url[:200]}: cannot be listed ({error}).") from error


@dataclass(slots=True)
class _Walk:
    """A walk through a folder.

    Attributes
    ----------
    within
        The folder, resolved.
    excluded
        The store, resolved, or None.
    """

    base: Path
    within: Path
    excluded: Path | None
    pattern: re.Pattern[str] | None
    left_out: list[QuarantineEntry] = field(default_factory=list)

    def files(self, start: Path, *, in_link: bool = False) -> Iterator[SourceFile]:
        # os.walk, unlike rglob, lets us choose the order, which links are followed, and how errors are handled.
        for folder, subfolders, names in os.walk(start, onerror=_raise_unlistable):
            shown = sorted(name for name in subfolders if not name.startswith("."))
            links = [Path(folder, name) for name in shown if Path(folder, name).is_symlink()]
            subfolders[:] = [name for name in shown if Path(folder, name) not in links and self._enters(folder, name)]
            yield from self._chosen(folder, names)
            for link in links:
                if self._follows(link, in_link=in_link):
                    yield from self.files(link, in_link=True)

    def _chosen(self, folder: str, names: Iterable[str]) -> Iterator[SourceFile]:
        for name in names:
            path = Path(folder, name)
            relative = self._name(path)
            if name.startswith(".") or not (self.pattern is None or self.pattern.match(relative)):
                continue
            if path.is_file():
                yield _local_file(relative, path, self.within)
            elif path.is_symlink() and not path.exists():
                yield SourceFile(relative, 1, _raise_dangling)

    def _enters(self, folder: str, name: str) -> bool:
        if self.excluded is None or Path(folder, name).resolve() != self.excluded:
            return True
        reason = "is the store of this run, which lies in the source; it was left out. Put it elsewhere"
        self.left_out.append(left_out(f"{self._name(Path(folder, name))}/", reason))
        return False

    def _follows(self, link: Path, *, in_link: bool) -> bool:
        target, name = link.resolve(), f"{self._name(link)}/"
        if not target.is_relative_to(self.within):
            reason = "is a link to a folder outside the source; put a copy there, or make its folder a source"
            self.left_out.append(left_out(name, reason))
            return False
        if link.parent.resolve().is_relative_to(target):
            self.left_out.append(left_out(name, "is a link to a folder that holds it; it was not followed"))
            return False
        if in_link:
            # Links among linked folders could multiply without end.
            reason = "is a link within a linked folder; it was not followed, and its folder is read in its own place"
            self.left_out.append(left_out(name, reason))
            return False
        return self._enters(str(link.parent), link.name)

    def _name(self, path: Path) -> str:
        return without_surrogates(path.relative_to(self.base).as_posix())


def _raise_unlistable(error: OSError) -> None:
    raise SourceError(f"source {error.filename}: cannot be listed ({error.strerror}).") from error


def _raise_dangling() -> IO[bytes]:
    raise OSError("a link to a file that is not there")


def _local_file(name: str, path: Path, within: Path) -> SourceFile:
    stat, stamps = path.stat(), list[str]()

    def opened() -> IO[bytes]:
        stream = _open_within(path, within)
        stamps.append(_stamp(os.fstat(stream.fileno())))
        return stream

    changed = max(stat.st_mtime, stat.st_ctime)
    return SourceFile(name, stat.st_size, opened, stamp=_stamp(stat), changed=changed, opened=stamps)


def _stamp(stat: os.stat_result) -> str:
    # Programs can set the time of a file's last change back, but not that of its last change of status.
    return f"{stat.st_mtime_ns}-{stat.st_ctime_ns}"


def _open_within(path: Path, within: Path) -> IO[bytes]:
    """Open a file only if it is really inside a folder; OSError otherwise."""
    # A link placed in the source must not expose other files that this process can read.
    resolved = path.resolve(strict=True)
    if not resolved.is_relative_to(within):
        raise OSError("a link that leads out of the source; put a copy there, or make its folder a source")
    # O_NOFOLLOW, because the file may have been replaced by a link since it was resolved.
    return os.fdopen(os.open(resolved, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb")
