"""A store on S3, accessed with obstore.

S3 itself makes writes atomic, and can create a file only if it does not exist.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from isospace.errors import ConfigError, ConflictError, NotFoundError, StoreError
from isospace.storage.aws_profile import profile_credentials
from isospace.storage.guard import check_length, guard
from isospace.storage.local_files import Stat
from isospace.storage.protocol import Store
from isospace.storage.s3_errors import explain_s3

if TYPE_CHECKING:
    from obstore.store import S3Store as Client

_CREATED_BY = "isospace-created-by"
_CREATE_ATTEMPTS = 5
_LIST_ATTEMPTS = 3
_BLOCK_BYTES = 1 << 22
# S3 copies larger objects only in parts.
_COPY_BYTES = 5 * 1024**3
_ENDPOINT = re.compile(r"https?://[^/\s]+(/\S*)?", re.IGNORECASE)
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class S3Store(Store):
    """A prefix of a bucket."""

    url: str
    client: Client
    root: None = field(default=None, init=False)

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
            obstore.put(self.client, path, data)

    def write_file(self, path: str, source: Path) -> None:
        with self._guard(path):
            obstore.put(self.client, path, source)

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
        # S3 has no rename. If the copy is made and the deletion fails, both files exist, with the same content.
        with self._guard(target), self._guard(path):
            if obstore.head(self.client, path)["size"] > _COPY_BYTES:
                obstore.put(self.client, target, obstore.get(self.client, path).stream(min_chunk_size=_BLOCK_BYTES))
            else:
                obstore.copy(self.client, path, target, overwrite=True)
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

    def _create(self, path: str, data: bytes | Path) -> None:
        """Create a file with a unique tag; after an error, the tag of the existing file shows who created it.

        If a response is lost, the client's retry fails because of the file that the client itself has written. Also, a
        server may reject (409) both of two concurrent requests. Then the file does not exist, and S3 asks to retry.
        """
        tag = secrets.token_hex(16)
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                with guard(path, self.url, failure=BaseError, conflict=AlreadyExistsError, explain=explain_s3):
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

    def _guard(self, path: str) -> AbstractContextManager[None]:
        return guard(path, self.url, failure=BaseError, explain=explain_s3)


def s3_client(url: str) -> Client:
    """Return an obstore client for `s3://bucket/prefix`.

    Credentials, region, and endpoint come from the standard AWS_* environment variables, and credentials also from a
    profile in the files of AWS.

    Raises
    ------
    ConfigError
        If the URL has another form or contains credentials, or a profile cannot be used.
    """
    from obstore.store import S3Store as Client

    if "@" in url.removeprefix("s3://").split("/", 1)[0]:
        raise ConfigError("store s3://…@…: expected s3://bucket/prefix. Put credentials into the AWS_* variables.")
    endpoint = os.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint and not _ENDPOINT.fullmatch(endpoint):
        # The client would panic. What is not a URL may contain a password anywhere.
        raise ConfigError(
            "AWS_ENDPOINT_URL is not a URL of a server; expected one with http:// or https://, such as "
            "https://minio.example.org:9000."
        )
    options: Any = {"allow_http": True} if endpoint.startswith("http://") else {}
    provider = profile_credentials()
    try:
        return Client.from_url(url, client_options=options, credential_provider=provider)
    except (BaseError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(f"store {url}: expected s3://bucket/prefix ({reason}). Correct the URL.") from error


def _stat(item: Any, path: str | None = None) -> Stat:
    return Stat(path or str(item["path"]), int(item["size"]), item["last_modified"].timestamp())


def _retry_list(action: Callable[[], _Result]) -> _Result:
    """Retry a listing whose response broke off; the client itself retries only other reads."""
    for attempt in range(_LIST_ATTEMPTS - 1):
        with contextlib.suppress(BaseError):
            return action()
        time.sleep(0.2 * 2**attempt)
    return action()
