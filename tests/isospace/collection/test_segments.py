"""Segments: a column has the type and width of its representation, and the file names its space."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.segments import read_codes, require_space
from isospace.errors import IntegrityError, MismatchError
from isospace.storage.parquet import fixed_binary
from isospace.transform.representations import BinarySpec, Float32Spec, Int8Spec

VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)
CODES = np.arange(12, dtype=np.int8).reshape(3, 4)


def vectors_of(array: np.ndarray, kind: pa.DataType | None = None) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1), kind or pa.float32()), array.shape[1])


def test_vectors_and_codes_are_read_as_they_were_written() -> None:
    table = pa.table({"vector": vectors_of(VECTORS), "int8": fixed_binary(CODES)})
    both = pa.concat_tables([table, table.slice(1)])
    assert read_codes(both, Float32Spec(), 4).tolist() == [*VECTORS.tolist(), *VECTORS[1:].tolist()]
    assert read_codes(both, Int8Spec(), 4).tolist() == [*CODES.tolist(), *CODES[1:].tolist()]


@pytest.mark.parametrize(
    "column",
    [
        vectors_of(VECTORS.reshape(6, 2)[:3]),
        vectors_of(np.repeat(VECTORS, 2, axis=1)),
        vectors_of(VECTORS, pa.float64()),
        fixed_binary(VECTORS),
        pa.array(VECTORS.tolist()),
    ],
    ids=["narrow", "wide", "double", "bytes", "lists"],
)
def test_vectors_of_another_type_or_width_are_refused(column: pa.Array) -> None:
    with pytest.raises(IntegrityError, match=r"column vector has the type .*, expected 4 float32"):
        read_codes(pa.table({"vector": column}), Float32Spec(), 4)


@pytest.mark.parametrize("dimension", [3, 8, 2])
def test_codes_of_another_width_are_refused(dimension: int) -> None:
    table = pa.table({"int8": fixed_binary(CODES), "binary": fixed_binary(np.zeros((3, 3), np.uint8))})
    with pytest.raises(IntegrityError, match=f"column int8 has the type .*, expected {dimension} bytes"):
        read_codes(table, Int8Spec(), dimension)
    with pytest.raises(IntegrityError, match=r"column binary has the type .*, expected 1 bytes"):
        read_codes(table, BinarySpec(), dimension)


def test_a_missing_column_is_named_with_those_there_are() -> None:
    with pytest.raises(IntegrityError, match="column int8 is missing; the segment has vector"):
        read_codes(pa.table({"vector": vectors_of(VECTORS)}), Int8Spec(), 4)


@pytest.mark.parametrize("recorded", ["t" * 64, "", None])
def test_a_segment_of_another_space_or_of_none_is_refused(recorded: str | None) -> None:
    table = pa.table({"vector": vectors_of(VECTORS)})
    require_space(table.replace_schema_metadata({"space_id": "s" * 64}), "segments/x", "s" * 64)
    given = table if recorded is None else table.replace_schema_metadata({"space_id": recorded})
    with pytest.raises(MismatchError, match="segments/x: field space_id is"):
        require_space(given, "segments/x", "s" * 64)
