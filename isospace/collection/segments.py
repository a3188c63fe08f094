"""Read segments: the vectors and codes of one part in one space, one row per chunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.errors import IntegrityError, MismatchError
from isospace.storage.parquet import from_fixed_binary, metadata_of
from isospace.transform.quantizers.cells import CELL_DTYPE, Cells
from isospace.transform.representations import Float32Spec, RepresentationSpec, code_layout
from isospace.transform.space import Space
from isospace.transform.transform import assign_cells

VECTOR = "vector"
CELL = "cell"
# Rows of a segment whose cells are computed again when it is checked.
_CHECKED_CELLS = 1_024

NORM_TOLERANCE = 1e-6


def column_of(spec: RepresentationSpec) -> str:
    """Return the name of a representation's column in a segment."""
    return VECTOR if isinstance(spec, Float32Spec) else spec.name


def read_codes(table: pa.Table, spec: RepresentationSpec, dimension: int) -> npt.NDArray[Any]:
    """Return one representation of a segment as an (n, width) array.

    Raises
    ------
    IntegrityError
        If the column is missing, or its type or width differs from the representation.
    """
    name = column_of(spec)
    dtype, width = code_layout(spec, dimension)
    if name not in table.column_names:
        raise IntegrityError(
            f"column {name} is missing; the segment has {', '.join(table.column_names)}. Restore the segment."
        )
    column = table[name]
    if isinstance(spec, Float32Spec):
        if column.type != pa.list_(pa.float32(), width):
            raise IntegrityError(
                f"column {name} has the type {column.type}, expected {width} float32. Restore the segment."
            )
        flat = column.combine_chunks()
        flat = pa.concat_arrays(flat.chunks) if isinstance(flat, pa.ChunkedArray) else flat
        values: npt.NDArray[Any] = flat.flatten().to_numpy(zero_copy_only=False)
        return values.reshape(len(flat), width)
    if column.type != pa.binary(width * dtype.itemsize):
        raise IntegrityError(
            f"column {name} has the type {column.type}, expected {width * dtype.itemsize} bytes. Restore the segment."
        )
    return from_fixed_binary(column, dtype)


def cell_column(cells: Cells) -> pa.Array:
    """Return (n,) cells as the column `cell` of a segment."""
    return pa.array(cells, pa.uint16())


def read_cells(table: pa.Table, count: int) -> Cells:
    """Return the (n,) uint16 cells of a segment in a space with `count` cells.

    Raises
    ------
    IntegrityError
        If the column is missing, has another type, lacks a value, or holds a number that is no cell of the space.
    """
    if CELL not in table.column_names:
        raise IntegrityError(
            f"column {CELL} is missing; the segment has {', '.join(table.column_names)}. Restore the segment."
        )
    column = table[CELL]
    if column.type != pa.uint16() or column.null_count:
        raise IntegrityError(
            f"column {CELL} has the type {column.type} and {column.null_count} empty values, expected uint16 in each "
            "row. Restore the segment."
        )
    cells: Cells = column.to_numpy().astype(CELL_DTYPE, copy=False)
    if len(cells) and (largest := int(cells.max())) >= count:
        raise IntegrityError(f"column {CELL} holds {largest}; the space has {count} cells. Restore the segment.")
    return cells


def wrong_cells(table: pa.Table, space: Space) -> list[int]:
    """Return rows whose cell is not that of their vector, among some evenly spaced rows.

    All rows are checked for cells that the space does not have. Without float32 vectors, nothing else can be checked
    here: the vector that another representation decodes to may lie in another cell.

    Raises
    ------
    IntegrityError
        If `read_cells` or `read_codes` refuses a column.
    """
    if space.transform.cells is None:
        return []
    cells = read_cells(table, space.transform.cells.count)
    spec = next((one for one in space.record.spec.representations if isinstance(one, Float32Spec)), None)
    if spec is None:
        return []
    rows = np.unique(np.linspace(0, max(len(cells) - 1, 0), min(len(cells), _CHECKED_CELLS)).astype(np.int64))
    vectors = read_codes(table, spec, space.record.dimension)[rows]
    wrong: list[int] = rows[assign_cells(space.transform, vectors) != cells[rows]].tolist()
    return wrong


def require_space(table: pa.Table, path: str, space_id: str) -> None:
    """Check that a segment belongs to a space.

    Raises
    ------
    MismatchError
        If it belongs to another space; names the file and the field.
    """
    recorded = metadata_of(table).get("space_id")
    if recorded != space_id:
        raise MismatchError(
            f"{path}: field space_id is {str(recorded)[:16]}…, expected {space_id[:16]}…. Vectors of another space "
            "cannot be compared with queries of this one: restore the segment, or embed the collection again."
        )
