"""The column of cells in a segment, and what is refused in its place."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.segments import VECTOR, cell_column, read_cells, wrong_cells
from isospace.errors import IntegrityError
from isospace.storage.parquet import read_parquet, write_parquet
from isospace.storage.store import Store
from isospace.transform.space import Space
from isospace.transform.transform import assign_cells
from tests.helpers.small_space import DIMENSION, small_space, transform

SPACE = small_space(made=transform(cells=16))


def segment(n: int, *, space: Space = SPACE) -> pa.Table:
    vectors = np.random.default_rng(n).normal(size=(n, DIMENSION)).astype(np.float32)
    columns = {"chunk_id": pa.array([str(row) for row in range(n)], pa.string())}
    flat = pa.array(vectors.reshape(-1), pa.float32())
    columns[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, DIMENSION)
    return pa.table({**columns, "cell": cell_column(assign_cells(space.transform, vectors))})


def with_cells(table: pa.Table, column: pa.Array | None) -> pa.Table:
    rest = table.drop_columns("cell")
    return rest if column is None else rest.append_column("cell", column)


@pytest.mark.parametrize("n", [0, 1, 2, 40_000])
def test_cells_come_back_from_parquet(tmp_path, n: int) -> None:
    """Forty thousand rows have several row groups, and so several pieces."""
    from isospace.storage.store import open_store

    store: Store = open_store(str(tmp_path))
    written = segment(n)
    write_parquet(store, "s.parquet", written)
    cells = read_cells(read_parquet(store, "s.parquet"), 16)
    assert (cells.dtype, cells.shape) == (np.dtype("<u2"), (n,))
    assert cells.tolist() == written["cell"].to_pylist()
    assert wrong_cells(read_parquet(store, "s.parquet"), SPACE) == []


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (None, "column cell is missing; the segment has chunk_id, vector"),
        (pa.array([1, 2, 3], pa.int32()), "column cell has the type int32"),
        (pa.array([1, None, 3], pa.uint16()), "uint16 and 1 empty values"),
        (pa.array([1, 16, 3], pa.uint16()), "column cell holds 16; the space has 16 cells"),
    ],
)
def test_a_damaged_column_is_refused(column: pa.Array | None, says: str) -> None:
    table = with_cells(segment(3), column)
    with pytest.raises(IntegrityError, match=says):
        read_cells(table, 16)
    with pytest.raises(IntegrityError, match=says):
        wrong_cells(table, SPACE)


@pytest.mark.parametrize("row", [0, 7, 499])
def test_a_row_with_the_cell_of_another_vector_is_found(row: int) -> None:
    table = segment(500)
    cells = read_cells(table, 16).copy()
    cells[row] = (cells[row] + 1) % 16
    assert wrong_cells(with_cells(table, cell_column(cells)), SPACE) == [row]


def test_of_many_rows_some_are_compared_and_all_are_checked_for_their_range() -> None:
    table = segment(5_000)
    cells = read_cells(table, 16).copy()
    moved = np.roll(cells, 1)
    assert 500 < len(wrong_cells(with_cells(table, cell_column(moved)), SPACE)) <= 1_024
    last = cells.copy()
    last[-1] ^= 1
    assert wrong_cells(with_cells(table, cell_column(last)), SPACE) == [4_999]
    cells[1] = 16
    with pytest.raises(IntegrityError, match="holds 16"):
        wrong_cells(with_cells(table, cell_column(cells)), SPACE)


def test_without_float_vectors_only_the_range_is_checked_and_without_cells_nothing() -> None:
    table = segment(20)
    moved = with_cells(table, cell_column(np.roll(read_cells(table, 16), 1)))
    coarse = small_space(made=transform(representations=["int8"], cells=16))
    assert wrong_cells(moved.drop_columns(VECTOR), coarse) == []
    with pytest.raises(IntegrityError, match="holds 99"):
        wrong_cells(with_cells(table, pa.array([99] * 20, pa.uint16())).drop_columns(VECTOR), coarse)
    assert wrong_cells(table.drop_columns("cell"), small_space()) == []
