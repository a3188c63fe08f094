from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isospace.errors import IntegrityError
from isospace.storage.parquet import read_rows, write_parquet
from isospace.storage.store import open_store


@given(st.integers(1, 90), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_any_run_of_rows_over_any_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, data: st.DataObject
) -> None:
    monkeypatch.setattr("isospace.storage.parquet._ROW_GROUP_ROWS", data.draw(st.integers(1, 40)))
    store = open_store(tmp_path)
    write_parquet(store, "t.parquet", pa.table({"n": range(rows)}), replace=True)
    first = data.draw(st.integers(0, rows - 1))
    count = data.draw(st.integers(1, rows - first))
    assert read_rows(store, "t.parquet", first, count)["n"].to_pylist() == list(range(first, first + count))


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    write_parquet(store, "t.parquet", pa.table({"n": range(1000)}))
    path = tmp_path / "t.parquet"
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match=r"t\.parquet: damaged Parquet"):
        read_rows(store, "t.parquet", 10, 5)
