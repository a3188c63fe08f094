"""Detect the format of a source and the columns of its tables, to propose a configuration."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from isospace.errors import SourceError
from isospace.ingest.readers.choose import TABLE_SUFFIXES
from isospace.ingest.readers.compressed import ARCHIVES, archive_members, spooled, unpacked
from isospace.ingest.readers.csv_rows import DELIMITERS
from isospace.ingest.readers.files import MAX_DOCUMENT_BYTES
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.rows import table_encoding
from isospace.ingest.readers.source_file import Listing, SourceFile
from isospace.ingest.spec import DocumentsSpec

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
        If the source has no file that isospace reads, or the table has no rows.
    """
    with ExitStack() as opened:
        try:
            return _detect(url, _inputs(list_source(url).files, opened))
        except OSError as error:
            raise SourceError(f"source {url}: its first table cannot be read ({str(error)[:200]}).") from error


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
    rows = _first_rows(next(file for file in tables if TABLE_SUFFIXES[file.suffix] == kind), kind)
    if not rows:
        raise SourceError(f"source {url}: the first table has no rows. Give a source with documents.")
    return _propose(kind, kinds[kind], rows)


def _inputs(files: Sequence[SourceFile], opened: ExitStack) -> list[SourceFile]:
    """Return the files as they are read: compressed ones expand, and the first archives stand for their members."""
    archives = [file for file in files if file.suffix in ARCHIVES][:_ARCHIVES]
    members = [opened.enter_context(archive_members(archive)) for archive in archives]
    plain = [unpacked(file) for file in files if file.suffix not in ARCHIVES]
    return plain + [file for found in members if isinstance(found, Listing) for file in found.files]


def _first_rows(file: SourceFile, kind: str) -> list[dict[str, Any]]:
    if kind == "parquet":
        return _first_parquet_rows(file)
    with file.open() as stream:
        head = bytes(stream.read(_HEAD_BYTES))
        text = head.decode(table_encoding(head), errors="replace")
    if kind == "csv":
        header = text[: text.find("\n")]
        delimiter = "\t" if file.suffix == ".tsv" else max(DELIMITERS, key=header.count)
        csv.field_size_limit(MAX_DOCUMENT_BYTES)
        return _until_error(islice(csv.DictReader(io.StringIO(text), delimiter=delimiter), _ROWS))
    lines = [line for line in text.splitlines() if line.strip()]
    return [row for line in islice(lines, _ROWS) if isinstance(row := _parse_line(line), dict)]


def _first_parquet_rows(file: SourceFile) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with spooled(file) as whole, whole.open() as stream:
        batch = next(pq.ParquetFile(stream).iter_batches(batch_size=_ROWS), None)
        return [] if batch is None else list(batch.to_pylist())


def _until_error(rows: Iterator[dict[str | Any, Any]]) -> list[dict[str, Any]]:
    """Return the rows before the first that is not CSV: the beginning of a file may end inside a quoted field."""
    complete = []
    with contextlib.suppress(csv.Error):
        for row in rows:
            complete.append(dict(row))
    return complete


def _parse_line(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        # The size limit may have cut off the last line.
        return None


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
        not isinstance(value, dict | bytes) and len(str(value)) <= _MAX_METADATA_CHARACTERS for value in values
    )
