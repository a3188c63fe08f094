"""The local copy of a snapshot: its codes and texts as files that are mapped into memory, not read.

It is made when a snapshot is first opened on a machine, out of verified files, and named by their content: a copy can
be lost, and is made again, but never be that of another snapshot. A file that has the stamp (size, times, inode) it had
when it was hashed is taken to be the same; one that has not is hashed again.
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
from isospace.search.bm25 import LexicalRecord, read_lexical, read_lexical_record
from isospace.search.build_local_copy import CHUNKS, DOCUMENTS, SQUARES, Verify, make_copy
from isospace.search.vector.kernels import Codes
from isospace.storage.cache import cache_folder
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.transform.space import Space

FORMAT = 1
_RECORD = "copy.json"
_LEXICAL = "lexical."
# So many copies of one collection stay: the one in use, and the one it may be rolled back to.
_KEPT_COPIES = 3
_LEFT_AFTER_SECONDS = 86_400


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str
    stamp: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """A snapshot as it lies on this machine.

    Attributes
    ----------
    folder
        Where.
    codes
        Each representation of the n live chunks, by name.
    chunks
        n rows: chunk_id, document (row of `documents`), start, end, prefix, text.
    documents
        One row a document: doc_id, uri, title, metadata (JSON), and a typed column for each metadata field.
    lexical
        Record and arrays of the BM25 index; None where none was built.
    """

    folder: Path
    codes: dict[str, Codes]
    chunks: pa.Table
    documents: pa.Table
    lexical: tuple[LexicalRecord, dict[str, npt.NDArray[Any]]] | None

    def __len__(self) -> int:
        return int(self.chunks.num_rows)


def open_copy(store: Store, manifest: Manifest, space: Space, *, verify: Verify = "content") -> LocalCopy:
    """Open the local copy of a snapshot; make it first if there is none.

    Parameters
    ----------
    store, manifest, space
        The snapshot and its verified space.
    verify
        `content` compares SHA-256 with what was committed, `size` the size alone.

    Returns
    -------
    LocalCopy

    Raises
    ------
    IntegrityError
        If a file of the snapshot is missing or not what was committed.
    MismatchError
        If a segment is of another space than the manifest says.
    StoreError
        If the copy cannot be written.
    """
    base = cache_folder() / "snapshots"
    lexical = read_lexical_record(store, manifest)
    folder = base / f"{manifest.collection}-{copy_id(manifest, lexical)[:32]}"
    found = _open(folder, space, lexical, verify)
    if found is not None:
        # Which copies stay is decided by it; a cache that cannot be written keeps all.
        with contextlib.suppress(OSError):
            os.utime(folder)
        return found
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
        _write_record(temporary, folder.name)
        _publish(temporary, folder, lambda: _open(folder, space, lexical, verify) is not None)
    except OSError as error:
        raise _cannot_write(base, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _drop_old(base, manifest.collection, folder, _last_order(store, manifest.collection))
    made = _open(folder, space, lexical, verify)
    if made is None:
        raise StoreError(
            f"{folder}: vanished while it was made. Open the index again, or set ISOSPACE_CACHE to a folder of its own."
        )
    return made


def drop_copies(collection: str) -> None:
    """Remove every local copy of a collection on this machine; whoever has one mapped keeps it until they let go."""
    base = cache_folder() / "snapshots"
    for path in list(_siblings(base, collection)) if base.is_dir() else []:
        shutil.rmtree(path, ignore_errors=True)


def copy_id(manifest: Manifest, lexical: LexicalRecord | None) -> str:
    """Fingerprint of the bytes that a copy is made of: equal content in other files is another copy."""
    parts = [[ref.sha256 for ref in (part.documents, part.chunks, part.segment)] for part in manifest.parts]
    deleted = manifest.deletions.sha256 if manifest.deletions else ""
    words = None if lexical is None else [lexical.sha256, lexical.files, lexical.spec.model_dump(mode="json")]
    body = {"space_id": manifest.space_id, "parts": parts, "deletions": deleted, "lexical": words}
    return fingerprint({"format": FORMAT, **body})


def _open(folder: Path, space: Space, lexical: LexicalRecord | None, verify: Verify) -> LocalCopy | None:
    """Return a copy that is whole, or None."""
    try:
        record = unseal((folder / _RECORD).read_bytes(), name=str(folder / _RECORD))
        if record["copy"] != folder.name:
            # Moved here by hand: the name says what it should be.
            return None
        files = {name: _File.model_validate(value) for name, value in record["files"].items()}
        if any(not _is_unchanged(folder / name, file, verify) for name, file in files.items()):
            return None
        squares = _load(folder / SQUARES) if SQUARES in files else None
        codes = {
            name: Codes(name, quantizer, _load(folder / f"{name}.npy"), squares)
            for name, quantizer in space.transform.quantizers.by_name.items()
        }
        names = [name for name in files if name.startswith(_LEXICAL)]
        arrays = {name.removeprefix(_LEXICAL).removesuffix(".npy"): _load(folder / name) for name in names}
        words = None if lexical is None else (lexical, arrays)
        return LocalCopy(folder, codes, _table(folder / CHUNKS), _table(folder / DOCUMENTS), words)
    except (OSError, ValueError, KeyError, IntegrityError, pa.ArrowException):
        # Nothing that is lost here is lost: it is made again out of the store.
        return None


def _is_unchanged(path: Path, file: _File, verify: Verify) -> bool:
    stamp = _stamp(path)
    if stamp == file.stamp or stamp[0] != file.stamp[0] or verify == "size":
        return stamp[0] == file.stamp[0]
    return _digest(path) == file.sha256


def _load(path: Path) -> npt.NDArray[Any]:
    # Copy on write: what libraries ask for is memory they could write to, and the file stays as it is.
    array: npt.NDArray[Any] = np.load(path, mmap_mode="c")
    return array


def _table(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _write_record(folder: Path, name: str) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        # On disk before it is vouched for: after a power cut a file could have its stamp and not its content.
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        files[path.name] = _File(sha256=_digest(path), stamp=_stamp(path)).model_dump(mode="json")
    body = {"format": FORMAT, "copy": name, "files": files}
    with (folder / _RECORD).open("wb") as stream:
        stream.write(seal(body))
        stream.flush()
        os.fsync(stream.fileno())


def _publish(temporary: Path, folder: Path, is_whole: Callable[[], bool]) -> None:
    """Put a copy in its place, unless a whole one is there: another process may have made it meanwhile, and use it."""
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
    """Return when documents of a collection were last ordered to be forgotten; 0 if never."""
    return max((stat.modified for stat in store.walk(CollectionPaths(collection).folder("forgotten"))), default=0.0)


def _drop_old(base: Path, collection: str, keep: Path, ordered: float) -> None:
    """Remove copies that were not opened for long, or may hold what was forgotten since they were made.

    Whoever has one mapped keeps it until they let go.
    """
    copies = []
    for path in _siblings(base, collection):
        # It was on its way while it was looked at, or is no whole copy.
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
    """Yield what processes left that died while they made a copy."""
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
        f"{base}: the local copy of the snapshot cannot be written ({error.strerror or error}). Free space there, or "
        "set ISOSPACE_CACHE to a folder with room for the snapshot's vectors and texts."
    )
