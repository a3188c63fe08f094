from __future__ import annotations

import psycopg
import pytest

from isospace.errors import ConfigError, IntegrityError, StoreError
from isospace.operations.export.export import check_target, export_snapshot
from isospace.search.index import Index
from tests.isospace.operations.export.conftest import Target, execute
from tests.isospace.operations.export.test_export import asked, expected


def test_a_column_of_another_dimension_is_named(index: Index, postgresql: Target) -> None:
    export_snapshot(index, postgresql.url)
    execute(postgresql, "ALTER TABLE {} ALTER COLUMN vector TYPE vector")
    with pytest.raises(IntegrityError, match=r"column vector is vector; its record says vector\(16\)"):
        check_target(postgresql.url)
    execute(postgresql, "ALTER TABLE {} DROP COLUMN metadata")
    with pytest.raises(IntegrityError, match="column metadata is missing"):
        check_target(postgresql.url)


def test_readers_see_the_old_rows_until_the_new_ones_are_there(
    index: Index, other: Index, postgresql: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isospace.operations.export import pgvector as pgvector_table

    export_snapshot(index, postgresql.url)
    seen = []
    comment = pgvector_table._comment

    def looked(*args: object) -> object:
        seen.extend(row["chunk_id"] for row in postgresql.search(asked(index), 10))
        return comment(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(pgvector_table, "_comment", looked)
    export_snapshot(other, postgresql.url, replace=True)
    assert seen == expected(index)


def test_a_table_that_others_depend_on_stays(index: Index, postgresql: Target) -> None:
    export_snapshot(index, postgresql.url)
    execute(postgresql, "CREATE VIEW pg_temp.v AS SELECT 1")
    schema = postgresql.url.rpartition("#")[2].partition(".")[0].replace('"', '""')
    execute(postgresql, f'CREATE VIEW "{schema}".v AS SELECT chunk_id FROM {{}}')
    with pytest.raises(StoreError, match="depend"):
        export_snapshot(index, postgresql.url, replace=True)
    check_target(postgresql.url)


@pytest.mark.parametrize("name", ["x" * 64, "schema." + "x" * 64, "ü" * 32, ".x", "x."])
def test_a_name_that_postgresql_would_cut_off_is_refused(index: Index, postgresql: Target, name: str) -> None:
    with pytest.raises(ConfigError, match="expected 1 to 63"):
        export_snapshot(index, f"{postgresql.url.rpartition('#')[0]}#{name}")


def test_a_name_without_a_schema_is_found_where_the_server_looks(index: Index, postgresql: Target) -> None:
    dsn, _, name = postgresql.url.rpartition("#")
    table = name.partition(".")[0]
    quoted = '"' + table.replace('"', '""') + '"'
    try:
        export_snapshot(index, f"{dsn}#{table}")
        check_target(f"{dsn}#{table}")
    finally:
        with psycopg.connect(dsn) as connection:
            connection.execute(f"DROP TABLE IF EXISTS public.{quoted}".encode())
