"""The local copy of a snapshot: its codes and texts as memory-mapped files.

A copy is written from verified files when a snapshot is first opened on a machine, and is named by their content. So a
lost copy can be rebuilt, and a copy is never used for another snapshot. A file whose stamp (size, times, inode) has not
changed since it was hashed counts as unchanged; any other file is hashed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError, StoreError
from isospace.search.build_local_copy import CHUNKS, DOCUMENTS, SQUARES, Verify, make_copy, sparse_arrays
from isospace.search.lexical_files import read_lexical
from isospace.search.lexical_record import LexicalRecord, read_lexical_record
from isospace.search.vector.kernels import Codes
from isospace.storage.cache import cache_folder
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.transform.space import Space

# 2: metadata fields that are called like a column of documents. 3: types of metadata fields.
FORMAT = 3
_RECORD = "copy.json"
_LEXICAL = "lexical."
_SPARSE = "sparse."
# Copies kept per collection: the one in use, the one a rollback would need, and one more.
_KEPT_COPIES = 3
_LEFT_AFTER_SECONDS = 86_400


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A snapshot on this machine's disk.

    Attributes
    ----------
    codes
        Each representation of the n live chunks, by name.
    chunks
        n rows: chunk_id, document (row of `documents`), start, end, prefix, text.
    documents
        One row per document: doc_id, uri, title, metadata (JSON), and a typed column for each metadata field.
    lexical
        Record and arrays of the BM25 index; None if the snapshot has none.
    sparse
        Arrays of the inverted index of sparse vectors; None if the snapshot has none.
    """

    folder: Path
    codes: dict[str, Codes]
    chunks: pa.Table
    documents: pa.Table
    lexical: tuple[LexicalRecord, dict[str, npt.NDArray[Any]]] | None
    sparse: dict[str, npt.NDArray[Any]] | None = None

    def __len__(self) -> int:
        return int(self.chunks.num_rows)


