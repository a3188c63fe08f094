"""Typed columns from the documents' metadata, so that filters can compare them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from isospace.ingest.document import read_metadata, without_surrogates
from isospace.ingest.metadata_types import MetadataField, MetadataType, as_type, describe_fields

__all__ = ["hidden_column", "instants_column", "metadata_columns", "parse_metadata", "read_metadata"]

_INT64, _EXACT = 2**63, 2**53
_ARROW: dict[MetadataType, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "text": pa.large_string(),
}


def parse_metadata(text: str) -> dict[str, Any]:
    """Parse metadata as `read_metadata` does; lone surrogates, which UTF-8 cannot encode, become escapes."""
    metadata = read_metadata(text)
    return _printable(metadata) if "\\ud" in text.lower() else metadata


def hidden_column(name: str) -> str:
    """Return the column of a metadata field that is called like a column of documents, such as `title`."""
    return f"\x1f{name}"


def instants_column(name: str) -> str:
    """Return the column of the instants of a metadata field whose texts are timestamps."""
    return f"\x1e{name}"


def metadata_columns(
    rows: Iterable[dict[str, Any]], fields: Sequence[MetadataField] | None = None
) -> Iterator[tuple[str, pa.Array]]:
    """Yield the name and column of each metadata field, sorted by name; one row per document.

    A column of a declared type holds the values of that type; others are null. Without a declaration a column holds
    booleans, int64, doubles, texts, or lists of one of these if all values of the field have that type; otherwise
    texts, with other values written as JSON. If they are timestamps, their instants are a second column. Missing values
    are null.

    Parameters
    ----------
    fields
        What `describe_fields` returns for these rows, or for others with the same types.
    """
    listed = list(rows)
    known = {field.name: field for field in (describe_fields(listed, {}) if fields is None else fields)}
    by_name: dict[str, dict[int, Any]] = {name: {} for name, field in known.items() if field.declared}
    for row, values in enumerate(listed):
        for name, value in values.items():
            # Some writers use NaN for a missing value.
            if value is not None and value == value:
                by_name.setdefault(name, {})[row] = value
    for name, present in sorted(by_name.items()):
        field = known.get(name)
        column = [present.get(row) for row in range(len(listed))]
        if field is not None and field.declared:
            yield name, _declared(column, field.type)
            continue
        column_type = _type(list(present.values()))
        yield name, pa.array([_cast(value, column_type) for value in column], column_type)
        if field is not None and field.type == "timestamp":
            yield instants_column(name), _declared(column, "timestamp")


def _declared(values: list[Any], wanted: MetadataType) -> pa.Array:
    """Return values as a column of a type; what cannot be read so is null."""
    read = [as_type(value, wanted) for value in values]
    if wanted != "list":
        return pa.array(read, _ARROW[wanted])
    inner = _type([item for items in read if items for item in items if item is not None])
    inner = pa.large_string() if pa.types.is_list(inner) else inner
    return pa.array([None if items is None else _cast(items, pa.list_(inner)) for items in read], pa.list_(inner))


def _type(values: list[Any]) -> pa.DataType:
    if values and all(isinstance(value, list) for value in values):
        inner = _type([item for value in values for item in value if item is not None])
        return pa.list_(inner) if not pa.types.is_list(inner) else pa.large_string()
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return pa.bool_()
    # Larger integers would overflow, or be rounded as doubles.
    limit = _INT64 if kinds == {int} else _EXACT
    if not kinds or not kinds <= {int, float} or not all(-limit <= v < limit for v in values if isinstance(v, int)):
        return pa.large_string()
    return pa.int64() if kinds == {int} else pa.float64()


def _cast(value: Any, column_type: pa.DataType) -> Any:
    if value is None:
        return None
    if pa.types.is_list(column_type):
        return [_cast(item, column_type.value_type) for item in value]
    if pa.types.is_large_string(column_type):
        return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return float(value) if pa.types.is_floating(column_type) else value


def _printable(value: Any) -> Any:
    match value:
        case str():
            return without_surrogates(value)
        case list():
            return [_printable(item) for item in value]
        case dict():
            return {without_surrogates(name): _printable(item) for name, item in value.items()}
        case _:
            return value
