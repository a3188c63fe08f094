"""Typed columns out of the documents' metadata, so that a filter can compare them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from isospace.ingest.document import without_surrogates

_INT64, _EXACT = 2**63, 2**53


def parse_metadata(text: str) -> dict[str, Any]:
    """Return the JSON values of a document by name; lone surrogates, which no UTF-8 can hold, as escapes."""
    found: dict[str, Any] = json.loads(text)
    return _printable(found) if "\\ud" in text.lower() else found


def metadata_columns(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, pa.Array]]:
    """Yield name and column of each field, sorted by name.

    Parameters
    ----------
    rows
        JSON values by name, a document each; what a document lacks is null.

    Yields
    ------
    tuple
        Booleans, int64, double, texts, or lists of these where all values of a field are alike; otherwise texts, values
        that are none written as JSON.
    """
    count, fields = 0, dict[str, dict[int, Any]]()
    for row, values in enumerate(rows):
        count = row + 1
        for name, value in values.items():
            # NaN is what some writers make of nothing.
            if value is not None and value == value:
                fields.setdefault(name, {})[row] = value
    for name, found in sorted(fields.items()):
        column_type = _type(list(found.values()))
        yield name, pa.array([_cast(found.get(row), column_type) for row in range(count)], column_type)


def _type(values: list[Any]) -> pa.DataType:
    if values and all(isinstance(value, list) for value in values):
        inner = _type([item for value in values for item in value if item is not None])
        return pa.list_(inner) if not pa.types.is_list(inner) else pa.large_string()
    kinds = {type(value) for value in values}
    if kinds == {bool}:
        return pa.bool_()
    # Beyond these a number would be another one.
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
