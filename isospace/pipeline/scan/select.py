"""Apply a selection to the source and to the collection, so that the comparison sees only selected documents."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from isospace.collection.snapshot import Manifest
from isospace.errors import ConfigError, QueryError
from isospace.ingest.metadata_types import MetadataType
from isospace.pipeline.selection import Selection
from isospace.search.filters import apply_filter, parse_filter
from isospace.search.metadata import (
    columns_of,
    count_values,
    hidden_column,
    instants_column,
    metadata_columns,
    parse_metadata,
)
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# A filter means the same here as in a search: these are the document's own, whatever its metadata call theirs.
_OWN = ("doc_id", "uri", "title")
_OWN_SCHEMA = pa.schema([(name, pa.string()) for name in _OWN])
_COLUMNS = [*_OWN, "metadata"]


def select_documents(
    connection: DuckDBPyConnection,
    selection: Selection,
    types: Mapping[str, MetadataType],
    store: Store,
    base: Manifest | None,
    staged: Sequence[Path],
) -> None:
    """Move documents that are not selected from the table `staged` to the table `elsewhere`.

    That table also lists the documents of the base that are not selected: they stay as they are.

    Raises
    ------
    ConfigError
        If no document has a field that the selection refers to.
    """
    connection.execute("CREATE TABLE elsewhere (doc_id VARCHAR)")
    if not selection.is_partial:
        return
    old = _written_before(connection, selection, store, base)
    tables = [pq.read_table(path, columns=_COLUMNS) for path in staged]
    _load_chosen(connection, "chosen", _choose(tables, selection, types, old))
    connection.execute("INSERT INTO elsewhere SELECT doc_id FROM staged ANTI JOIN chosen USING (part, row)")
    connection.execute("DELETE FROM staged WHERE (part, row) NOT IN (SELECT part, row FROM chosen)")
    if base is None:
        return
    tables = [read_parquet(store, part.documents.path, columns=_COLUMNS) for part in base.parts]
    chosen: list[tuple[int, int]] = []
    # A field that no document of the collection has selects none of them.
    with contextlib.suppress(ConfigError):
        chosen = list(_choose(tables, selection, types, old))
    _load_chosen(connection, "chosen_base", iter(chosen))
    connection.execute("INSERT INTO elsewhere SELECT doc_id FROM base ANTI JOIN chosen_base USING (part, row)")


def order_documents(
    connection: DuckDBPyConnection, selection: Selection, types: Mapping[str, MetadataType], staged: Sequence[Path]
) -> None:
    """Create the table `priority`: part, row, and rank of every staged document, first documents first.

    Raises
    ------
    ConfigError
        If no document has the field.
    """
    connection.execute("CREATE TABLE priority (part INTEGER, row INTEGER, rank BIGINT)")
    if selection.order_by is None:
        connection.execute("INSERT INTO priority SELECT part, row, row_number() OVER (ORDER BY part, row) FROM staged")
        return
    name = selection.order_by.removeprefix("-")
    direction = "DESC" if selection.order_by.startswith("-") else "ASC"
    tables = [pq.read_table(path, columns=_COLUMNS) for path in staged]
    columns = _columns(tables, types)
    if name not in columns:
        raise ConfigError(f"runtime.selection.order_by {selection.order_by!r}: {_unknown_field(name, columns)}")
    part, row = _places(tables)
    keys = pa.table({"part": part, "row": row, "key": columns.get(instants_column(name), columns[name])})
    connection.register("keys", keys)
    connection.execute(
        "INSERT INTO priority SELECT part, row, row_number() OVER (ORDER BY key "
        f"{direction} NULLS LAST, part, row) FROM staged LEFT JOIN keys USING (part, row)"
    )
    connection.unregister("keys")


def _written_before(
    connection: DuckDBPyConnection, selection: Selection, store: Store, base: Manifest | None
) -> set[str] | None:
    """Return the documents of parts written before the time of the selection; None if it has no such condition."""
    if selection.embedded_before is None:
        return None
    before = selection.embedded_before.timestamp()
    parts = base.parts if base else ()
    old = [number for number, part in enumerate(parts) if store.stat(part.segment.path).modified < before]
    rows = connection.execute("SELECT doc_id FROM base WHERE list_contains(?, part)", [old]).fetchall()
    return {doc_id for (doc_id,) in rows}


def _choose(
    tables: Sequence[pa.Table], selection: Selection, types: Mapping[str, MetadataType], old: set[str] | None
) -> Iterator[tuple[int, int]]:
    """Yield part and row of the documents that meet every condition."""
    matches = _by_metadata(tables, selection, types)
    wanted = set(selection.doc_ids)
    since, until = (None if at is None else _moment(at) for at in (selection.since, selection.until))
    position = 0
    for number, table in enumerate(tables):
        for row, document in enumerate(table.to_pylist()):
            place, position = position, position + 1
            if (
                (not wanted or document["doc_id"] in wanted)
                and (old is None or document["doc_id"] in old)
                and (selection.uri is None or fnmatchcase(document["uri"], selection.uri))
                and (matches is None or matches[place])
                and ((since is None and until is None) or _is_between(document["metadata"], selection, since, until))
            ):
                yield number, row


def _by_metadata(
    tables: Sequence[pa.Table], selection: Selection, types: Mapping[str, MetadataType]
) -> Sequence[bool] | None:
    if selection.where is None:
        return None
    if not tables:
        return []
    documents = pa.concat_tables([table.select(_OWN).cast(_OWN_SCHEMA) for table in tables])
    for name, column in _columns(tables, types).items():
        documents = documents.append_column(hidden_column(name) if name in _OWN else name, column)
    try:
        mask: Sequence[bool] = apply_filter(parse_filter(selection.where), documents).tolist()
    except QueryError as error:
        raise ConfigError(f"runtime.selection.where: {str(error).replace(', .', '.')}") from error
    return mask


def _columns(tables: Sequence[pa.Table], types: Mapping[str, MetadataType]) -> dict[str, pa.Array]:
    metadata = [parse_metadata(text) for text in _texts(tables)]
    return dict(metadata_columns(metadata, columns_of(count_values(metadata, types), types)))


def _is_between(metadata: str, selection: Selection, since: datetime | None, until: datetime | None) -> bool:
    value = parse_metadata(metadata).get(selection.date_field)
    try:
        at = _moment(str(value))
    except ValueError:
        return False
    return (since is None or at >= since) and (until is None or at < until)


def _moment(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at


def _load_chosen(connection: DuckDBPyConnection, table: str, places: Iterator[tuple[int, int]]) -> None:
    pairs = list(places)
    rows = pa.table(
        {"part": pa.array([p for p, _ in pairs], pa.int32()), "row": pa.array([r for _, r in pairs], pa.int32())}
    )
    connection.register("incoming", rows)
    connection.execute(f"CREATE TABLE {table} AS SELECT * FROM incoming")
    connection.unregister("incoming")


def _texts(tables: Sequence[pa.Table]) -> Iterator[str]:
    for table in tables:
        yield from table["metadata"].to_pylist()


def _places(tables: Sequence[pa.Table]) -> tuple[Any, Any]:
    part = [number for number, table in enumerate(tables) for _ in range(table.num_rows)]
    row = [row for table in tables for row in range(table.num_rows)]
    return pa.array(part, pa.int32()), pa.array(row, pa.int32())


def _unknown_field(name: str, columns: dict[str, Any]) -> str:
    known = ", ".join(sorted(column for column in columns if column.isprintable())) or "none"
    return f"no document has the field {name!r}. Fields: {known}. Add fields with recipe.documents.metadata_columns."
