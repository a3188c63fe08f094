"""One object-store prefix: a local folder or s3://, with the same promises.

A file appears whole or not at all, and `create` fails where the name exists: that one operation is the
commit. Locally, files are written under a temporary name, synced, and renamed or linked; S3 gives both
properties by itself. Transport is obstore's.

Paths are relative to the prefix and stay below it: many come out of files that lie in the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar, cast

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from isospace.errors import ConfigError, ConflictError, IntegrityError, NotFoundError, StoreError
from isospace.storage.local_files import Stat, copy, copy_file, stat_local, walk_local, write_local

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_CREATED_BY = "isospace-created-by"
_CREATE_ATTEMPTS = 5
_LIST_ATTEMPTS = 3
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Store:
    """Handle of a store; cheap to open, holds no state.

    Attributes
    ----------
    url
        As the user gave it.
    root
        The local folder, or None for an object store.
    remote
        The obstore handle, or None for a local folder.
    """

    url: str
    root: Path | None
    remote: ObjectStore | None

    def read(self, path: str) -> bytes:
        """Return the bytes of `path`; NotFoundError if it does not exist."""
        if self.root is not None:
            root = self.root
            return self._guard(path, lambda: (root / path).read_bytes())
        return self._guard(path, lambda: obstore.get(self._remote, path).bytes().to_bytes())

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return `length` bytes of `path` from `start`; StoreError where it is shorter than that."""

        def local(file: Path) -> bytes:
            with file.open("rb") as stream:
                stream.seek(start)
                return stream.read(length)

        if self.root is not None:
            root = self.root
            found = self._guard(path, lambda: local(root / path))
        else:
            found = self._guard(
                path, lambda: obstore.get_range(self._remote, path, start=start, length=length).to_bytes()
            )
        if len(found) != length:
            raise StoreError(
                f"{path}: the store {self.url} gave {len(found)} bytes from {start}; expected {length}. The file was "
                "replaced while it was read: run the same command again."
            )
        return found

    def size(self, path: str) -> int:
        """Return the size of `path` in bytes; NotFoundError if it does not exist."""
        return self.stat(path).size

    def exists(self, path: str) -> bool:
        """Tell whether `path` exists."""
        try:
            self.size(path)
        except NotFoundError:
            return False
        return True

    def write(self, path: str, data: bytes) -> None:
        """Write `path` whole, replacing what was there."""
        if self.root is None:
            self._guard(path, lambda: obstore.put(self._remote, path, data))
            return
        target = self.root / path
        self._guard(path, lambda: write_local(target, copy(data), lambda temporary: temporary.replace(target)))

    def create(self, path: str, data: bytes) -> None:
        """Write `path` whole if there is no such file; ConflictError if there is."""
        try:
            if self.root is None:
                self._create_remote(path, data)
                return
            target = self.root / path
            self._guard(path, lambda: write_local(target, copy(data), target.hardlink_to), creates=True)
        except FileExistsError as error:
            raise ConflictError(f"{path}: exists already in {self.url}.") from error

    def create_if_absent(self, path: str, data: bytes) -> bool:
        """Write `path` if there is no such file; tell whether this call wrote it."""
        try:
            self.create(path, data)
        except ConflictError:
            return False
        return True

    def create_file(self, path: str, source: Path) -> bool:
        """Write a local file to `path` if there is no such file; tell whether this call wrote it."""
        try:
            if self.root is None:
                self._create_remote(path, source)
            else:
                target = self.root / path
                self._guard(path, lambda: write_local(target, copy_file(source), target.hardlink_to), creates=True)
        except FileExistsError:
            return False
        return True

    def write_file(self, path: str, source: Path) -> None:
        """Write the content of a local file to `path`, whole, without holding it in memory."""
        if self.root is None:
            self._guard(path, lambda: obstore.put(self._remote, path, source))
            return
        target = self.root / path
        self._guard(path, lambda: write_local(target, copy_file(source), lambda temporary: temporary.replace(target)))

    def digest(self, path: str) -> str:
        """Return the SHA-256 of `path`, read in a stream; NotFoundError if it does not exist."""
        if self.root is not None:
            root = self.root

            def hashed() -> str:
                with (root / path).open("rb") as stream:
                    return hashlib.file_digest(stream, "sha256").hexdigest()

            return self._guard(path, hashed)

        def streamed() -> str:
            digest = hashlib.sha256()
            for block in obstore.get(self._remote, path).stream(min_chunk_size=1 << 22):
                digest.update(bytes(block))
            return digest.hexdigest()

        return self._guard(path, streamed)

    def delete(self, path: str) -> None:
        """Remove `path`; nothing happens where it does not exist."""
        with contextlib.suppress(NotFoundError):
            if self.root is not None:
                root = self.root
                self._guard(path, lambda: (root / path).unlink())
            else:
                self._guard(path, lambda: obstore.delete(self._remote, path))

    def walk(self, folder: str) -> Iterator[Stat]:
        """Yield the objects under `folder`, sorted by path, at any depth."""
        if self.root is None:
            found = self._guard(
                folder, lambda: _listed(lambda: [i for p in obstore.list(self._remote, folder.rstrip("/")) for i in p])
            )
            stats = (Stat(str(i["path"]), int(i["size"]), i["last_modified"].timestamp()) for i in found)
            yield from sorted(stats, key=lambda s: s.path)
            return
        root = self.root
        yield from self._guard(folder, lambda: walk_local(root, root / folder))

    def folders(self, folder: str) -> list[str]:
        """Return the names of the folders directly under `folder`, sorted."""
        if self.root is not None:
            base = self.root / folder
            return self._guard(
                folder, lambda: sorted(path.name for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
            )
        listed = self._guard(folder, lambda: _listed(lambda: obstore.list_with_delimiter(self._remote, f"{folder}/")))
        return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in listed["common_prefixes"])

    def leftovers(self, folder: str) -> list[Stat]:
        """Return what killed writers left under a local folder; an object store shows nothing that is not whole."""
        if self.root is None:
            return []
        root = self.root
        return self._guard(folder, lambda: walk_local(root, root / folder, temporary=True))

    def stat(self, path: str) -> Stat:
        """Return size and time of `path`; NotFoundError if it does not exist."""
        if self.root is not None:
            root = self.root
            return self._guard(path, lambda: stat_local(root, root / path))
        found = self._guard(path, lambda: obstore.head(self._remote, path))
        return Stat(path, int(found["size"]), found["last_modified"].timestamp())

    def remove_empty(self, folder: str) -> None:
        """Remove a local folder, and folders in it, as far as they are empty; an object store has none."""
        if self.root is None:
            return
        for found, _, _ in os.walk(self.root / confined(folder), topdown=False):
            with contextlib.suppress(OSError):
                Path(found).rmdir()

    def _create_remote(self, path: str, data: bytes | Path) -> None:
        """Create under a mark of this call's own, and where that fails let the mark on what is there decide.

        A client that tries again after a lost answer is refused by the file it has written itself. And a server may
        refuse (409) each of two that come at the same time: then nothing is there, and S3 asks to try again.
        """
        mark = secrets.token_hex(16)
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                self._guard(
                    path,
                    lambda: obstore.put(self._remote, path, data, mode="create", attributes={_CREATED_BY: mark}),
                    creates=True,
                )
            except (FileExistsError, StoreError) as error:
                found = self._created_by(path)
                if found == mark:
                    return
                if found is not None or isinstance(error, StoreError):
                    raise
                time.sleep(0.05 * 2**attempt)
            else:
                return
        raise StoreError(
            f"{path}: the store {self.url} refused {_CREATE_ATTEMPTS} times to create it, and has no such file. Run "
            "the same command again."
        )

    def _created_by(self, path: str) -> str | None:
        """Return the mark of a file, empty where it has none, or None where there is no such file."""
        try:
            found = self._guard(path, lambda: obstore.get(self._remote, path, options={"head": True}).attributes)
        except NotFoundError:
            return None
        return str(found.get(_CREATED_BY, ""))

    @property
    def _remote(self) -> ObjectStore:
        return cast("ObjectStore", self.remote)

    def _guard(self, path: str, action: Callable[[], _Result], *, creates: bool = False) -> _Result:
        confined(path)
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFoundError(f"{path}: not in the store {self.url}.") from error
        except (OSError, BaseError) as error:
            if creates and isinstance(error, (AlreadyExistsError, FileExistsError)):
                raise FileExistsError(path) from error
            # An endpoint may hold a password.
            reason = re.sub(r"//[^/\s]*@", "//", str(error).split("\n", 1)[0])
            raise StoreError(
                f"{path}: the store {self.url} failed ({reason}). Nothing half-written is visible; mend the store and "
                "run the same command again."
            ) from error


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


