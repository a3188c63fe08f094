"""Typed columns from the documents' metadata, so that filters can compare them.

The type of a column depends on all values of the field. So values are counted by kind (`FieldValues`): the counts of
several groups of documents can be added, and those of deleted documents taken away, without reading the rest again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import pyarrow as pa

from isospace.ingest.document import read_metadata, without_surrogates
from isospace.ingest.metadata_types import MetadataField, MetadataType, as_type, describe_counts, is_missing, kind_of

__all__ = ["FieldValues", "MetadataColumn", "count_values", "metadata_columns", "parse_metadata", "read_metadata"]

_INT64, _EXACT = 2**63, 2**53
_UNFIT = (pa.ArrowException, TypeError, ValueError, OverflowError)
_ARROW: dict[MetadataType, pa.DataType] = {
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "timestamp": pa.timestamp("us", "UTC"),
    "text": pa.large_string(),
}
# Integers beyond 2^53 would be rounded as doubles, and those beyond 2^63 overflow.
_Key = TypeVar("_Key")
_Kind: TypeAlias = Literal["boolean", "integer", "long", "huge", "number", "list", "other"]


@dataclass(frozen=True, slots=True)
class FieldValues:
    """The values of one metadata field, counted.

    Attributes
    ----------
    types
        Values by the narrowest type that each can be read as; missing and blank ones are not counted.
    odd
        For a field with a declared type: how many cannot be read as that type.
    kinds
        Values that are not null by what they are in JSON.
    items
        The same of the items of lists.
    """

    types: Counter[MetadataType] = field(default_factory=Counter)
    odd: int = 0
    kinds: Counter[_Kind] = field(default_factory=Counter)
    items: Counter[_Kind] = field(default_factory=Counter)

    def plus(self, other: FieldValues, sign: int = 1) -> FieldValues:
        """Return both together, or with `sign=-1` this without the other, of whose values it must have all."""
        return FieldValues(
            _sum(self.types, other.types, sign),
            self.odd + sign * other.odd,
            _sum(self.kinds, other.kinds, sign),
            _sum(self.items, other.items, sign),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what `from_dict` takes."""
        return {"types": dict(self.types), "odd": self.odd, "kinds": dict(self.kinds), "items": dict(self.items)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FieldValues:
        """Build it from what `as_dict` returns."""
        return cls(Counter(values["types"]), values["odd"], Counter(values["kinds"]), Counter(values["items"]))


@dataclass(frozen=True, slots=True)
class MetadataColumn:
    """A typed column of a metadata field.

    Attributes
    ----------
    name
        The field.
    type
        Type of the column.
    declared
        The type that the recipe declares for the field; None if it declares none.
    has_instants
        Whether the texts are timestamps, whose instants are a second column.
    """

    name: str
    type: pa.DataType
    declared: MetadataType | None = None
    has_instants: bool = False


def _sum(one: Counter[_Key], other: Counter[_Key], sign: int) -> Counter[_Key]:
    sums = {key: one[key] + sign * other[key] for key in {*one, *other}}
    return Counter({key: count for key, count in sums.items() if count})


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


def count_values(
    rows: Iterable[Mapping[str, Any]], declared: Mapping[str, MetadataType] | None = None
) -> dict[str, FieldValues]:
    """Count the values of each metadata field; `declared` has the types that the recipe declares."""
    types: dict[str, Counter[MetadataType]] = {}
    kinds: dict[str, Counter[_Kind]] = {}
    items: dict[str, Counter[_Kind]] = {}
    odd = Counter[str]()
    known = declared or {}
    for values in rows:
        for name, value in values.items():
            if name not in types:
                types[name], kinds[name], items[name] = Counter(), Counter(), Counter()
            if not is_missing(value):
                types[name][kind_of(value)] += 1
                odd[name] += name in known and as_type(value, known[name]) is None
            if _is_null(value):
                continue
            kinds[name][_kind(value)] += 1
            listed = as_type(value, "list") if known.get(name) == "list" else value
            if isinstance(listed, list):
                items[name].update(_kind(item) for item in listed if item is not None)
    return {name: FieldValues(types[name], odd[name], kinds[name], items[name]) for name in types}


def columns_of(
    values: Mapping[str, FieldValues], declared: Mapping[str, MetadataType] | None = None
) -> tuple[MetadataColumn, ...]:
    """Return the columns of fields with these values, sorted by name.

    A column of a declared type holds the values of that type; others are null. Without a declaration a column holds
    booleans, int64, doubles, texts, or lists of one of these if all values of the field have that type; otherwise
    texts, with other values written as JSON. If they are timestamps, their instants are a second column.
    """
    known = declared or {}
    fields = {one.name: one for one in describe_values(values, known)}
    columns = []
    for name in sorted({*known, *(name for name, counted in values.items() if counted.kinds)}):
        counted = values.get(name, FieldValues())
        if name in known:
            is_list = known[name] == "list"
            own = _list_of(counted.items) if is_list else _ARROW[known[name]]
            columns.append(MetadataColumn(name, own, known[name]))
            continue
        is_timestamp = name in fields and fields[name].type == "timestamp"
        columns.append(MetadataColumn(name, _type(counted.kinds, counted.items), None, is_timestamp))
    return tuple(columns)


def describe_values(
    values: Mapping[str, FieldValues], declared: Mapping[str, MetadataType]
) -> tuple[MetadataField, ...]:
    """Return what `describe_fields` returns for the documents whose values were counted."""
    return describe_counts(
        {name: counted.types for name, counted in values.items()},
        {name: counted.odd for name, counted in values.items()},
        declared,
    )


def metadata_columns(
    rows: Iterable[Mapping[str, Any]], columns: Sequence[MetadataColumn] | None = None
) -> Iterator[tuple[str, pa.Array]]:
    """Yield the name and values of each column; one row per document, missing values are null.

    Parameters
    ----------
    columns
        What `columns_of` returns for these rows, or for more than these; if None, for these.
    """
    listed = list(rows)
    for column in columns_of(count_values(listed)) if columns is None else columns:
        values = [row.get(column.name) for row in listed]
        if column.declared is not None:
            yield column.name, _declared(values, column)
            continue
        yield column.name, _fitting([None if _is_null(value) else value for value in values], column.type)
        if column.has_instants:
            yield instants_column(column.name), _declared(values, MetadataColumn("", _ARROW["timestamp"], "timestamp"))


def _fitting(values: list[Any], column_type: pa.DataType) -> pa.Array:
    """Return values as a column; those of other types are null.

    Only documents that the snapshot does not have can have such values: they decide no type.
    """
    try:
        return pa.array([_cast(value, column_type) for value in values], column_type)
    except _UNFIT:
        return pa.array(
            [_cast(value, column_type) if _fits(value, column_type) else None for value in values], column_type
        )


def _fits(value: Any, column_type: pa.DataType) -> bool:
    try:
        pa.array([_cast(value, column_type)], column_type)
    except _UNFIT:
        return False
    return True


def _declared(values: list[Any], column: MetadataColumn) -> pa.Array:
    """Return values as a column of a declared type; what cannot be read so is null."""
    wanted = column.declared or "text"
    read = [as_type(value, wanted) for value in values]
    if wanted == "list":
        return _fitting(read, column.type)
    return pa.array(read, column.type)


def _is_null(value: Any) -> bool:
    # Some writers use NaN for a missing value.
    return bool(value is None or value != value)


def _kind(value: Any) -> _Kind:
    match value:
        case bool():
            return "boolean"
        case int():
            if -_EXACT <= value < _EXACT:
                return "integer"
            return "long" if -_INT64 <= value < _INT64 else "huge"
        case float():
            return "number"
        case list():
            return "list"
        case _:
            return "other"


def _list_of(items: Counter[_Kind]) -> pa.DataType:
    return pa.list_(pa.large_string() if set(items) == {"list"} else _type(items, Counter()))


def _type(kinds: Counter[_Kind], items: Counter[_Kind]) -> pa.DataType:
    match sorted(kinds):
        case ["list"]:
            return pa.large_string() if set(items) == {"list"} else _list_of(items)
        case ["boolean"]:
            return pa.bool_()
        case ["integer"] | ["long"] | ["integer", "long"]:
            return pa.int64()
        case ["number"] | ["integer", "number"]:
            return pa.float64()
        case _:
            return pa.large_string()


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
