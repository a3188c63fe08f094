"""Read one document per row from JSONL, CSV, and Parquet, as a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.parsers.data_uris import cut_data_uris
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.readers.compressed import spooled
from isospace.ingest.readers.csv_rows import csv_rows
from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES, clean_text, clean_title
from isospace.ingest.readers.jsonl_rows import jsonl_rows
from isospace.ingest.readers.parquet_rows import parquet_rows
from isospace.ingest.readers.pointers import stored_pointer
from isospace.ingest.readers.rows import Unread
from isospace.ingest.readers.source_file import SourceFile
from isospace.ingest.spec import DocumentsSpec
from isospace.ingest.values import body_text, id_text, metadata_value, title_text

TABLE_FORMATS = frozenset({"jsonl", "csv", "parquet"})


def read_table(file: SourceFile, kind: str, spec: DocumentsSpec) -> Iterator[Document | QuarantineEntry]:
    """Yield one document per row; quarantine bad rows, and the rest of a file that becomes unreadable.

    An entry says how many documents it stands for, and None if the file does not tell.

    Raises
    ------
    ConfigError
        If a column that the configuration names does not exist, or exists twice.
    """
    try:
        if pointer := stored_pointer(file) or _held_pointer(file):
            # One file is missing. The documents that an earlier run read from it stay.
            yield QuarantineEntry(file.name, pointer, None, file.name)
            return
        with spooled(file) if kind == "parquet" else nullcontext(file) as table:
            yield from _rows(table, kind, spec)
    except UnreadableError as error:
        yield QuarantineEntry(file.name, str(error), None, file.name, None)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or str(error)[:200]}"
        yield QuarantineEntry(file.name, reason, None, file.name, None)


def _rows(file: SourceFile, kind: str, spec: DocumentsSpec) -> Iterator[Document | QuarantineEntry]:
    for number, row in {"jsonl": jsonl_rows, "csv": csv_rows, "parquet": parquet_rows}[kind](file, spec):
        where = file.name if number is None else f"{file.name}#{number}"
        if isinstance(row, Unread):
            within = None if row.doc_id else file.name
            yield QuarantineEntry(where, row.reason, row.doc_id, within, row.documents)
        else:
            yield _document(file, where, row, spec)


def _held_pointer(file: SourceFile) -> str | None:
    """Return why what a compressed file holds stands for another file; else None."""
    return stored_pointer(replace(file, stored=None)) if file.stored else None


def _document(file: SourceFile, where: str, row: Mapping[str, Any], spec: DocumentsSpec) -> Document | QuarantineEntry:
    try:
        identifier = id_text(row.get(spec.id_column), spec.id_column)
    except UnreadableError as error:
        return QuarantineEntry(where, str(error), within=file.name)
    if identifier is None:
        return QuarantineEntry(where, f"has no value in {spec.id_column}", within=file.name)
    doc_id = clean_text(identifier)
    try:
        texts = [body_text(row.get(column), column) for column in spec.text_columns]
        title = title_text(row.get(spec.title_column), spec.title_column) if spec.title_column else ""
        metadata = {column: metadata_value(row.get(column), column) for column in spec.metadata_columns}
    except UnreadableError as error:
        return QuarantineEntry(where, str(error), doc_id)
    text, notes = cut_data_uris(clean_text("\n\n".join(text for text in texts if text)))
    title = clean_title(title)
    if len(text) > MAX_DOCUMENT_BYTES:
        return QuarantineEntry(
            where, f"has {len(text):,} characters; one document may have {MAX_DOCUMENT_BYTES:,}", doc_id
        )
    # A document may be a title alone.
    text = text if text.strip() else title
    if not text:
        return QuarantineEntry(where, "holds no text")
    uri = where if not doc_id else f"{file.name}#{doc_id}"
    return Document(doc_id, uri, title, text, metadata, notes)
