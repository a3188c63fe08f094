"""Read queries and judgements from Parquet, CSV, TSV, JSON lines, or text files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from isospace.errors import ConfigError
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.values import id_text

_STRINGS = ("query_id", "doc_id", "text", "query-id", "corpus-id", "_id")

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
        lines = read_bytes(path).decode("utf-8", errors="replace").splitlines()
        rows = {"text": lines}
    else:
        rows = read_columns(path, ["text"], optional=["query_id"])
    texts = [str(text or "") for text in rows["text"]]
    ids = list(read_ids(path, rows.get("query_id", range(1, len(texts) + 1)), "query_id"))
    if len(set(ids)) != len(ids):
        repeated = next(name for name in ids if ids.count(name) > 1)
        raise ConfigError(f"{path}: query_id {repeated!r} occurs more than once; give each query its own ID.")
    queries = {name: text for name, text in zip(ids, texts, strict=True) if text.strip()}
    if not queries:
        raise ConfigError(f"{path}: contains no query; expected texts in the column text.")
    return queries


def read_judgements(path: Path) -> Judgements:
    """Read relevance by query_id and doc_id (larger is better, 0 is not relevant).

    Raises
    ------
    ConfigError
        If the file cannot be read, lacks a column, or has a relevance that is not a whole number.
    """
    rows = read_columns(path, ["query_id", "doc_id", "relevance"])
    judgements: Judgements = {}
    queries, documents = (read_ids(path, rows[name], name) for name in ("query_id", "doc_id"))
    for query, document, relevance in zip(queries, documents, rows["relevance"], strict=True):
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
    data = pa.BufferReader(read_bytes(path))
    try:
        match path.suffix:
            case ".parquet":
                table = pq.read_table(data)
            case ".csv" | ".tsv":
                separator = "\t" if path.suffix == ".tsv" else ","
                # Read IDs as strings: 007 is not 7. NA and null are texts; only an empty field is missing.
                text = pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(_STRINGS, pa.string()), null_values=[""], strings_can_be_null=True
                )
                parse = pa.csv.ParseOptions(delimiter=separator, newlines_in_values=True)
                table = pa.csv.read_csv(data, parse_options=parse, convert_options=text)
            case ".jsonl" | ".json" | ".ndjson":
                return _select(path, _json_columns(bytes(data.read_buffer())), columns, optional, every=every)
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


def _json_columns(data: bytes) -> dict[str, list[Any]]:
    """Return the columns of JSON lines; a value that a line lacks is None.

    Arrow's parser would take texts such as 2024-01-31 for times, and spell them in another way.
    """
    rows = [json.loads(line) for line in data.split(b"\n") if line.strip()]
    if wrong := next((row for row in rows if not isinstance(row, dict)), None):
        raise ValueError(f"a line is a JSON {type(wrong).__name__}, not an object")
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


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


def read_bytes(path: Path) -> bytes:
    """Read a file named by a configuration or a command; ConfigError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}). Give the path of a file.") from error
