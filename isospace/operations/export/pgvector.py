"""Export to a PostgreSQL table with pgvector, in one transaction; the record is the table's comment."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from typing import Any, LiteralString

import pgvector.psycopg
import psycopg
import psycopg.conninfo
from psycopg import sql
from psycopg.types.json import Jsonb

from isospace.errors import ConfigError, NotFoundError, StoreError
from isospace.operations.export.base import (
    KEY,
    Batch,
    ExportRecord,
    Source,
    changed_export,
    incomplete,
    parse_record,
    portable,
    store_errors,
)
from isospace.operations.export.target import Target

_COLUMNS = {
    "chunk_id": "text", "doc_id": "text", "uri": "text", "title": "text", "text": "text", "span_start": "bigint",
    "span_end": "bigint", "metadata": "jsonb", "vector": "vector",
}  # fmt: skip
# PostgreSQL silently truncates longer names.
_LONGEST_NAME = 63
# A server that does not answer; the URL's connect_timeout overrides it.
_CONNECT_SECONDS = 10
_Connection = psycopg.Connection[tuple[Any, ...]]


def write(source: Source, target: Target, *, replace: bool) -> None:
    """Write a temporary table and rename it in one transaction; readers see the old one until then."""
    table = _identifier(target)
    # In the same schema as the target.
    making = sql.Identifier(*_parts(target)[:-1], f"isospace_{secrets.token_hex(6)}")
    with store_errors(target, psycopg.Error), _connect(target) as connection:
        _require_extension(connection, target)
        pgvector.psycopg.register_vector(connection)
        connection.execute(_create(making, source.record.dimension))
        _copy(connection, making, source)
        connection.execute(_comment(making, source.record))
        if replace:
            connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
        name = sql.Identifier(_parts(target)[-1])
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(making, name))


def read_record(target: Target) -> ExportRecord:
    """Read the record of the export."""
    with store_errors(target, psycopg.Error), _connect(target) as connection:
        row = _fetch_row(
            connection, "SELECT to_regclass(%(name)s)::oid, obj_description(to_regclass(%(name)s), 'pg_class')", target
        )
    if row[0] is None:
        raise NotFoundError(f"{target}: holds no export. Export a snapshot to it first.")
    try:
        body = json.loads(row[1] or "")[KEY]
    except (ValueError, KeyError, TypeError) as error:
        raise incomplete(target, "is a table whose comment is not a record") from error
    return parse_record(body, target)


def verify(target: Target, record: ExportRecord) -> None:
    """Check the columns, the dimension of the vectors, and the number of rows."""
    expected = {**_COLUMNS, "vector": f"vector({record.dimension})"}
    columns = (
        "SELECT json_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute "
        "WHERE attrelid = to_regclass(%(name)s) AND attnum > 0 AND NOT attisdropped"
    )
    with store_errors(target, psycopg.Error), _connect(target) as connection:
        actual = _fetch_row(connection, columns, target)[0] or {}
        ((rows,),) = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(_identifier(target))).fetchall()
    # A type outside the search path is shown with its schema.
    differing = [name for name, kind in expected.items() if actual.get(name, "").rpartition(".")[2] != kind]
    if differing:
        name = differing[0]
        raise changed_export(target, f"column {name} is {actual.get(name, 'missing')}", expected[name])
    if rows != record.rows:
        raise changed_export(target, f"has {rows} rows", str(record.rows))


def _connect(target: Target) -> _Connection:
    """Connect to the database; used as a context manager, the connection is one transaction.

    Raises
    ------
    StoreError
        If the server cannot be reached, or refuses the user or the database.
    """
    try:
        limit = psycopg.conninfo.conninfo_to_dict(target.place).get("connect_timeout", _CONNECT_SECONDS)
        return psycopg.connect(target.place, application_name="isospace", connect_timeout=limit)
    except psycopg.OperationalError as error:
        reason = " ".join(str(error).split()).partition(" Is the server running")[0].rstrip(".")
        raise StoreError(f"{target}: {reason}. {_remedy(reason)}") from error


def _remedy(reason: str) -> str:
    """Return what to do about a failed connection, given PostgreSQL's reason."""
    if "password" in reason or "authentication" in reason or "pg_hba" in reason or "role" in reason:
        return "Correct user and password: in the URL, in PGPASSWORD, or in ~/.pgpass."
    if "database" in reason and "does not exist" in reason:
        return "Create the database, or correct its name."
    return "Start the server, or correct host and port; nothing was exported."


def _parts(target: Target) -> list[str]:
    """Return the name of the table, or its schema and name."""
    parts = target.name.split(".", maxsplit=1)
    if long := [part for part in parts if not 0 < len(part.encode()) <= _LONGEST_NAME]:
        raise ConfigError(
            f"target {target}: the name {long[0]!r} has {len(long[0].encode())} bytes; expected 1 to {_LONGEST_NAME}. "
            "Choose another."
        )
    return parts


def _identifier(target: Target) -> sql.Identifier:
    return sql.Identifier(*_parts(target))


def _fetch_row(connection: _Connection, query: LiteralString, target: Target) -> tuple[Any, ...]:
    """Run a query about the target's table, and return the one row of the result."""
    name = _identifier(target).as_string(connection)
    return connection.execute(query, {"name": name}).fetchone() or (None,)


def _require_extension(connection: _Connection, target: Target) -> None:
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
        return
    try:
        connection.execute("CREATE EXTENSION vector")
    except psycopg.Error as error:
        raise StoreError(
            f"{target}: the database lacks the extension `vector`, and creating it failed "
            f"({str(error).splitlines()[0]}). Install pgvector on the server, and run CREATE EXTENSION vector as the "
            "database owner."
        ) from error


def _create(table: sql.Identifier, dimension: int) -> sql.Composed:
    kinds = {**_COLUMNS, "chunk_id": "text PRIMARY KEY", "vector": f"vector({dimension})"}
    columns = [sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind)) for name, kind in kinds.items()]
    return sql.SQL("CREATE TABLE {} ({})").format(table, sql.SQL(", ").join(columns))


def _comment(table: sql.Identifier, record: ExportRecord) -> sql.Composed:
    body = json.dumps({KEY: record.model_dump(mode="json")}, sort_keys=True)
    return sql.SQL("COMMENT ON TABLE {} IS {}").format(table, sql.Literal(body))


def _copy(connection: _Connection, table: sql.Identifier, source: Source) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, _COLUMNS))
    statement = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT BINARY)").format(table, columns)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(_COLUMNS.values()))
        for batch in source.batches():
            for row in _rows(batch):
                copy.write_row(row)


def _rows(batch: Batch) -> Iterator[tuple[Any, ...]]:
    for row, vector in zip(batch.rows.to_pylist(), batch.vectors, strict=True):
        metadata = Jsonb(portable(row.pop("metadata")))
        yield *row.values(), metadata, vector
