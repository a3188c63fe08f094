"""List the files of a source under an s3:// prefix."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast
from urllib.parse import urlsplit

from isospace.errors import SourceError
from isospace.ingest.document import QuarantineEntry, without_surrogates
from isospace.ingest.readers.source_file import Listing, SourceFile, glob_pattern, left_out, split_glob, store_is_source

_EMPTY_SEGMENT = "has a key with an empty segment (//), which cannot be read; copy it to another key"


@dataclass(frozen=True, slots=True)
class _Object:
    key: str
    size: int


def list_s3(url: str, store: str | None) -> Listing:
    """List a prefix, a glob, or a single object of a bucket; see `list_source`.

    Raises
    ------
    SourceError
        If the bucket cannot be listed, or the prefix is the store.
    """
    from obstore.exceptions import BaseError

    from isospace.storage.s3_store import s3_client

    fixed, pattern = split_glob(url)
    if len(fixed) <= len("s3://"):
        raise SourceError(f"source {url}: expected s3://bucket/prefix.")
    if store is not None and store.rstrip("/") == fixed.rstrip("/"):
        raise store_is_source(url)
    bucket, _, prefix = fixed.removeprefix("s3://").partition("/")
    remote = s3_client(f"s3://{bucket}")
    try:
        objects = _objects(remote, bucket, prefix)
        if not objects and prefix:
            return Listing([_single(remote, prefix)])
    except (BaseError, OSError) as error:
        reason = str(error).split("\n", 1)[0]
        raise SourceError(f"source {url}: cannot be listed ({reason}).") from error
    return _chosen(remote, objects, prefix.rstrip("/"), _folder_of(store, bucket), glob_pattern(url, pattern))


def _folder_of(store: str | None, bucket: str) -> str | None:
    """Return the prefix of a store in this bucket, with a slash at its end."""
    if store is None or not store.startswith(f"s3://{bucket}/"):
        return None
    return store.removeprefix(f"s3://{bucket}/").strip("/") + "/"


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


def _objects(remote: Any, bucket: str, prefix: str) -> list[_Object]:
    import obstore
    from obstore.exceptions import InvalidPathError

    try:
        pages = obstore.list(remote, prefix.rstrip("/") or None)
        return [_Object(str(item["path"]), int(item["size"])) for page in pages for item in page]
    except InvalidPathError:
        # A key with an empty segment, such as a//b, fails the whole listing. Arrow's client lists such keys.
        return _arrow_objects(bucket, prefix.rstrip("/"))


def _arrow_objects(bucket: str, prefix: str) -> list[_Object]:
    from pyarrow import fs

    endpoint = _setting("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
    parts = urlsplit(endpoint)
    options: dict[str, Any] = {"endpoint_override": parts.netloc, "scheme": parts.scheme} if endpoint else {}
    if _setting("AWS_SKIP_SIGNATURE").lower() in ("1", "true"):
        options["anonymous"] = True
    client = fs.S3FileSystem(region=_setting("AWS_REGION", "AWS_DEFAULT_REGION") or None, **options)
    selector = fs.FileSelector(f"{bucket}/{prefix}".rstrip("/"), recursive=True)
    found: Sequence[Any] = client.get_file_info(selector)
    files = [item for item in found if item.type == fs.FileType.File]
    return [_Object(item.path.removeprefix(f"{bucket}/"), int(item.size or 0)) for item in files]


def _setting(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _single(remote: Any, key: str) -> SourceFile:
    import obstore

    head = obstore.head(remote, key)
    return _file(remote, PurePosixPath(key).name, _Object(str(head["path"]), int(head["size"])))


def _file(remote: Any, name: str, item: _Object) -> SourceFile:
    return SourceFile(name, item.size, lambda: cast("IO[bytes]", io.BufferedReader(_RemoteStream(remote, item.key))))


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
