"""Read queries and judgements from Parquet, CSV, TSV, JSON lines, or text files."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from isospace.errors import ConfigError
from isospace.ingest.document import is_unicode
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.values import id_text, title_text

_STRINGS = ("query_id", "doc_id", "text", "query-id", "corpus-id", "_id")

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
        raise ConfigError(
            f"{path}: row {number} is {ascii(text)[:80]}, which is not Unicode text: it has half of a surrogate pair. "
            "Write the whole character."
        )
    return text


def read_judgements(path: Path, columns: tuple[str, str, str] = ("query_id", "doc_id", "relevance")) -> Judgements:
    """Read relevance by query and document (larger is better, 0 is not relevant), from three columns.

    Raises
    ------
    ConfigError
        If the file cannot be read, lacks a column, or has a relevance that is not a whole number.
    """
    rows = read_columns(path, list(columns))
    judgements: Judgements = {}
    queries, documents = (read_ids(path, rows[name], name) for name in columns[:2])
    for query, document, relevance in zip(queries, documents, rows[columns[2]], strict=True):
        if not isinstance(relevance, int | float) or not float(relevance).is_integer():
            raise ConfigError(
                f"{path}: the relevance of query {query}, document {document} is {relevance!r}; expected a whole "
                "number."
            )
        judgements.setdefault(query, {})[document] = int(relevance)
    return judgements


def read_columns(
    path: Path, columns: list[str], *, optional: list[str] | None = None, every: bool = False
) -> dict[str, list[Any]]:
    """Read columns of a Parquet, CSV, TSV, or JSON lines file; with `every`, all columns.

    Raises
    ------
    ConfigError
        If the file cannot be read, has another format, or lacks a column.
    """
    try:
        match path.suffix:
            case ".parquet":
                table = pq.read_table(pa.BufferReader(read_bytes(path)))
            case ".csv" | ".tsv":
                separator = "\t" if path.suffix == ".tsv" else ","
                # Read IDs as strings: 007 is not 7. NA and null are texts; only an empty field is missing.
                text = pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(_STRINGS, pa.string()), null_values=[""], strings_can_be_null=True
                )
                parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
                data = pa.BufferReader(read_text(path).encode())
                table = pa.csv.read_csv(data, parse_options=parse, convert_options=text)
            case ".jsonl" | ".json" | ".ndjson":
                return _select(path, _json_columns(read_text(path)), columns, optional, every=every)
            case _:
                raise ConfigError(
                    f"{path}: unknown suffix {path.suffix!r}; expected .parquet, .csv, .tsv, .jsonl, .json, or .ndjson."
                )
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise ConfigError(f"{path}: cannot be read ({reason}). Check that its content matches its suffix.") from error
    repeated = [name for name in table.column_names if table.column_names.count(name) > 1]
    if wrong := [name for name in [*columns, *(optional or [])] if name in repeated]:
        raise ConfigError(f"{path}: has more than one column {wrong[0]}; expected one. Rename the others.")
    unique = table.drop_columns(repeated) if repeated else table
    return _select(path, unique.to_pydict(), columns, optional, every=every)


def _json_columns(text: str) -> dict[str, list[Any]]:
    """Return the columns of JSON lines; a value that a line lacks is None.

    Arrow's parser would take texts such as 2024-01-31 for times, and spell them in another way.
    """
    rows = [json.loads(line, object_pairs_hook=_object) for line in text.split("\n") if line.strip()]
    if wrong := next((row for row in rows if not isinstance(row, dict)), None):
        raise ValueError(f"a line is a JSON {type(wrong).__name__}, not an object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(pairs)
    if len(known) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a line has the key {next(name for name in names if names.count(name) > 1)!r} twice")
    return known


def _select(
    path: Path, table: dict[str, list[Any]], columns: list[str], optional: list[str] | None, *, every: bool
) -> dict[str, list[Any]]:
    if missing := [name for name in columns if name not in table]:
        raise ConfigError(
            f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(table)}. Rename the columns."
        )
    wanted = list(table) if every else [*columns, *(optional or [])]
    return {name: table[name] for name in wanted if name in table}


def read_ids(path: Path, values: Iterable[Any], column: str) -> Iterator[str]:
    """Yield the IDs of a column, spelled as those of documents are.

    Raises
    ------
    ConfigError
        If one is missing, or neither a text nor a number.
    """
    for number, value in enumerate(values, start=1):
        try:
            name = id_text(value, column)
        except UnreadableError as error:
            raise ConfigError(f"{path}: row {number} {error}. Write IDs as texts.") from error
        if name is None:
            raise ConfigError(f"{path}: row {number} has no {column}; expected an ID in each row. Add it.")
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
