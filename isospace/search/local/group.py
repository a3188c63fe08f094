"""A group of parts as files on this machine: written once, never changed, shared by the snapshots that have its parts.

Its folder is named by its content. So a lost group can be written again, and one is never used for other parts.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.live_rows import LivePart
from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError
from isospace.search.approximate.lists import CellLists, open_lists
from isospace.search.local.build import CELLS, CHUNKS, DOCUMENTS, LISTS, SPARSE, SQUARES, write_group
from isospace.search.local.choice import GroupPart, KnownGroup
from isospace.search.local.files import (
    LocalFile,
    Verify,
    is_unchanged,
    load_array,
    load_table,
    publish,
    synced,
    write_synced,
)
from isospace.search.postings import Postings
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.store import Store
from isospace.transform.space import Space

# 2: metadata fields that are called like a column of documents. 3: types of metadata fields. 4: groups of parts.
FORMAT = 5
RECORD = "copy.json"
LEXICAL = "lexical."


@dataclass(frozen=True, eq=False)
class LocalGroup:
    """An opened group.

    Attributes
    ----------
    known
        Its parts, in the order of its rows.
    arrays
        The codes of its n rows by representation, mapped.
    squares
        (n,) float32 squared lengths of the vectors; None for unit vectors.
    chunks
        n rows: chunk_id, document (row of `documents`), start, end, prefix, text.
    documents
        doc_id, uri, title, metadata (JSON).
    postings
        The words of the rows; None if the snapshot has no lexical index.
    sparse
        Arrays of the inverted index of sparse vectors; None if the snapshot has none.
    lists
        The inverted lists for approximate searches; None if the space has no cells, or faiss is missing.
    """

    folder: Path
    known: KnownGroup
    arrays: dict[str, npt.NDArray[Any]]
    squares: npt.NDArray[Any] | None
    chunks: pa.Table
    documents: pa.Table
    postings: Postings | None = None
    sparse: dict[str, npt.NDArray[Any]] | None = None
    lists: CellLists | None = None

    def __len__(self) -> int:
        return int(self.chunks.num_rows)


@dataclass(frozen=True, slots=True)
class GroupKind:
    """What all groups of a snapshot have in common: its collection, and a fingerprint of space, words, and format."""

    collection: str
    fingerprint: str

    def name(self, parts: Sequence[tuple[tuple[str, ...], Set[str]]]) -> str:
        """Return the folder of a group, given the files and the deleted documents of each part."""
        body = {"kind": self.fingerprint, "parts": [[list(files), sorted(deleted)] for files, deleted in parts]}
        return f"{self.collection}-{fingerprint(body)[:32]}"


def group_kind(manifest: Manifest, words: str | None, *, lists: bool = False) -> GroupKind:
    """Return the kind of groups that a snapshot is opened from.

    Parameters
    ----------
    words
        Identifies the rules of its lexical index; None if it has none.
    lists
        Whether groups have inverted lists.
    """
    body = {
        "format": FORMAT,
        "space_id": manifest.space_id,
        "sparse": manifest.sparse_space_id,
        "words": words,
        "lists": lists,
    }
    return GroupKind(manifest.collection, fingerprint(body))


def known_groups(base: Path, kind: GroupKind) -> Iterator[KnownGroup]:
    """Yield the groups of a kind, as their records describe them; their files are not read."""
    for folder in group_folders(base, kind.collection):
        with contextlib.suppress(OSError, ValueError, KeyError, IntegrityError):
            record = _read_record(folder)
            if record["kind"] == kind.fingerprint and record["copy"] == folder.name:
                yield KnownGroup(folder.name, _parts(record), int(record["erasures"]))


def open_group(base: Path, known: KnownGroup, space: Space, verify: Verify) -> LocalGroup | None:
    """Return a group if it is complete and intact, or None."""
    folder = base / known.name
    try:
        record = _read_record(folder)
        if record["copy"] != known.name:
            # Somebody moved it here: the name says which group it should be.
            return None
        files = {name: LocalFile.model_validate(value) for name, value in record["files"].items()}
        if any(not is_unchanged(folder / name, file, verify) for name, file in files.items()):
            return None
        names = [spec.name for spec in space.record.spec.representations]
        words, sparse = (
            {
                name.removeprefix(start).removesuffix(".npy"): load_array(folder / name)
                for name in files
                if name.startswith(start)
            }
            for start in (LEXICAL, SPARSE)
        )
        return LocalGroup(
            folder,
            known,
            {name: load_array(folder / f"{name}.npy") for name in names},
            load_array(folder / SQUARES) if SQUARES in files else None,
            load_table(folder / CHUNKS),
            load_table(folder / DOCUMENTS),
            # Plain views: slices of mapped arrays are made more slowly, and a search makes many.
            Postings(**{name: np.asarray(array) for name, array in words.items()}) if words else None,
            sparse or None,
            open_lists(folder / LISTS, load_array(folder / CELLS)) if LISTS in files else None,
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError, IntegrityError, pa.ArrowInvalid):
        # A damaged group is written again from the store. Other errors, such as too many open files, are no damage.
        return None


def make_group(
    store: Store,
    manifest: Manifest,
    space: Space,
    parts: Sequence[LivePart],
    base: Path,
    kind: GroupKind,
    verify: Verify,
    postings: Any = None,
    *,
    erasures: int = 0,
) -> KnownGroup:
    """Write a group, unless another process has written the same one meanwhile.

    Parameters
    ----------
    postings
        A function that returns the postings of the live rows of these parts; None for a snapshot without words.
    erasures
        How many erasures had been ordered before the parts are read.
    """
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=base))
    try:
        written = write_group(store, manifest, space, parts, temporary, verify)
        if postings is not None:
            _save_postings(temporary, postings(parts))
        name = kind.name([(part.files, part.deleted) for part in written])
        _write_record(temporary, name, kind, written, erasures)
        publish(temporary, base / name, lambda: _is_whole(base, name, written, space, verify))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return KnownGroup(name, written, erasures)


def group_folders(base: Path, collection: str) -> Iterator[Path]:
    """Yield the folders of the groups of a collection."""
    for path in base.iterdir() if base.is_dir() else ():
        name, _, digits = path.name.rpartition("-")
        if name == collection and len(digits) == 32:
            yield path


def erasures_of(folder: Path) -> int:
    """Return how many erasures had been ordered when a group was written; -1 for one of an earlier version."""
    return int(_read_record(folder).get("erasures", -1))


def _is_whole(base: Path, name: str, parts: tuple[GroupPart, ...], space: Space, verify: Verify) -> bool:
    try:
        return open_group(base, KnownGroup(name, parts, 0), space, verify) is not None
    except OSError:
        return False


def _save_postings(folder: Path, postings: Postings) -> None:
    for name, array in postings.arrays().items():
        np.save(folder / f"{LEXICAL}{name}.npy", array)


def _read_record(folder: Path) -> dict[str, Any]:
    return unseal((folder / RECORD).read_bytes(), name=str(folder / RECORD))


def _write_record(folder: Path, name: str, kind: GroupKind, parts: Sequence[GroupPart], erasures: int = 0) -> None:
    files = synced(folder.iterdir())
    body = {
        "format": FORMAT,
        "copy": name,
        "kind": kind.fingerprint,
        "erasures": erasures,
        "parts": [
            {
                "name": part.name,
                "files": list(part.files),
                "deleted": sorted(part.deleted),
                "documents": part.documents,
                "chunks": part.chunks,
            }
            for part in parts
        ],
        "files": {file: value.model_dump(mode="json") for file, value in files.items()},
    }
    write_synced(folder / RECORD, seal(body))
    os.utime(folder)


def _parts(record: dict[str, Any]) -> tuple[GroupPart, ...]:
    return tuple(
        GroupPart(one["name"], tuple(one["files"]), frozenset(one["deleted"]), one["documents"], one["chunks"])
        for one in record["parts"]
    )
