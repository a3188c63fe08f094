"""Read queries and judgements from Parquet, CSV, TSV, JSON lines, or text files."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from isospace.errors import ConfigError
from isospace.ingest.document import is_unicode
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.readers.csv_rows import require_closed_quotes
from isospace.ingest.values import id_text, title_text

# Columns that are read as they are written, whatever they look like.
_NAMES = ("query_id", "query-id", "_id", "doc_id", "corpus-id")
_STRINGS = (*_NAMES, "text", "title", "anchor", "positive", "negative", "origin")
# What conversion to Python raises for a value that it has not, such as a time before the year 1.
_NO_VALUE = (ValueError, OverflowError, pa.ArrowException)

# A mark of UTF-32 begins as one of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Not the line separators of Unicode, which stand within a text.
_LINE_END = re.compile(r"\r\n|\r|\n")

Judgements = dict[str, dict[str, int]]


def read_queries(path: Path) -> dict[str, str]:
    """Read texts by query_id from a file with the columns query_id and text.

    Without a column query_id, as in a text file, the line number is the ID. Blank texts are left out.

    Raises
    ------
    ConfigError
        If the file cannot be read, lacks the column text, repeats an ID, or contains no text.
    """
    if path.suffix == ".txt":
        rows: dict[str, list[Any]] = {"text": read_lines(path)}
    else:
        rows = read_columns(path, ["text"], optional=["query_id"])
    return name_texts(path, rows["text"], rows.get("query_id"), "query_id")


def name_texts(path: Path, values: Sequence[Any], names: Iterable[Any] | None, column: str) -> dict[str, str]:
    """Return the texts that are not blank by their IDs, which are numbers from 1 on without `names`.

    Raises
    ------
    ConfigError
        If an ID is missing or occurs twice, a text is none, or all texts are blank.
    """
    texts = [_text(path, number, value) for number, value in enumerate(values, start=1)]
    ids = list(read_ids(path, range(1, len(texts) + 1) if names is None else names, column))
    known: set[str] = set()
    for name in ids:
        if name in known:
            raise ConfigError(f"{path}: {column} {name!r} occurs more than once; give each query its own ID.")
        known.add(name)
    queries = {name: text for name, text in zip(ids, texts, strict=True) if text.strip()}
    if not queries:
        raise ConfigError(f"{path}: contains no query; expected texts in the column text.")
    return queries


def _text(path: Path, number: int, value: Any) -> str:
    try:
        text = title_text(value, "text")
    except UnreadableError as error:
        raise ConfigError(f"{path}: row {number} {error}. Write the query as a text.") from error
    if not is_unicode(text):
        raise _half_character(path, number, text)
    return text


def _half_character(path: Path, number: int, text: str, column: str = "") -> ConfigError:
    verb = f"has the {column}" if column else "is"
    return ConfigError(
        f"{path}: row {number} {verb} {ascii(text)[:80]}, which is not Unicode text: it has half of a surrogate pair. "
        "Write the whole character."
    )


def read_judgements(path: Path, columns: tuple[str, str, str] = ("query_id", "doc_id", "relevance")) -> Judgements:
    """Read relevance by query and document (larger is better, 0 is not relevant), from three columns.

    Raises
    ------
    ConfigError
        If the file cannot be read, lacks a column, has a relevance that is not a whole number, or judges a document
        in two ways for one query.
    """
    rows = read_columns(path, list(columns), texts=columns[:2])
    judgements: Judgements = {}
    queries, documents = (read_ids(path, rows[name], name) for name in columns[:2])
    for query, document, value in zip(queries, documents, rows[columns[2]], strict=True):
        relevance = _relevance(path, query, document, value)
        if (known := judgements.setdefault(query, {}).setdefault(document, relevance)) != relevance:
            raise ConfigError(
                f"{path}: query {query}, document {document} has the relevance {known} and also {relevance}; expected "
                "one. Remove the other row."
            )
    return judgements


def _relevance(path: Path, query: str, document: str, value: Any) -> int:
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise ConfigError(
        f"{path}: the relevance of query {query}, document {document} is {value!r}; expected a whole number."
    )


def read_columns(
    path: Path, columns: list[str], *, optional: list[str] | None = None, every: bool = False, texts: Sequence[str] = ()
) -> dict[str, list[Any]]:
    """Read columns of a Parquet, CSV, TSV, or JSON lines file.

    Parameters
    ----------
    every
        Whether to read all columns, but for those with a name that another one has, or with values that Python cannot
        represent.
    texts
        Columns of a CSV or TSV file, beside the usual ones, whose values stay as they are written: 007 is not 7.

    Raises
    ------
    ConfigError
        If the file cannot be read, has another format, or lacks a column, or if a column cannot be read.
    """
    try:
        table = _read_table(path, (*_STRINGS, *texts))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    asked = [*columns, *(optional or [])]
    if missing := [name for name in columns if name not in table.names]:
        raise ConfigError(
            f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(table.names)[:300]}. Rename the columns."
        )
    if wrong := [name for name in asked if table.names[name] > 1]:
        raise ConfigError(f"{path}: has more than one column {wrong[0]}; expected one. Rename the others.")
    read = {name: _values(path, table, name) for name in asked if name in table.names}
    return {**read, **_others(table, read)} if every else read


class _Table(NamedTuple):
    """How many columns have each name, and what gives the values of one."""

    names: Counter[str]
    column: Callable[[str], list[Any]]


def _read_table(path: Path, texts: Iterable[str]) -> _Table:
    match path.suffix:
        case ".parquet":
            return _arrow_table(pq.read_table(pa.BufferReader(read_bytes(path))))
        case ".csv" | ".tsv":
            return _arrow_table(_read_csv(path, texts))
        case ".jsonl" | ".json" | ".ndjson":
            rows = _json_rows(read_text(path))
            names = dict.fromkeys(name for row in rows for name in row)
            return _Table(Counter(names.keys()), lambda name: [row.get(name) for row in rows])
    raise ConfigError(
        f"{path}: unknown suffix {path.suffix!r}; expected .parquet, .csv, .tsv, .jsonl, .json, or .ndjson."
    )


def _arrow_table(table: pa.Table) -> _Table:
    positions = {name: position for position, name in enumerate(table.column_names)}
    return _Table(Counter(table.column_names), lambda name: list(table.column(positions[name]).to_pylist()))


def _read_csv(path: Path, texts: Iterable[str]) -> pa.Table:
    separator = "\t" if path.suffix == ".tsv" else ","
    content = read_text(path).lstrip("\r\n")
    try:
        require_closed_quotes(content, separator, _NAMES)
    except UnreadableError as error:
        raise ConfigError(
            f"{path}: {error}. Close the quote, and write a quote within a quoted field twice."
        ) from error
    # NA and null are texts; only an empty field is missing.
    convert = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(texts, pa.string()), null_values=[""], strings_can_be_null=True
    )
    parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
    return pa.csv.read_csv(pa.BufferReader(content.encode()), parse_options=parse, convert_options=convert)


def _json_rows(text: str) -> list[dict[str, Any]]:
    """Return the objects of JSON lines.

    Arrow's parser would take texts such as 2024-01-31 for times, and spell them in another way.
    """
    rows = [json.loads(line, object_pairs_hook=_object) for line in text.split("\n") if line.strip()]
    for row in rows:
        if not isinstance(row, dict):
            kind = "null" if row is None else type(row).__name__
            raise ValueError(f"a line is a JSON {kind}, not an object")
    return rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(pairs)
    if len(known) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"a line has the key {next(name for name in counts if counts[name] > 1)!r} twice")
    return known


def _values(path: Path, table: _Table, name: str) -> list[Any]:
    try:
        return table.column(name)
    except _NO_VALUE as error:
        raise _unreadable(path, error, f"its column {name} ") from error


def _others(table: _Table, read: Container[str]) -> dict[str, list[Any]]:
    found = {}
    for name, count in table.names.items():
        if name not in read and count == 1:
            with contextlib.suppress(*_NO_VALUE):
                found[name] = table.column(name)
    return found


def _unreadable(path: Path, error: Exception, what: str = "") -> ConfigError:
    reason = "it nests too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:160]
    return ConfigError(f"{path}: {what}cannot be read ({reason}). Check that its content matches its suffix.")


def read_ids(path: Path, values: Iterable[Any], column: str) -> Iterator[str]:
    """Yield the IDs of a column, spelled as those of documents are.

    Raises
    ------
    ConfigError
        If one is missing, neither a text nor a number, or not Unicode text.
    """
    for number, value in enumerate(values, start=1):
        try:
            name = id_text(value, column)
        except UnreadableError as error:
            raise ConfigError(f"{path}: row {number} {error}. Write IDs as texts.") from error
        if name is None:
            raise ConfigError(f"{path}: row {number} has no {column}; expected an ID in each row. Add it.")
        if not is_unicode(name):
            raise _half_character(path, number, name, column)
        yield name


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file; see `read_text`."""
    return _LINE_END.split(read_text(path))


def read_text(path: Path) -> str:
    """Read a text file in UTF-8, or in the Unicode encoding that its byte order mark names; the mark is left out.

    Raises
    ------
    ConfigError
        If it cannot be read, or has another encoding: a guess could ask other questions.
    """
    data = read_bytes(path)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: line {line} is not {encoding.upper()} (byte 0x{data[error.start]:02x}). Convert the file, "
            "such as with iconv -f WINDOWS-1252 -t UTF-8."
        ) from error
    if "\0" in text:
        raise ConfigError(
            f"{path}: holds the character 0, as UTF-16 without a byte order mark does. Convert the file, such as with "
            "iconv -f UTF-16LE -t UTF-8."
        )
    return text


def read_bytes(path: Path) -> bytes:
    """Read a file named by a configuration or a command; ConfigError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give the path of a file.") from error
