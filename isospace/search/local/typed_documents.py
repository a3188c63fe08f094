"""The documents of a snapshot with typed columns of their metadata, for filters.

A column has one type in all groups, which depends on the values of the snapshot's documents. Each group has counted its
values when it was written, and keeps the columns that it was opened with last.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.errors import IntegrityError
from isospace.ingest.metadata_types import MetadataType
from isospace.search.local.build import DOCUMENT_COLUMNS
from isospace.search.local.files import LocalFile, is_unchanged, load_table, synced, write_synced, write_table
from isospace.search.metadata import (
    FieldValues,
    MetadataColumn,
    columns_of,
    count_values,
    hidden_column,
    metadata_columns,
    parse_metadata,
)
from isospace.storage.hashing import fingerprint, seal, unseal

Dead = npt.NDArray[np.int64]


class DocumentGroup(Protocol):
    """A group of documents, and the folder that keeps their typed columns."""

    @property
    def folder(self) -> Path:
        """The folder, which may not exist."""
        ...

    @property
    def documents(self) -> pa.Table:
        """The documents: doc_id, uri, title, metadata."""
        ...


@dataclass(frozen=True, eq=False)
class DocumentTypes:
    """What decides the types of the columns of the documents of some groups.

    Attributes
    ----------
    groups
        The groups.
    dead
        Rows of the documents of each group that the snapshot does not have: their values decide no type.
    declared
        The types that the recipe declares.
    """

    groups: Sequence[DocumentGroup]
    dead: Sequence[Dead]
    declared: Mapping[str, MetadataType]

    @functools.cached_property
    def values(self) -> dict[str, FieldValues]:
        """The values of each metadata field of the documents."""
        return _values(self.groups, self.dead, self.declared)

    def documents(self, values: Mapping[str, FieldValues]) -> pa.Table:
        """Return the documents with columns of the types that some values decide: theirs, or those of more documents.

        A shard has some of a snapshot's documents, and all shards must understand a filter alike.
        """
        columns = columns_of(values, self.declared)
        return pa.concat_tables([_with_columns(group, columns) for group in self.groups])


def _values(
    groups: Sequence[DocumentGroup], dead: Sequence[Dead], declared: Mapping[str, MetadataType]
) -> dict[str, FieldValues]:
    total: dict[str, FieldValues] = {}
    for group, rows in zip(groups, dead, strict=True):
        # If most are dead, counting the others is less work.
        if 2 * len(rows) > group.documents.num_rows:
            live = np.setdiff1d(np.arange(group.documents.num_rows), rows)
            _add(total, _count(group, live, declared), 1)
            continue
        _add(total, _all_values(group, declared), 1)
        _add(total, _count(group, rows, declared), -1)
    return total


def _add(total: dict[str, FieldValues], values: Mapping[str, FieldValues], sign: int) -> None:
    for name, counted in values.items():
        total[name] = total.get(name, FieldValues()).plus(counted, sign)


def _count(
    group: DocumentGroup, rows: npt.NDArray[np.int64] | None, declared: Mapping[str, MetadataType]
) -> dict[str, FieldValues]:
    texts = group.documents["metadata"]
    listed = texts.to_pylist() if rows is None else [texts[int(row)].as_py() for row in rows]
    return count_values(map(parse_metadata, listed), declared)


def _all_values(group: DocumentGroup, declared: Mapping[str, MetadataType]) -> dict[str, FieldValues]:
    path = group.folder / f"values-{fingerprint(dict(declared))[:16]}.json"
    with contextlib.suppress(OSError, IntegrityError, KeyError, TypeError):
        stored = unseal(path.read_bytes(), name=str(path))["values"]
        return {name: FieldValues.from_dict(one) for name, one in stored.items()}
    values = _count(group, None, declared)
    with contextlib.suppress(OSError):
        _replace(path, seal({"values": {name: one.as_dict() for name, one in values.items()}}))
    return values


def _with_columns(group: DocumentGroup, columns: Sequence[MetadataColumn]) -> pa.Table:
    if not columns:
        return group.documents
    names = [[one.name, str(one.type), one.declared, one.has_instants] for one in columns]
    path = group.folder / f"columns-{fingerprint(names)[:16]}.arrow"
    typed = _open_columns(path)
    if typed is None:
        rows = [parse_metadata(text) for text in group.documents["metadata"].to_pylist()]
        made = {
            hidden_column(name) if name in DOCUMENT_COLUMNS else name: column
            for name, column in metadata_columns(rows, columns)
        }
        typed = pa.table(made)
        # A cache that cannot be written is no reason not to search.
        with contextlib.suppress(OSError):
            typed = _keep_columns(path, typed) or typed
    documents = group.documents
    for name in typed.column_names:
        documents = documents.append_column(name, typed[name])
    return documents


def _open_columns(path: Path) -> pa.Table | None:
    record = path.with_suffix(".json")
    with contextlib.suppress(OSError, ValueError, KeyError, IntegrityError, pa.ArrowException):
        file = LocalFile.model_validate(unseal(record.read_bytes(), name=str(record))["file"])
        if is_unchanged(path, file, "content"):
            return load_table(path)
    return None


def _keep_columns(path: Path, table: pa.Table) -> pa.Table | None:
    """Write columns, without those of other types: a group is opened with one set of types at a time."""
    handle, name = tempfile.mkstemp(prefix=".making-", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        write_table(temporary, table)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    (file,) = synced([path]).values()
    _replace(path.with_suffix(".json"), seal({"file": file.model_dump(mode="json")}))
    for other in path.parent.glob("columns-*"):
        if other.stem != path.stem:
            other.unlink(missing_ok=True)
    return _open_columns(path)


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=".making-", dir=path.parent)
    os.close(handle)
    try:
        write_synced(Path(name), data)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
