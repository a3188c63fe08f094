"""Detect the format of a source and the columns of its tables, to propose a configuration."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from isospace.errors import SourceError
from isospace.ingest.document import MAX_METADATA_DEPTH, QuarantineEntry, nests_deeper
from isospace.ingest.readers.choose import TABLE_SUFFIXES
from isospace.ingest.readers.compressed import ARCHIVES, archive_members, spooled, unpacked
from isospace.ingest.readers.csv_rows import DELIMITERS
from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.parquet_rows import batch_rows
from isospace.ingest.readers.pointers import stored_pointer
from isospace.ingest.readers.rows import Unread, table_encoding
from isospace.ingest.readers.source_file import Listing, SourceFile
from isospace.ingest.spec import DocumentsSpec

_BLANK_LINES = re.compile(r"(?:[ \t]*(?:\r\n|\r|\n))+")
_LINE_END = re.compile(r"\r\n|\r|\n")
_ROWS = 100
_HEAD_BYTES = 1 << 20
_ID_NAMES = ("doc_id", "id", "_id", "docid", "document_id", "uuid", "key", "uri", "url", "path")
_TITLE_NAMES = ("title", "headline", "name", "subject", "heading")
_TEXT_NAMES = ("text", "body", "content", "contents", "abstract", "document", "description", "passage", "summary")
_ARCHIVES = 20
_MAX_METADATA_COLUMNS = 8
_MAX_METADATA_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class DetectedSource:
    """The detected format of a source, and proposals for its configuration.

    Attributes
    ----------
    format
        `files`, `jsonl`, `csv`, or `parquet`.
    files
        Number of files that would be read.
    include
        For `files`: shell patterns of their names.
    columns
        For a table: all columns.
    id_column, title_column, text_columns, metadata_columns
        For a table: the proposed columns. `id_column` is empty if no column identifies every row.
    """

    format: str
    files: int
    include: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    id_column: str = ""
    title_column: str = ""
    text_columns: tuple[str, ...] = ()
    metadata_columns: tuple[str, ...] = field(default=())


def detect_source(url: str) -> DetectedSource:
    """Detect the format from the file names, and the columns of a table from its first rows.

    Raises
    ------
    SourceError
        If the source has no file that isospace reads, or no row of its first table can be read.
    """
    with ExitStack() as opened:
        files, closed = _inputs(list_source(url).files, opened)
        if closed and not any(_is_read(file) for file in files):
            raise SourceError(f"source {url}: {closed[0].uri} {closed[0].reason}.")
        return _detect(url, files)


def _is_read(file: SourceFile) -> bool:
    return file.suffix in TABLE_SUFFIXES or file.matches(DocumentsSpec().include)


def _detect(url: str, files: Sequence[SourceFile]) -> DetectedSource:
    tables = [file for file in files if file.suffix in TABLE_SUFFIXES]
    readable = [file for file in files if file.matches(DocumentsSpec().include)]
    if len(readable) >= len(tables) and readable:
        suffixes = sorted({f"*{file.suffix}" for file in readable})
        return DetectedSource("files", len(readable), include=tuple(suffixes))
    if not tables:
        names = ", ".join(file.name for file in files[:3]) or "nothing"
        raise SourceError(
            f"source {url}: contains {names}; expected files such as {', '.join(DocumentsSpec().include)}, or a "
            ".jsonl, .csv, or .parquet table."
        )
    kinds = Counter(TABLE_SUFFIXES[file.suffix] for file in tables)
    kind = kinds.most_common(1)[0][0]
    return _propose(kind, kinds[kind], _rows(url, next(f for f in tables if TABLE_SUFFIXES[f.suffix] == kind), kind))


def _rows(url: str, file: SourceFile, kind: str) -> list[dict[str, Any]]:
    """Return the first rows of a table that can be read."""
    import pyarrow as pa

    try:
        if pointer := stored_pointer(file):
            raise SourceError(f"source {url}: {file.name} {pointer}.")
        found = _first_rows(file, kind)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(
            f"source {url}: its first table {file.name} cannot be read ({reason}). Check that its content matches its "
            "suffix."
        ) from error
    rows = [row for row in found if isinstance(row, dict)]
    if not rows:
        reason = next((f": the first {row.reason}" for row in found if isinstance(row, Unread)), "")
        raise SourceError(
            f"source {url}: the first table {file.name} has no rows that can be read{reason}. Give a source with "
            "documents."
        )
    return rows


def _inputs(files: Sequence[SourceFile], opened: ExitStack) -> tuple[list[SourceFile], list[QuarantineEntry]]:
    """Return the files as they are read, and the archives that cannot be opened.

    Compressed files expand, and the first archives stand for their members.
    """
    archives = [file for file in files if file.suffix in ARCHIVES][:_ARCHIVES]
    members = [opened.enter_context(archive_members(archive)) for archive in archives]
    plain = [unpacked(file) for file in files if file.suffix not in ARCHIVES]
    inner = [file for found in members if isinstance(found, Listing) for file in found.files]
    return plain + inner, [found for found in members if isinstance(found, QuarantineEntry)]


def _first_rows(file: SourceFile, kind: str) -> Sequence[dict[str, Any] | Unread]:
    if kind == "parquet":
        return _first_parquet_rows(file)
    with file.open() as stream:
        head = bytes(stream.read(_HEAD_BYTES))
        text = head.decode(table_encoding(head), errors="replace")
    if kind == "csv":
        text = text[match.end() :] if (match := _BLANK_LINES.match(text)) else text
        header = _LINE_END.split(text, 1)[0]
        delimiter = "\t" if file.suffix == ".tsv" else max(DELIMITERS, key=header.count)
        csv.field_size_limit(MAX_DOCUMENT_BYTES)
        return _until_error(islice(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter), _ROWS))
    # Not the line separators of Unicode, which can stand within a text.
    lines = (line for line in text.split("\n") if line.strip())
    return [_parse_line(line) for line in islice(lines, _ROWS)]


def _first_parquet_rows(file: SourceFile) -> Sequence[dict[str, Any] | Unread]:
    import pyarrow.parquet as pq

    with spooled(file) as whole, whole.open() as stream:
        batch = next(pq.ParquetFile(stream).iter_batches(batch_size=_ROWS), None)
        return [] if batch is None else [row if isinstance(row, Unread) else dict(row) for row in batch_rows(batch)]


def _until_error(rows: Iterator[dict[str | Any, Any]]) -> list[dict[str, Any]]:
    """Return the rows before the first that is not CSV: the beginning of a file may end inside a quoted field."""
    complete = []
    with contextlib.suppress(csv.Error):
        for row in rows:
            complete.append(dict(row))
    return complete


def _parse_line(line: str) -> dict[str, Any] | Unread:
    try:
        row = json.loads(line)
    except RecursionError:
        return Unread("is JSON that nests too deeply")
    except ValueError as error:
        # The size limit may have cut off the last line.
        return Unread(f"is not JSON ({str(error)[:120]})")
    return row if isinstance(row, dict) else Unread("is no JSON object")


def _propose(kind: str, files: int, rows: list[dict[str, Any]]) -> DetectedSource:
    columns = tuple(dict.fromkeys(str(name) for row in rows for name in row if name is not None))
    id_column = _first_named(columns, _ID_NAMES, lambda name: _is_key(rows, name))
    others = [name for name in columns if name != id_column]
    title = _first_named(others, _TITLE_NAMES, lambda name: _is_text(rows, name))
    others = [name for name in others if name != title]
    text = _first_named(others, _TEXT_NAMES, lambda name: _is_text(rows, name)) or _longest_text(rows, others)
    if not text and title:
        text, title = title, ""
    metadata = [name for name in others if name != text and _is_metadata(rows, name)][:_MAX_METADATA_COLUMNS]
    return DetectedSource(
        kind,
        files,
        columns=columns,
        id_column=id_column,
        title_column=title,
        text_columns=(text,) if text else (),
        metadata_columns=tuple(metadata),
    )


def _first_named(columns: Sequence[str], names: Sequence[str], fits: Any) -> str:
    by_name = {column.lower(): column for column in columns}
    return next((by_name[name] for name in names if name in by_name and fits(by_name[name])), "")


def _is_key(rows: list[dict[str, Any]], name: str) -> bool:
    values = [row.get(name) for row in rows]
    return all(isinstance(value, str | int) and str(value).strip() for value in values) and len(set(values)) == len(
        rows
    )


def _is_text(rows: list[dict[str, Any]], name: str) -> bool:
    values = [row.get(name) for row in rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, str) for value in values)


def _longest_text(rows: list[dict[str, Any]], columns: Sequence[str]) -> str:
    lengths = {name: sum(len(row.get(name) or "") for row in rows) for name in columns if _is_text(rows, name)}
    return max(lengths, key=lambda name: lengths[name], default="")


def _is_metadata(rows: list[dict[str, Any]], name: str) -> bool:
    values = [row.get(name) for row in rows if row.get(name) is not None]
    return bool(values) and all(
        not isinstance(value, dict | bytes)
        and not nests_deeper(value, MAX_METADATA_DEPTH)
        and len(str(value)) <= _MAX_METADATA_CHARACTERS
        for value in values
    )