def open_store(url: str | os.PathLike[str]) -> Store:
    """Open a store.

    Parameters
    ----------
    url
        A local folder, made when first written to, or `s3://bucket/prefix`. For S3, credentials, region and
        endpoint come from the standard AWS_* environment variables and files.

    Returns
    -------
    Store

    Raises
    ------
    ConfigError
        For any other scheme.
    """
    text = os.fspath(url)
    if text.startswith("s3://"):
        return Store(text, None, _open_s3(text))
    if "://" in text and not text.startswith("file://"):
        raise ConfigError(f"store {text}: unknown scheme. Expected a local folder or s3://bucket/prefix.")
    try:
        return Store(text, Path(text.removeprefix("file://")).expanduser().absolute(), None)
    except RuntimeError as error:
        raise ConfigError(f"store {text}: {error}.") from error


def _open_s3(url: str) -> ObjectStore:
    from obstore.store import S3Store

    if "@" in url.removeprefix("s3://").split("/", 1)[0]:
        raise ConfigError("store s3://…@…: expected s3://bucket/prefix. Put credentials into the AWS_* variables.")
    insecure = os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://")
    options: Any = {"allow_http": True} if insecure else {}
    try:
        return S3Store.from_url(url, client_options=options)
    except (BaseError, ValueError) as error:
        reason = str(error).split("\n", 1)[0]
        raise ConfigError(f"store {url}: expected s3://bucket/prefix ({reason}).") from error


def _listed(action: Callable[[], _Result]) -> _Result:
    """Ask for a list again whose answer broke off: the client does so for all else that it reads."""
    for attempt in range(_LIST_ATTEMPTS - 1):
        with contextlib.suppress(BaseError):
            return action()
        time.sleep(0.2 * 2**attempt)
    return action()