def open_copy(store: Store, manifest: Manifest, space: Space, *, verify: Verify = "content") -> LocalCopy:
    """Open the local copy of a snapshot; write it first if there is none.

    With `verify="content"` the SHA-256 of every file is checked, with `"size"` only its size.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is missing or differs from what was committed.
    MismatchError
        If a segment belongs to another space than the manifest says.
    StoreError
        If the copy cannot be written.
    """
    base = cache_folder() / "snapshots"
    lexical = read_lexical_record(store, manifest)
    folder = base / f"{manifest.collection}-{copy_id(manifest, lexical)[:32]}"
    existing = _open(folder, space, lexical, verify)
    if existing is not None:
        # Its time decides which copies are removed; in a read-only cache none are.
        with contextlib.suppress(OSError):
            os.utime(folder)
        return existing
    try:
        base.mkdir(parents=True, exist_ok=True)
        for path in _leftovers(base):
            shutil.rmtree(path, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=base))
    except OSError as error:
        raise _cannot_write(base, error) from error
    try:
        make_copy(store, manifest, space, temporary, verify)
        if lexical is not None:
            for name, array in read_lexical(store, manifest, lexical).items():
                np.save(temporary / f"{_LEXICAL}{name}.npy", array)
        if manifest.sparse_space_id is not None:
            for name, array in sparse_arrays(store, manifest, verify).items():
                np.save(temporary / f"{_SPARSE}{name}.npy", array)
        _write_record(temporary, folder.name)
        _publish(temporary, folder, lambda: _open(folder, space, lexical, verify) is not None)
    except OSError as error:
        raise _cannot_write(base, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _drop_old(base, manifest.collection, folder, _last_order(store, manifest.collection))
    written = _open(folder, space, lexical, verify)
    if written is None:
        raise StoreError(
            f"{folder}: was removed while it was written. Open the index again, or set ISOSPACE_CACHE to a folder that "
            "nothing else uses."
        )
    return written


def drop_copies(collection: str) -> None:
    """Remove all local copies of a collection on this machine; a process keeps what it has mapped."""
    base = cache_folder() / "snapshots"
    for path in list(_siblings(base, collection)) if base.is_dir() else []:
        shutil.rmtree(path, ignore_errors=True)


def copy_id(manifest: Manifest, lexical: LexicalRecord | None) -> str:
    """Return the fingerprint of the files that a copy is built from.

    Equal content in other files is another copy.
    """
    parts = [[ref.sha256 for ref in (part.documents, part.chunks, part.segment)] for part in manifest.parts]
    deleted = manifest.deletions.sha256 if manifest.deletions else ""
    words = None if lexical is None else lexical.digest
    body: dict[str, Any] = {"space_id": manifest.space_id, "parts": parts, "deletions": deleted, "lexical": words}
    if manifest.sparse_space_id is not None:
        files = [part.sparse.sha256 if part.sparse is not None else "" for part in manifest.parts]
        body |= {"sparse_space_id": manifest.sparse_space_id, "sparse": files}
    # Whether a field without a declared type holds timestamps depends on the documents alone.
    return fingerprint({"format": FORMAT, "types": manifest.declared_types, **body})


def _open(folder: Path, space: Space, lexical: LexicalRecord | None, verify: Verify) -> LocalCopy | None:
    """Return the copy if it is complete and intact, or None."""
    try:
        record = unseal((folder / _RECORD).read_bytes(), name=str(folder / _RECORD))
        if record["copy"] != folder.name:
            # Somebody moved it here: the name says which copy it should be.
            return None
        files = {name: _File.model_validate(value) for name, value in record["files"].items()}
        if any(not _is_unchanged(folder / name, file, verify) for name, file in files.items()):
            return None
        squares = _load(folder / SQUARES) if SQUARES in files else None
        codes = {
            name: Codes(name, quantizer, _load(folder / f"{name}.npy"), squares)
            for name, quantizer in space.transform.quantizers.by_name.items()
        }
        arrays, sparse = (
            {
                name.removeprefix(start).removesuffix(".npy"): _load(folder / name)
                for name in files
                if name.startswith(start)
            }
            for start in (_LEXICAL, _SPARSE)
        )
        words = None if lexical is None else (lexical, arrays)
        return LocalCopy(folder, codes, _table(folder / CHUNKS), _table(folder / DOCUMENTS), words, sparse or None)
    except (OSError, ValueError, KeyError, IntegrityError, pa.ArrowException):
        # A damaged copy is rebuilt from the store.
        return None


def _is_unchanged(path: Path, file: _File, verify: Verify) -> bool:
    stamp = _stamp(path)
    if stamp == file.stamp or stamp[0] != file.stamp[0] or verify == "size":
        return stamp[0] == file.stamp[0]
    return _digest(path) == file.sha256


def _load(path: Path) -> npt.NDArray[Any]:
    # Copy-on-write: libraries demand writable memory, and the file must not change.
    array: npt.NDArray[Any] = np.load(path, mmap_mode="c")
    return array


def _table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _write_record(folder: Path, name: str) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        # Sync each file before recording its stamp: after a power failure it could have the stamp, not the content.
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        files[path.name] = _File(sha256=_digest(path), stamp=_stamp(path)).model_dump(mode="json")
    body = {"format": FORMAT, "copy": name, "files": files}
    with (folder / _RECORD).open("wb") as stream:
        stream.write(seal(body))
        stream.flush()
        os.fsync(stream.fileno())


def _publish(temporary: Path, folder: Path, is_whole: Callable[[], bool]) -> None:
    """Move a copy into place, unless another process has put a complete one there, and may be using it."""
    with contextlib.suppress(OSError):
        temporary.rename(folder)
        return
    if is_whole():
        return
    aside = temporary.with_name(f".making-{secrets.token_hex(6)}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(aside)
    with contextlib.suppress(OSError):
        temporary.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _last_order(store: Store, collection: str) -> float:
    """Return the time of the last forget order of a collection; 0 if there is none."""
    return max((stat.modified for stat in store.walk(CollectionPaths(collection).folder("forgotten"))), default=0.0)


def _drop_old(base: Path, collection: str, keep: Path, ordered: float) -> None:
    """Remove copies not opened for long, and those that may hold documents forgotten since.

    A process that has mapped such a copy can keep using it.
    """
    copies = []
    for path in _siblings(base, collection):
        # Another process may be removing it, or it is incomplete.
        with contextlib.suppress(FileNotFoundError):
            copies.append((path.stat().st_mtime, (path / _RECORD).stat().st_mtime, path))
    newest = sorted(copies, reverse=True)
    old = [path for _, _, path in newest[_KEPT_COPIES:]]
    old += [path for _, made, path in newest if made <= ordered]
    for path in {path for path in old if path != keep}:
        shutil.rmtree(path, ignore_errors=True)


def _siblings(base: Path, collection: str) -> Iterator[Path]:
    for path in base.iterdir():
        name, _, digits = path.name.rpartition("-")
        if name == collection and len(digits) == 32:
            yield path


def _leftovers(base: Path) -> Iterator[Path]:
    """Yield the folders of processes that died while they wrote a copy."""
    for path in base.glob(".making-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
                yield path


def _stamp(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cannot_write(base: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{base}: cannot write the local copy of the snapshot ({error.strerror or error}). Free some space there, or "
        "set ISOSPACE_CACHE to a folder with room for the snapshot's vectors and texts."
    )
