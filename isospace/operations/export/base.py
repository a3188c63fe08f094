"""The parts that all exports share: rows, the record that names their space, and errors."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from isospace import __version__
from isospace.errors import IntegrityError, StoreError
from isospace.operations.export.target import Target
from isospace.search.local.copy import take_rows
from isospace.search.metadata import read_metadata
from isospace.search.view import View
from isospace.transform.quantizer_set import Representation
from isospace.transform.representations import ShortSpec
from isospace.transform.vectors import Float32

KEY = "isospace"
ROW_SCHEMA = pa.schema(
    [
        pa.field("chunk_id", pa.string()),
        pa.field("doc_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("title", pa.string()),
        pa.field("text", pa.string()),
        pa.field("start", pa.int64()),
        pa.field("end", pa.int64()),
        pa.field("metadata", pa.string()),
    ]
)
_OWNER_COLUMNS = ["doc_id", "uri", "title", "metadata"]


class ExportRecord(BaseModel):
    """What an export contains; each system stores it as metadata of the export."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal[1] = 1
    space_id: str
    snapshot_id: str
    snapshot: int
    collection: str
    encoder_id: str
    # Exports are ranked by the inner product; for unit vectors it is the cosine.
    metric: Literal["cosine", "dot"]
    dimension: int
    representation: str
    rows: int
    made_by: str = f"isospace {__version__}"


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of rows and their vectors."""

    rows: pa.RecordBatch
    """n rows of `ROW_SCHEMA`; metadata is JSON, as stored."""
    vectors: Float32
    """(n, k) float32."""


@dataclass(frozen=True, slots=True)
class Source:
    """The snapshot to export."""

    view: View
    record: ExportRecord
    batch_rows: int

    def batches(self) -> Iterator[Batch]:
        """Yield all rows in the order of the snapshot's parts, with decoded vectors."""
        copy = self.view.copy
        codes = copy.codes[self.record.representation]
        documents = copy.documents.select(_OWNER_COLUMNS)
        for first in range(0, len(copy), self.batch_rows):
            places = copy.rows[first : first + self.batch_rows]
            chunks = take_rows(copy.chunks, places)
            owners = documents.take(chunks["document"])
            columns = [(owners if name in _OWNER_COLUMNS else chunks)[name] for name in ROW_SCHEMA.names]
            rows = pa.table(columns, names=ROW_SCHEMA.names).cast(ROW_SCHEMA).combine_chunks()
            codes_here = codes.array[places]
            yield Batch(rows.to_batches()[0], np.ascontiguousarray(codes.quantizer.decode(codes_here), np.float32))


class System(Protocol):
    """The functions of a system's module."""

    def write(self, source: Source, target: Target, *, replace: bool) -> None:
        """Write all rows and the record; what a crash leaves must not look complete."""

    def read_record(self, target: Target) -> ExportRecord:
        """Read the record; NotFoundError if there is no export, IntegrityError if it is incomplete."""

    def verify(self, target: Target, record: ExportRecord) -> None:
        """Raise IntegrityError if the export differs from its record."""


def describe(view: View) -> ExportRecord:
    """Build the record for an export of a snapshot."""
    manifest, space = view.manifest, view.space.space
    return ExportRecord(
        space_id=space.space_id,
        snapshot_id=manifest.snapshot_id,
        snapshot=manifest.sequence,
        collection=manifest.collection,
        encoder_id=manifest.encoder_id,
        dimension=space.record.dimension,
        metric="cosine" if space.transform.normalization == "l2" else "dot",
        representation=_finest(view),
        rows=len(view.copy),
    )


def parse_record(stored: object, target: Target) -> ExportRecord:
    """Parse a record as a system stores it: JSON, or the parsed value.

    Raises
    ------
    IntegrityError
        If it is not a record, or has another format.
    """
    try:
        return ExportRecord.model_validate(json.loads(stored) if isinstance(stored, str | bytes) else stored)
    except (ValueError, ValidationError) as error:
        raise incomplete(target, f"its record cannot be read ({' '.join(str(error).split())[:160]})") from error


def incomplete(target: Target, why: str) -> IntegrityError:
    """Return the error for a target that exists but is not a complete export."""
    return IntegrityError(
        f"{target}: {why}; expected an export of isospace. Remove what is there yourself, or choose another name."
    )


def changed_export(place: object, actual: str, expected: str) -> IntegrityError:
    """Return the error for an export that was changed_export after it was written."""
    return IntegrityError(
        f"{place}: {actual}; its record says {expected}. Export the snapshot again with replace=True (--replace)."
    )


@contextlib.contextmanager
def store_errors(target: Target, *errors: type[Exception]) -> Iterator[None]:
    """Turn errors of a system's client into a StoreError that names the target."""
    try:
        yield
    except errors as error:
        reason = " ".join(str(error).split())[:400]
        raise StoreError(f"{target}: {reason or type(error).__name__}. Fix the cause and try again.") from error


def portable(metadata: str) -> dict[str, Any]:
    """Parse metadata for systems with strict JSON.

    NaN and infinity become null, lone surrogates and U+0000 become U+FFFD.
    """
    parsed: dict[str, Any] = _portable(read_metadata(metadata))
    return parsed


def _portable(value: Any) -> Any:
    match value:
        case dict():
            return {_portable(key): _portable(item) for key, item in value.items()}
        case list():
            return [_portable(item) for item in value]
        case float():
            return value if math.isfinite(value) else None
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\x00", "\ufffd")
    return value


def _finest(view: View) -> Representation:
    """Return the representation to export: float if stored, else the first one with all dimensions."""
    specs = view.space.space.record.spec.representations
    names = [spec.name for spec in specs]
    whole = [spec.name for spec in specs if not isinstance(spec, ShortSpec)]
    return next((name for name in ("float32", "float16") if name in names), (whole or names)[0])
