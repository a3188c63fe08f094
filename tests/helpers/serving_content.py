"""What a serving database holds, in an order that does not depend on how it was built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb

from isospace.collection.snapshot import Manifest
from isospace.search.sql_database import serving_files
from isospace.search.sql_record import Layout
from isospace.search.sql_tables import write_all
from isospace.storage.store import Store
from isospace.transform.space import Space


def serving_content(path: Path, query: list[float]) -> dict[str, list[Any]]:
    """Return the schema, the sorted rows of every table and view, and the answers of `nearest` to a query."""
    with duckdb.connect(str(path), read_only=True) as connection:
        names = [row[0] for row in connection.execute("SHOW TABLES").fetchall()]
        return {
            "schema": sorted(repr(row[1:]) for row in connection.execute("DESCRIBE").fetchall()),
            "sql": connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall(),
            **{name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}").fetchall())) for name in names},
            "nearest": connection.execute("SELECT * FROM nearest(?, 1000)", [query]).fetchall(),
        }


def stored(store: Store, manifest: Manifest, tmp_path: Path, query: list[float]) -> dict[str, list[Any]]:
    """Return the content of a snapshot's stored database."""
    path = tmp_path / "stored.duckdb"
    path.write_bytes(store.read(serving_files(manifest)[0]))
    return serving_content(path, query)


def built_from_scratch(
    store: Store, manifest: Manifest, space: Space, layout: Layout, tmp_path: Path, query: list[float]
) -> dict[str, list[Any]]:
    """Return the content of a database that is built from every part."""
    path = tmp_path / "scratch.duckdb"
    path.unlink(missing_ok=True)
    with duckdb.connect(str(path)) as connection:
        write_all(connection, store, manifest, space, layout)
    return serving_content(path, query)
