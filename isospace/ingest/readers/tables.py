"""Read one document per row from JSONL, CSV, and Parquet, as a stream."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isospace.errors import ConfigError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.parsers.formats import UnreadableError
from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES, clean_text, decode
from isospace.ingest.readers.location import SourceFile
from isospace.ingest.spec import DocumentsSpec

TABLE_FORMATS = frozenset({"jsonl", "csv", "parquet"})
_BATCH_ROWS = 256

_Row = tuple[int, Mapping[str, Any] | str]


def read_table(file: SourceFile, kind: str, spec: DocumentsSpec) -> Iterator[Document | QuarantineEntry]:
    """Yield one document per row; quarantine bad rows, and the rest of a file that becomes unreadable.

    Raises
    ------
    ConfigError
        If a column that the configuration names does not exist.
    """
    rows = {"jsonl": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows}[kind](file, spec)
    try:
        for number, row in rows:
            yield _document(file, number, row, spec)
    except UnreadableError as error:
        yield QuarantineEntry(file.name, str(error), within=file.name)
    except OSError as error:
        yield QuarantineEntry(file.name, f"cannot be read: {error.strerror or str(error)[:200]}", within=file.name)


def _document(
    file: SourceFile, number: int, row: Mapping[str, Any] | str, spec: DocumentsSpec
) -> Document | QuarantineEntry:
    where = f"{file.name}#{number}"
    if isinstance(row, str):
        return QuarantineEntry(where, row, within=file.name)
    identifier = row.get(spec.id_column)
    if identifier is None or str(identifier).strip() == "":
        return QuarantineEntry(where, f"has no value in {spec.id_column}", within=file.name)
    doc_id = clean_text(str(identifier))
    texts = [row.get(column) for column in spec.text_columns]
    wrong = next((text for text in texts if text is not None and not isinstance(text, str)), None)
    if wrong is not None:
        return QuarantineEntry(where, f"has {type(wrong).__name__} where text was expected", doc_id)
    title = clean_text(str(row.get(spec.title_column) or "")) if spec.title_column else ""
    text = clean_text("\n\n".join(text for text in texts if text))
    if len(text) > MAX_DOCUMENT_BYTES:
        return QuarantineEntry(
            where, f"has {len(text):,} characters; one document may have {MAX_DOCUMENT_BYTES:,}", doc_id
        )
    if not text.strip():
        return QuarantineEntry(where, "holds no text")
    metadata = {column: row.get(column) for column in spec.metadata_columns}
    return Document(doc_id, where if not doc_id else f"{file.name}#{doc_id}", " ".join(title.split()), text, metadata)


def _named_columns(spec: DocumentsSpec) -> list[str]:
    title = [spec.title_column] if spec.title_column else []
    return list(dict.fromkeys([spec.id_column, *spec.text_columns, *title, *spec.metadata_columns]))


def _require_columns(file: SourceFile, present: Iterable[str], spec: DocumentsSpec) -> None:
    columns = list(present)
    missing = [column for column in _named_columns(spec) if column not in columns]
    if missing:
        raise ConfigError(
            f"{file.name}: no column {', '.join(missing)}; it has {', '.join(columns)[:300]}. "
            "Correct recipe.documents.id_column, text_columns, title_column or metadata_columns."
        )


def _jsonl_rows(file: SourceFile, spec: DocumentsSpec) -> Iterator[_Row]:
    seen: set[str] = set()
    for number, row in _parsed_lines(file):
        if isinstance(row, dict):
            seen.update(row)
        yield number, row
    # Lines may have different keys, but a column that no line has is a mistake in the configuration.
    if seen:
        _require_columns(file, sorted(seen), spec)


def _parsed_lines(file: SourceFile) -> Iterator[_Row]:
    with file.open() as stream:
        for number, line in enumerate(_lines(stream), start=1):
            if line is None:
                yield number, f"is a line of more than {MAX_DOCUMENT_BYTES:,} bytes"
                continue
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, f"is not JSON ({str(error)[:120]})"
                continue
            yield number, row if isinstance(row, dict) else f"is a JSON {type(row).__name__}, not an object"


def _lines(stream: Any) -> Iterator[bytes | None]:
    """Yield lines; None for one that exceeds the limit, without ever holding it whole."""
    pending, skipping = b"", False
    while block := bytes(stream.read(1 << 20)):
        *complete, pending = (pending + block).split(b"\n")
        for line in complete:
            yield None if skipping or len(line) > MAX_DOCUMENT_BYTES else line
            skipping = False
        if len(pending) > MAX_DOCUMENT_BYTES:
            pending, skipping = b"", True
    if pending or skipping:
        yield None if skipping else pending


def _csv_rows(file: SourceFile, spec: DocumentsSpec) -> Iterator[_Row]:
    csv.field_size_limit(MAX_DOCUMENT_BYTES)
    with file.open() as stream:
        head = bytes(stream.read(1 << 20))
        if not head.strip():
            raise UnreadableError("is empty")
        decode(head[: head.rfind(b"\n") + 1] or head)
        stream.seek(0)
        # surrogateescape lets reading continue past invalid UTF-8, so that only the affected row is quarantined.
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
        reader = csv.DictReader(text, dialect="excel-tab" if file.suffix == ".tsv" else "excel", strict=True)
        try:
            _require_columns(file, reader.fieldnames or (), spec)
            for row in reader:
                yield reader.line_num, _checked_csv_row(row)
        except csv.Error as error:
            raise UnreadableError(f"is not CSV from line {reader.line_num} on ({error})") from error


def _checked_csv_row(row: dict[str | Any, Any]) -> Mapping[str, Any] | str:
    if None in row or None in row.values():
        return "has a different number of fields than the header"
    if any("\udc80" <= character <= "\udcff" for value in row.values() for character in value):
        return "contains bytes that are not UTF-8"
    return row


def _parquet_rows(file: SourceFile, spec: DocumentsSpec) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open() as stream:
        try:
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
            _require_columns(file, parquet.schema_arrow.names, spec)
            number = 0
            for batch in parquet.iter_batches(batch_size=_BATCH_ROWS, columns=_named_columns(spec)):
                for row in _batch_rows(batch):
                    number += 1
                    yield number, row
        except pa.ArrowException as error:
            raise UnreadableError(f"cannot be read as Parquet ({str(error)[:160]})") from error


def _batch_rows(batch: Any) -> Iterator[Mapping[str, Any] | str]:
    """Yield rows as Python values, or the reason why a row has none, such as a date out of range."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError):
        pass
    for position in range(batch.num_rows):
        try:
            row = batch.slice(position, 1).to_pylist()[0]
        except (ValueError, OverflowError) as error:
            row = f"has a value that cannot be read ({str(error)[:120]})"
        yield row
