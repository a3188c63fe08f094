"""A store on S3, Google Cloud Storage, or Azure Blob Storage, accessed with obstore.

These services make writes atomic, and can create a file only if it does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from isospace.errors import ConfigError, ConflictError, IntegrityError, NotFoundError, StoreError
from isospace.storage.azure_client import azure_client
from isospace.storage.gcs_client import gcs_client
from isospace.storage.guard import check_length, guard
from isospace.storage.local_files import Stat
from isospace.storage.object_errors import explain_object, explain_settings
from isospace.storage.object_url import parse_object_url
from isospace.storage.protocol import Store
from isospace.storage.s3_client import s3_client

Client: TypeAlias = S3Store | GCSStore | AzureStore

# Azure takes letters, digits, and underscores in such a name, and some proxies of S3 drop names with underscores.
_CREATED_BY = "isospacecreatedby"
_CREATE_ATTEMPTS = 5
_LIST_ATTEMPTS = 3
_UPLOAD_ATTEMPTS = 5
_BLOCK_BYTES = 1 << 22
# S3 copies larger objects only in parts.
_COPY_BYTES = 5 * 1024**3
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class ObjectStore(Store):
    """A prefix of a bucket."""

    url: str
    # Its representation may tell settings, and that of Azure's client panics if the account is in the environment.
    client: Client = field(repr=False)
    root: None = field(default=None, init=False)

    def __reduce__(self) -> tuple[object, ...]:
        # A pickle holds no credentials: whoever loads it has their own in its environment.
        return _open, (self.url,)

    def read(self, path: str) -> bytes:
        with self._guard(path):
            return obstore.get(self.client, path).bytes().to_bytes()

    def read_range(self, path: str, start: int, length: int) -> bytes:
        with self._guard(path):
            data = obstore.get_range(self.client, path, start=start, length=length).to_bytes()
        return check_length(data, path, self.url, start, length)

    def digest(self, path: str) -> str:
        digest = hashlib.sha256()
        with self._guard(path):
            for block in obstore.get(self.client, path).stream(min_chunk_size=_BLOCK_BYTES):
                digest.update(bytes(block))
        return digest.hexdigest()

    def stat(self, path: str) -> Stat:
        with self._guard(path):
            return _stat(obstore.head(self.client, path), path)

    def write(self, path: str, data: bytes, *, sync: bool = True) -> None:
        with self._guard(path):
            _upload(lambda: obstore.put(self.client, path, data))

    def write_file(self, path: str, source: Path) -> None:
        with self._guard(path):
            _upload(lambda: obstore.put(self.client, path, source))

    def create(self, path: str, data: bytes) -> None:
        self._create(path, data)

    def create_file(self, path: str, source: Path) -> bool:
        try:
            self._create(path, source)
        except ConflictError:
            return False
        return True

    def delete(self, path: str) -> None:
        with contextlib.suppress(NotFoundError), self._guard(path):
            obstore.delete(self.client, path)

    def move(self, path: str, target: str) -> None:
        # No rename. If the copy is made and the deletion fails, both files exist, with the same content.
        with self._guard(target), self._guard(path):
            if self._copies(obstore.head(self.client, path)["size"]):
                obstore.copy(self.client, path, target, overwrite=True)
            else:
                _upload(lambda: self._copy_through(path, target))
            obstore.delete(self.client, path)

    def walk(self, folder: str) -> Iterator[Stat]:
        with self._guard(folder):
            pages = _retry_list(lambda: list(obstore.list(self.client, folder.rstrip("/"))))
        yield from sorted((_stat(item) for page in pages for item in page), key=lambda stat: stat.path)

    def folders(self, folder: str) -> list[str]:
        with self._guard(folder):
            listed = _retry_list(lambda: obstore.list_with_delimiter(self.client, f"{folder}/"))
        return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in listed["common_prefixes"])

    def leftovers(self, folder: str) -> list[Stat]:
        return []

    def remove_empty(self, folder: str) -> None:
        return

    def _copies(self, size: int) -> bool:
        """Return whether the service has copied a file when it answers a request to copy it.

        Azure may answer before (202 Accepted), the client does not wait, and deleting the source would end the copy.
        """
        return size <= _COPY_BYTES and not isinstance(self.client, AzureStore)

    def _copy_through(self, path: str, target: str) -> None:
        """Copy a file through this machine, a block at a time."""
        writer = obstore.open_writer(self.client, target)
        for block in obstore.get(self.client, path).stream(min_chunk_size=_BLOCK_BYTES):
            writer.write(bytes(block))
        # Not closed after an error: that would make a file of what was written so far.
        writer.close()

    def _create(self, path: str, data: bytes | Path) -> None:
        """Create a file with a unique tag; after an error, the tag of the existing file shows who created it.

        If a response is lost, the client's retry fails because of the file that the client itself has written. Also, a
        server may reject (409) both of two concurrent requests. Then the file does not exist, and S3 asks to retry.
        """
        tag = secrets.token_hex(16)
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                with self._guard(path, conflict=AlreadyExistsError):
                    obstore.put(self.client, path, data, mode="create", attributes={_CREATED_BY: tag})
            except StoreError as error:
                existing = self._created_by(path)
                if existing == tag:
                    return
                if existing is not None or not isinstance(error, ConflictError):
                    raise
                time.sleep(0.05 * 2**attempt)
            else:
                return
        raise StoreError(
            f"{path}: the store {self.url} refused {_CREATE_ATTEMPTS} times to create it, but has no such file. Run "
            "the same command again."
        )

    def _created_by(self, path: str) -> str | None:
        """Return the tag of a file, empty if it has none, or None if the file does not exist."""
        try:
            with self._guard(path):
                attributes = obstore.get(self.client, path, options={"head": True}).attributes
        except NotFoundError:
            return None
        return str(attributes.get(_CREATED_BY, ""))

    def _guard(self, path: str, *, conflict: type[Exception] | None = None) -> AbstractContextManager[None]:
        if "\\" in path and isinstance(self.client, AzureStore):
            raise IntegrityError(
                f"{path[:200]!r}: contains a backslash, which Azure takes for a slash, so it could lead out of the "
                "store. The record with this path was forged or damaged: restore the record, and find out who wrote it."
            )
        return guard(path, self.url, failure=BaseError, conflict=conflict, explain=explain_object)


def object_client(url: str) -> Client:
    """Return an obstore client for a URL of an object store.

    Credentials and endpoints come from the standard environment variables of each service.

    Raises
    ------
    ConfigError
        If the URL has another form or contains credentials, or a setting cannot be used.
    """
    place = parse_object_url(url)
    try:
        match place.service:
            case "s3":
                return s3_client(url)
            case "gcs":
                return gcs_client(url)
            case "azure":
                return azure_client(url)
    except (BaseError, OSError, ValueError) as error:
        raise ConfigError(explain_settings(error, url)) from None


def _open(url: str) -> ObjectStore:
    return ObjectStore(url, object_client(url))


def _stat(item: Any, path: str | None = None) -> Stat:
    return Stat(path or str(item["path"]), int(item["size"]), item["last_modified"].timestamp())


def _upload(action: Callable[[], object]) -> None:
    """Repeat an upload in parts whose parts are gone.

    Azure drops the uncommitted blocks of a blob when it is written: by another process, or by the last request of this
    upload, whose answer was lost.
    """
    for _ in range(_UPLOAD_ATTEMPTS - 1):
        try:
            action()
        except BaseError as error:
            if "InvalidBlockList" not in str(error):
                raise
        else:
            return
    action()


def _retry_list(action: Callable[[], _Result]) -> _Result:
    """Retry a listing whose response broke off; the client itself retries only other reads."""
    for attempt in range(_LIST_ATTEMPTS - 1):
        with contextlib.suppress(BaseError):
            return action()
        time.sleep(0.2 * 2**attempt)
    return action()
