"""The inputs that a run could not use, as the snapshot it committed records them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from isospace.collection.snapshot import Manifest
from isospace.storage.file_ref import FileRef
from isospace.storage.hashing import sha256_lines
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class QuarantinedInput:
    """One input, and why it was not used."""

    uri: str
    doc_id: str | None
    """None where the document's ID is unknown."""
    within: str | None
    """The table that could not be read further, where that is the reason."""
    reason: str
    documents: int | None = None
    """How many documents it stands for, estimated if nobody knows; None if an earlier version wrote it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def read_quarantine(store: Store, manifest: Manifest) -> list[QuarantinedInput]:
    """Return the quarantined inputs of a snapshot, by URI.

    Raises
    ------
    IntegrityError
        If the file is missing or was changed.
    """
    return [] if manifest.quarantine is None else read_inputs(store, manifest.quarantine)


def read_inputs(store: Store, file: FileRef) -> list[QuarantinedInput]:
    """Return the quarantined inputs that a file lists, by URI; IntegrityError if it is missing or was changed."""
    from isospace.storage.parquet import parse_parquet, read_verified

    table = parse_parquet(read_verified(store, file), file.path)
    known = [field.name for field in fields(QuarantinedInput) if field.name in table.column_names]
    return [QuarantinedInput(**row) for row in table.select(known).to_pylist()]


def write_quarantine(store: Store, collection: str, table: pa.Table) -> FileRef | None:
    """Write quarantined inputs under the digest of their content; None if there are none."""
    if not table.num_rows:
        return None
    from isospace.storage.parquet import write_parquet

    values = (value for column in table.columns for value in column.to_pylist())
    digest = sha256_lines("" if value is None else str(value) for value in values)
    return write_parquet(store, CollectionPaths(collection).quarantine(digest), table)
