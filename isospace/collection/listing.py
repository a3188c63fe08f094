"""What a run found in its source: which files it read, and how many documents each of them gave.

The next run neither reads nor parses a file whose size and stamp are still those of the listing. A listing belongs to
the documents that a snapshot has, whatever their space: its record is found by their digest. It is a cache. Where it is
missing, damaged, or made otherwise, everything is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import seal, sha256_lines, unseal
from isospace.storage.parquet import parse_parquet, read_verified, write_parquet
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

FORMAT = 1
# A change of a few files leaves most of the listing as it is.
_ROWS_PER_FILE = 8_192

_SCHEMA = pa.schema(
    [
        pa.field("name", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("stamp", pa.string(), nullable=False),
        pa.field("documents", pa.int64(), nullable=False),
        pa.field("forgotten", pa.int64(), nullable=False),
        pa.field("notes", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file of the source that a run read without any objection.

    Attributes
    ----------
    name
        Its path in the source. All of its documents have this URI, or one that starts with it and a `#`.
    size
        Bytes.
    stamp
        What the source said of its version when it was listed.
    documents
        How many documents of the collection it gave.
    forgotten
        How many others it gave, which were forgotten.
    notes
        How they were read, as JSON; empty without notes.
    """

    name: str
    size: int
    stamp: str
    documents: int
    forgotten: int
    notes: str


class ListingRecord(BaseModel):
    """The record of a listing, which is written after the commit.

    Attributes
    ----------
    documents_digest
        Of the documents that the listing is about, see `isospace.collection.snapshot.documents_digest`.
    reading
        Fingerprint of everything that decides what a file gives.
    read_at
        When all files were read the last time, in seconds since the epoch.
    files
        Parquet files with the rows, `ListedFile`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: int = FORMAT
    documents_digest: str
    reading: str
    read_at: float
    files: tuple[FileRef, ...]


def read_listing(store: Store, collection: str, documents_digest: str) -> ListingRecord | None:
    """Return the record of the listing of a snapshot's documents; None if there is none that can be used."""
    path = CollectionPaths(collection).listing_record(documents_digest)
    try:
        body = unseal(store.read(path), name=path)
        record = ListingRecord.model_validate(body)
    except (NotFoundError, IntegrityError, ValidationError):
        return None
    is_own = record.format == FORMAT and record.documents_digest == documents_digest
    return record if is_own else None


def read_listed(store: Store, record: ListingRecord) -> dict[str, ListedFile]:
    """Return the files of a listing by name; none if the rows are missing, changed, or damaged."""
    names = [field.name for field in fields(ListedFile)]
    try:
        tables = [parse_parquet(read_verified(store, ref), ref.path, columns=names) for ref in record.files]
    except IntegrityError:
        return {}
    columns = ([table[name].to_pylist() for name in names] for table in tables)
    rows = (ListedFile(*row) for table in columns for row in zip(*table, strict=True))
    return {row.name: row for row in rows}


def write_listed(
    store: Store, collection: str, rows: Iterable[ListedFile], known: Sequence[FileRef] = ()
) -> tuple[FileRef, ...]:
    """Write the files of a listing; those `known` from an earlier one, with the same rows, are not written again."""
    existing = {ref.path: ref for ref in known}
    paths = CollectionPaths(collection)
    written = []
    for group in _divided(sorted(rows, key=lambda row: row.name)):
        path = paths.listing_rows(sha256_lines(str(value) for row in group for value in astuple(row)))
        columns = [[getattr(row, field.name) for row in group] for field in fields(ListedFile)]
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)], schema=_SCHEMA)
        written.append(existing.get(path) or write_parquet(store, path, table, replace=True))
    return tuple(written)


def record_listing(store: Store, collection: str, record: ListingRecord) -> None:
    """Write the record of a listing, unless it is there already."""
    path = CollectionPaths(collection).listing_record(record.documents_digest)
    if read_listing(store, collection, record.documents_digest) != record:
        store.write(path, seal(record.model_dump(mode="json")))


def _divided(rows: Sequence[ListedFile]) -> list[list[ListedFile]]:
    """Divide rows by the hash of their names, so that a change of some leaves most groups as they are."""
    bits = max(0, (len(rows) - 1) // _ROWS_PER_FILE).bit_length()
    groups: list[list[ListedFile]] = [[] for _ in range(1 << bits)]
    for row in rows:
        digest = hashlib.sha256(row.name.encode()).digest()
        groups[int.from_bytes(digest[:4], "big") >> (32 - bits)].append(row)
    return [group for group in groups if group]
