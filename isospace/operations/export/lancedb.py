"""Export to a LanceDB table in one commit, with the record in the metadata of the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa

from isospace.errors import NotFoundError
from isospace.operations.export.base import (
    KEY,
    ROW_SCHEMA,
    ExportRecord,
    Source,
    changed_export,
    incomplete,
    parse_record,
    portable,
    store_errors,
)
from isospace.operations.export.target import Target

_ERRORS = (ValueError, RuntimeError, OSError)


def write(source: Source, target: Target, *, replace: bool) -> None:
    """Write the rows as one version of the table; until Lance commits it, the table stays as it was."""
    schema = _schema(source.record)
    reader = pa.RecordBatchReader.from_batches(schema, _batches(source, schema))
    with store_errors(target, *_ERRORS):
        connection = lancedb.connect(target.place)
        connection.create_table(target.name, data=reader, mode="overwrite" if replace else "create")


def read_record(target: Target) -> ExportRecord:
    """Read the record of the export."""
    entries = _open(target).schema.metadata or {}
    if KEY.encode() not in entries:
        raise incomplete(target, "is a table without a record")
    return parse_record(entries[KEY.encode()], target)


def verify(target: Target, record: ExportRecord) -> None:
    """Check the number of rows and the dimension of the vectors."""
    table = _open(target)
    actual = (table.count_rows(), getattr(table.schema.field("vector").type, "list_size", None))
    if actual != (record.rows, record.dimension):
        raise changed_export(
            target, f"has {actual[0]} rows of {actual[1]} dimensions", f"{record.rows} of {record.dimension}"
        )


def _open(target: Target) -> Any:
    absent = NotFoundError(f"{target}: holds no export. Export a snapshot to it first.")
    # Connecting would create a missing local folder.
    if "://" not in target.place and not Path(target.place).is_dir():
        raise absent
    with store_errors(target, *_ERRORS):
        connection = lancedb.connect(target.place)
        try:
            return connection.open_table(target.name)
        except ValueError as error:
            if "not found" in str(error):
                raise absent from error
            raise


def _schema(record: ExportRecord) -> pa.Schema:
    fields = [field if field.name != "metadata" else pa.field("metadata", pa.json_()) for field in ROW_SCHEMA]
    vector = pa.field("vector", pa.list_(pa.float32(), record.dimension))
    return pa.schema([*fields, vector], metadata={KEY: record.model_dump_json()})


def _batches(source: Source, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in source.batches():
        texts = [json.dumps(portable(text), ensure_ascii=False) for text in batch.rows["metadata"].to_pylist()]
        metadata = pa.array(texts, pa.string()).cast(pa.json_())
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(batch.vectors.reshape(-1)), source.record.dimension)
        columns = {
            **dict(zip(ROW_SCHEMA.names, batch.rows.columns, strict=True)),
            "metadata": metadata,
            "vector": vectors,
        }
        yield pa.record_batch([columns[name] for name in schema.names], schema=schema)
