"""Join tables with bounded memory, in a DuckDB scratch database that spills to disk."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from isospace.errors import StoreError
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@contextlib.contextmanager
def scratch_database(folder: Path, *, memory_mb: int) -> Iterator[DuckDBPyConnection]:
    """Open an empty database under `folder` that uses at most `memory_mb` MB; remove it afterwards."""
    import duckdb

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"joins-{secrets.token_hex(6)}.duckdb"
    settings: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": f"{memory_mb}MB",
        "temp_directory": f"{path}.spill",
        "preserve_insertion_order": False,
    }
    connection = duckdb.connect(str(path), config=settings)
    try:
        yield connection
    except duckdb.Error as error:
        reason = " ".join(str(error).split())[:200]
        raise StoreError(
            f"scratch folder {folder}: a join failed ({reason}). Free space there or set TMPDIR to another disk, or "
            "raise runtime.memory_mb, and run the same command again."
        ) from error
    finally:
        connection.close()
        path.unlink(missing_ok=True)


# Files of vectors can be small (a hundred rows), and one insert per file would dominate the run time.
_INSERT_ROWS = 50_000
_ROWS_FETCHED = 10_000


def load_columns(
    connection: DuckDBPyConnection,
    table: str,
    store: Store,
    paths: Sequence[str],
    columns: dict[str, str],
    *,
    on_table: Callable[[str, pa.Table], None] | None = None,
) -> None:
    """Create a table from columns of Parquet files, a few files at a time.

    The table has the columns `part` (position in `paths`), `row`, and `columns`, a mapping of names to DuckDB types.
    `on_table` is given the path and the columns of each file, as they are read.
    """
    fields = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
    connection.execute(f"CREATE TABLE {table} (part INTEGER, row INTEGER, {fields})")
    pending: list[pa.Table] = []
    rows = 0
    for number, path in enumerate(paths):
        read = read_parquet(store, path, columns=list(columns))
        if on_table is not None:
            on_table(path, read)
        pending.append(_numbered(number, read.select(list(columns))))
        rows += pending[-1].num_rows
        if rows >= _INSERT_ROWS:
            _insert(connection, table, pending)
            pending, rows = [], 0
    if pending:
        _insert(connection, table, pending)


def append_rows(connection: DuckDBPyConnection, table: str, number: int, batch: pa.Table) -> None:
    """Append the rows of one file to a table from `load_columns`."""
    _insert(connection, table, [_numbered(number, batch)])


def fetch_rows(result: DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query, a few thousand in memory at a time."""
    while rows := result.fetchmany(_ROWS_FETCHED):
        yield from rows


def _numbered(number: int, batch: pa.Table) -> pa.Table:
    return pa.table(
        {
            "part": pa.repeat(pa.scalar(number, pa.int32()), batch.num_rows),
            "row": pa.array(range(batch.num_rows), pa.int32()),
            **{name: _plain(batch[name]) for name in batch.column_names},
        }
    )


def _insert(connection: DuckDBPyConnection, table: str, batches: Sequence[pa.Table]) -> None:
    connection.register("incoming", pa.concat_tables(batches, promote_options="permissive"))
    connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")
    connection.unregister("incoming")


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.binary()) if pa.types.is_fixed_size_binary(column.type) else column
