"""Tables on a local folder and on a server that speaks S3: the same rows, and of large files only what is needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.errors import IntegrityError, NotFoundError, StoreError
from isospace.storage.parquet import (
    create_parquet,
    describe_parquet,
    fixed_binary,
    read_groups,
    read_parquet,
    read_rows,
)
from isospace.storage.parquet import write_parquet as write
from isospace.storage.store import Store
from tests.helpers.faulty_server import FaultyServer

ROWS = 40_000


def vectors(rows: int = ROWS) -> pa.Table:
    """Small keys beside rows that do not compress, as raw vectors are."""
    noise = np.random.default_rng(7).standard_normal((rows, 64), dtype=np.float32)
    return pa.table({"key": pa.array(range(rows), pa.int64()), "vector": fixed_binary(noise)})


def halves(table: pa.Table) -> list[pa.Table]:
    return [table.slice(0, 25_000), table.slice(25_000)]


def test_columns_rows_and_groups_of_a_large_file(store: Store, tmp_path: Path) -> None:
    table = vectors()
    create_parquet(store, "v.parquet", table.schema, halves(table), tmp_path)
    assert read_parquet(store, "v.parquet") == table
    assert read_parquet(store, "v.parquet", columns=["key"])["key"] == table["key"]
    assert read_rows(store, "v.parquet", 16_000, 20_000).to_pylist() == table.slice(16_000, 20_000).to_pylist()
    groups = list(read_groups(store, "v.parquet", ["vector"]))
    assert len(groups) > 2
    assert pa.concat_tables(groups)["vector"].to_pylist() == table["vector"].to_pylist()


def test_a_file_made_in_a_stream_stays_and_leaves_nothing_beside_it(store: Store, tmp_path: Path) -> None:
    table = vectors(100)
    create_parquet(store, "v.parquet", table.schema, [table], tmp_path)
    first = describe_parquet(store, "v.parquet")
    create_parquet(store, "v.parquet", table.schema, [table.slice(50)], tmp_path)
    assert describe_parquet(store, "v.parquet") == first
    assert first.rows == 100
    assert list(tmp_path.glob("*.parquet")) == []


def test_missing_files_columns_and_damage_are_named(store: Store) -> None:
    for read in (
        lambda: read_parquet(store, "no.parquet", columns=["key"]),
        lambda: read_rows(store, "no.parquet", 0, 1),
        lambda: list(read_groups(store, "no.parquet", ["key"])),
    ):
        with pytest.raises(NotFoundError, match=r"no\.parquet"):
            read()
    write(store, "v.parquet", vectors())
    with pytest.raises(IntegrityError, match="lacks the columns other"):
        list(read_groups(store, "v.parquet", ["other"]))
    data = bytearray(store.read("v.parquet"))
    data[len(data) // 2] ^= 1
    store.write("v.parquet", bytes(data))
    with pytest.raises(IntegrityError, match=r"v\.parquet: damaged Parquet"):
        list(read_groups(store, "v.parquet", ["vector"]))


def test_a_column_of_a_large_object_is_fetched_alone(remote: Store, direct: Store, faulty: FaultyServer) -> None:
    size = write(direct, "v.parquet", vectors()).size
    before = faulty.sent
    table = read_parquet(remote, "v.parquet", columns=["key"])
    assert table["key"].to_pylist() == list(range(ROWS))
    assert 0 < faulty.sent - before < size / 4
    assert faulty.count("GET") < 12


def test_a_range_is_asked_for_again_after_faults(remote: Store, direct: Store, faulty: FaultyServer) -> None:
    write(direct, "v.parquet", vectors())
    faulty.refuse(2)
    faulty.cut_body(1, matches=lambda method, _: method == "GET")
    assert read_parquet(remote, "v.parquet", columns=["key"])["key"].to_pylist() == list(range(ROWS))


def test_a_store_that_stays_down_is_not_called_damage(remote: Store, direct: Store, faulty: FaultyServer) -> None:
    write(direct, "v.parquet", vectors())
    faulty.refuse(10_000, status=403, matches=lambda method, _: method == "GET")
    with pytest.raises(StoreError, match="access denied"):
        read_parquet(remote, "v.parquet", columns=["key"])


@pytest.mark.parametrize(("start", "length"), [(0, 10), (3, 4), (6, 4)])
def test_a_range_of_bytes(store: Store, start: int, length: int) -> None:
    store.write("f", b"0123456789")
    assert store.read_range("f", start, length) == b"0123456789"[start : start + length]


def test_a_range_beyond_the_end_is_not_cut_short_in_silence(store: Store) -> None:
    store.write("f", b"0123456789")
    with pytest.raises(StoreError, match="f: the store"):
        store.read_range("f", 6, 8)
