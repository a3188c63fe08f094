"""List the files of a source in an object store."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

from isospace.errors import SourceError
from isospace.ingest.document import QuarantineEntry, without_surrogates
from isospace.ingest.readers.arrow_listing import list_with_arrow
from isospace.ingest.readers.source_file import Listing, SourceFile, glob_pattern, left_out, split_glob, store_is_source
from isospace.storage.object_url import EXPECTED, ObjectUrl, is_object_url, parse_object_url

_EMPTY_SEGMENT = "has a key with an empty segment (//), which cannot be read; copy it to another key"

_QUOTED = re.compile(r'Path "([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    size: int
    etag: str = ""
    """Another one after every write; empty if the listing does not tell it."""


def list_objects(url: str, store: str | None) -> Listing:
    """List a prefix, a glob, or a single object of a bucket; see `list_source`.

    Raises
    ------
    SourceError
        If the bucket cannot be listed, or the prefix is the store.
    ConfigError
        If the URL contains credentials, or a setting in the environment cannot be used.
    """
    from obstore.exceptions import BaseError

    from isospace.storage.object_store import object_client

    fixed, pattern = split_glob(url)
    parse_object_url(url)
    if not is_object_url(fixed) or fixed.endswith("://"):
        raise SourceError(f"source {url}: names no bucket; expected {EXPECTED}.")
    place = parse_object_url(fixed)
    prefix, own = place.prefix, _prefix_of(store, place)
    if own is not None and own == prefix.strip("/"):
        raise store_is_source(url)
    remote = object_client(place.root)
    try:
        objects = _objects(remote, place)
        if not objects and prefix:
            return Listing([_single(remote, prefix)])
    except (BaseError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise SourceError(f"source {url}: cannot be listed ({reason}).") from error
    folder = None if own is None else f"{own}/"
    return _chosen(remote, objects, prefix.rstrip("/"), folder, glob_pattern(url, pattern))


def _prefix_of(store: str | None, place: ObjectUrl) -> str | None:
    """Return the prefix of a store in this bucket, without slashes at its ends; None for a store elsewhere."""
    if store is None:
        return None
    other = parse_object_url(store)
    return other.prefix.strip("/") if other.is_in_bucket_of(place) else None


def _chosen(
    remote: Any, objects: Sequence[_Object], prefix: str, store: str | None, pattern: re.Pattern[str] | None
) -> Listing:
    files: list[SourceFile] = []
    aside: dict[str, QuarantineEntry] = {}
    for item in objects:
        name = item.key[len(prefix) :].removeprefix("/") if prefix else item.key
        if any(part.startswith(".") for part in name.split("/")) or not name:
            continue
        if store is not None and item.key.startswith(store):
            folder = store[len(prefix) :].removeprefix("/") if prefix else store
            aside[folder] = left_out(folder, "is the store of this run, which lies in the source; it was left out")
        elif pattern is not None and not pattern.match("/".join(part for part in name.split("/") if part)):
            continue
        elif "" in name.split("/"):
            aside[name] = QuarantineEntry(without_surrogates(name), _EMPTY_SEGMENT)
        else:
            files.append(_file(remote, name, item))
    return Listing(sorted(files, key=lambda file: file.name), list(aside.values()))


def _objects(remote: Any, place: ObjectUrl) -> list[_Object]:
    import obstore
    from obstore.exceptions import InvalidPathError

    prefix = place.prefix.rstrip("/")
    try:
        pages = obstore.list(remote, prefix or None)
        return [_object(item) for page in pages for item in page]
    except InvalidPathError as error:
        # A key with an empty segment, such as a//b, fails the whole listing. Arrow's clients list such keys.
        if place.service == "azure":
            odd = next(iter(_QUOTED.findall(str(error))), "")
            raise SourceError(
                f"source {place.root}/{prefix}: the blob {odd[:200]!r} has an empty segment in its name (//), and "
                "cannot be listed. Copy it to another name, or give a prefix that does not contain it."
            ) from error
        return [_Object(key, size) for key, size in list_with_arrow(place, prefix)]


def _single(remote: Any, key: str) -> SourceFile:
    import obstore

    head = obstore.head(remote, key)
    return _file(remote, PurePosixPath(key).name, _object(head))


def _object(item: Any) -> _Object:
    return _Object(str(item["path"]), int(item["size"]), str(item.get("e_tag") or ""))


def _file(remote: Any, name: str, item: _Object) -> SourceFile:
    stamps: list[str] = []

    def opened() -> IO[bytes]:
        stream = _RemoteStream(remote, item.key)
        stamps.append(_etag(remote, item.key))
        return cast("IO[bytes]", io.BufferedReader(stream))

    return SourceFile(name, item.size, opened, stamp=item.etag, is_remote=True, opened=stamps)


def _etag(remote: Any, key: str) -> str:
    """Return the version that an object has now; empty if it cannot be told, which is that of no object."""
    import obstore
    from obstore.exceptions import BaseError

    try:
        return str(obstore.head(remote, key).get("e_tag") or "")
    except BaseError:
        return ""


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
