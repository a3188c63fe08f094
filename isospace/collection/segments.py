"""Read segments: the vectors and codes of one part in one space, one row per chunk."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pyarrow as pa

from isospace.errors import IntegrityError, MismatchError
from isospace.storage.parquet import from_fixed_binary, metadata_of
from isospace.transform.representations import Float32Spec, RepresentationSpec, code_layout

VECTOR = "vector"

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
