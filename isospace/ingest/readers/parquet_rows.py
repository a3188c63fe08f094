"""Read the rows of a Parquet table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from isospace.ingest.readers.rows import Row, Unread, named_columns, require_columns
from isospace.ingest.readers.source_file import SourceFile
from isospace.ingest.spec import DocumentsSpec

_BATCH_ROWS = 256


def parquet_rows(file: SourceFile, spec: DocumentsSpec) -> Iterator[Row]:
    """Yield the rows of a Parquet table with their numbers.

    The footer, at the end, says how many rows there are; of a file that was cut off, nothing is known.

    Raises
    ------
    ConfigError
        If a column that the configuration names does not exist, or exists twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number, total = 0, None
    with file.open() as stream:
        try:
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
            total = int(parquet.metadata.num_rows)
            require_columns(file.name, parquet.schema_arrow.names, spec)
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=named_columns(spec)):
                for row in batch_rows(batch):
                    number += 1
                    yield number, row
        except (pa.ArrowException, OSError) as error:
            left = None if total is None else max(1, total - number)
            reason = " ".join(str(error).split())[:160]
            behind = f" behind row {number:,} of {total:,}" if number else ""
            yield None, Unread(f"cannot be read as Parquet{behind} ({reason})", left)


def batch_rows(batch: Any) -> Iterator[Mapping[str, Any] | Unread]:
    """Yield rows as Python values, or the reason why a row has none, such as a date out of range."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    for position in range(batch.num_rows):
        row: Mapping[str, Any] | Unread
        try:
            row = batch.slice(position, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            row = Unread(f"has a value that cannot be read ({str(error)[:120]})")
        yield row
