"""Typed columns from the documents' metadata, so that filters can compare them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from isospace.ingest.document import MAX_METADATA_DEPTH, nests_deeper, without_surrogates

_LOG = logging.getLogger(__name__)
_INT64, _EXACT = 2**63, 2**53


def parse_metadata(text: str) -> dict[str, Any]:
    """Parse metadata as `read_metadata` does; lone surrogates, which UTF-8 cannot encode, become escapes."""
    metadata = read_metadata(text)
    return _printable(metadata) if "\\ud" in text.lower() else metadata


def read_metadata(text: str) -> dict[str, Any]:
    """Parse a document's metadata, whatever they are: one document must not break the answers that hold it.

    Metadata that cannot be parsed are empty. A field that nests deeper than a document may have it is null; only a
    snapshot that an older version wrote can hold one.
    """
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        _LOG.warning("metadata %.80r cannot be parsed (%s); read as empty", text, type(error).__name__)
        return {}
    if not isinstance(metadata, dict):
        _LOG.warning("metadata %.80r are not a JSON object; read as empty", text)
        return {}
    return {name: None if nests_deeper(value, MAX_METADATA_DEPTH) else value for name, value in metadata.items()}


def hidden_column(name: str) -> str:
    """Return the column of a metadata field that is called like a column of documents, such as `title`."""
    return f"\x1f{name}"


def metadata_columns(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, pa.Array]]:
    """Yield the name and column of each metadata field, sorted by name; one row per document.

    A column holds booleans, int64, doubles, texts, or lists of one of these if all values of the field have that type;
    otherwise texts, with other values written as JSON. Missing values are null.
    """
    count, fields = 0, dict[str, dict[int, Any]]()
    for row, values in enumerate(rows):
        count = row + 1
        for name, value in values.items():
            # Some writers use NaN for a missing value.
            if value is not None and value == value:
                fields.setdefault(name, {})[row] = value
    for name, values_by_row in sorted(fields.items()):
        column_type = _type(list(values_by_row.values()))
        yield name, pa.array([_cast(values_by_row.get(row), column_type) for row in range(count)], column_type)


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
