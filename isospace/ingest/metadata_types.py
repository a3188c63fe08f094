"""Types of metadata fields: inferred from all values of a field, or declared.

The values stay as they are written; a type says how they are compared. CSV has only texts, so a text that spells a
number, a boolean, or a timestamp counts as one. The type of a field is that of at least 80 % of its values, else text.
A value that cannot be read as the type is odd: comparisons treat it as missing.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

MetadataType: TypeAlias = Literal["boolean", "integer", "number", "timestamp", "list", "text"]

_SHARE = 0.8
_INT64, _EXACT = 2**63, 2**53
# A number with leading zeros is a code: 007 and 7 are different ones.
_INTEGER = re.compile(r"\s*[+-]?(?:0|[1-9]\d{0,17})\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?\s*", re.ASCII)
# ISO 8601, as databases and languages write it: a date, or a date and a time, with or without a zone.
_TIMESTAMP = re.compile(
    r"\s*\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?\s?(?:Z|[+-]\d\d(?::?\d\d)?)?)?\s*", re.ASCII
)
_ZONE_APART = re.compile(r"(?<=\d)\s(?=Z|[+-])")
_FIRST = re.compile(r"\s*[\d.+-]", re.ASCII)
_REDUCED = re.compile(r"\s*(\d{4})(?:-(\d\d))?\s*", re.ASCII)
_READABLE: dict[MetadataType, frozenset[MetadataType]] = {"number": frozenset({"integer", "number"})}


class MetadataField(BaseModel):
    """A metadata field of a snapshot.

    Attributes
    ----------
    declared
        Whether `recipe.documents.metadata_types` names the type; else it was inferred.
    kinds
        How many values are of each type, by their own; missing and blank ones are not counted.
    odd
        How many values cannot be read as the type.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    type: MetadataType
    declared: bool = False
    kinds: dict[MetadataType, int]
    odd: int = 0

    @property
    def values(self) -> int:
        """How many documents have a value."""
        return sum(self.kinds.values())


def describe_fields(
    documents: Iterable[Mapping[str, Any]], declared: Mapping[str, MetadataType]
) -> tuple[MetadataField, ...]:
    """Return every field of documents' metadata, and every declared one, sorted by name."""
    return describe_counts(*count_fields(documents, declared), declared)


def count_fields(
    documents: Iterable[Mapping[str, Any]], declared: Mapping[str, MetadataType]
) -> tuple[dict[str, Counter[MetadataType]], Counter[str]]:
    """Return how many values of each field have each type, and for declared ones how many cannot be read so."""
    kinds: dict[str, Counter[MetadataType]] = {name: Counter() for name in declared}
    odd = Counter[str]()
    for metadata in documents:
        for name, value in metadata.items():
            if is_missing(value):
                continue
            kinds.setdefault(name, Counter())[kind_of(value)] += 1
            if name in declared:
                odd[name] += as_type(value, declared[name]) is None
    return kinds, odd


def describe_counts(
    kinds: Mapping[str, Mapping[MetadataType, int]], odd: Mapping[str, int], declared: Mapping[str, MetadataType]
) -> tuple[MetadataField, ...]:
    """Return the fields of documents, given how many values of each field have each type, sorted by name.

    Parameters
    ----------
    odd
        For fields with a declared type: how many values cannot be read as it.
    """
    counted = {name: Counter(kinds.get(name, {})) for name in {*kinds, *declared}}
    return tuple(
        MetadataField(
            name=name,
            type=declared[name],
            declared=True,
            kinds={kind: count for kind, count in sorted(counts.items()) if count},
            odd=odd.get(name, 0),
        )
        if name in declared
        else _inferred(name, counts)
        for name, counts in sorted(counted.items())
        if counts.total() or name in declared
    )


def is_missing(value: Any) -> bool:
    """Return whether a value is null, NaN, or a blank text, which CSV has for a missing value."""
    if isinstance(value, str):
        return not value or value.isspace()
    return value is None or value != value


def kind_of(value: Any) -> MetadataType:
    """Return the narrowest type of one value; objects count as text."""
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer" if -_INT64 <= value < _INT64 else "text"
        case float():
            return "number"
        case list() | tuple():
            return "list"
        case str():
            return _kind_of_text(value)
        case _:
            return "text"


def as_type(value: Any, wanted: MetadataType) -> Any:
    """Read a value as a type; None if it is missing or cannot be read so.

    Returns
    -------
    bool, int, float, datetime, list or str
        A timestamp has the zone UTC. A bare value is a list of one. Other values than texts are texts as JSON.
    """
    if is_missing(value) and (wanted != "text" or not isinstance(value, str)):
        return None
    match wanted:
        case "boolean":
            return _as_boolean(value)
        case "integer":
            return _as_integer(value)
        case "number":
            return _as_number(value)
        case "timestamp":
            return parse_timestamp(value) if isinstance(value, str) else None
        case "list":
            return _as_list(value)
        case "text":
            return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def parse_timestamp(text: str) -> datetime | None:
    """Parse an ISO 8601 date or timestamp; without a zone it is in UTC, and a date is its first moment."""
    if not _TIMESTAMP.fullmatch(text):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        at = datetime.fromisoformat(_ZONE_APART.sub("", text.strip()))
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return None


def parse_moment(text: str) -> datetime | None:
    """Parse a timestamp as `parse_timestamp` does, or a year or month as its first moment."""
    if not (reduced := _REDUCED.fullmatch(text)):
        return parse_timestamp(text)
    with contextlib.suppress(ValueError):
        return datetime(int(reduced[1]), int(reduced[2] or 1), 1, tzinfo=UTC)
    return None


def _inferred(name: str, counts: Counter[MetadataType]) -> MetadataField:
    total = sum(counts.values())
    numbers: MetadataType = "number" if counts["number"] else "integer"
    candidates: list[MetadataType] = ["boolean", numbers, "timestamp", "list"]
    fitting = {kind: sum(counts[own] for own in _readable(kind)) for kind in candidates}
    best = max(candidates, key=lambda kind: fitting[kind])
    kinds = {kind: count for kind, count in sorted(counts.items()) if count}
    if fitting[best] < _SHARE * total:
        return MetadataField(name=name, type="text", kinds=kinds)
    # A bare value is a list of one.
    odd = 0 if best == "list" else total - fitting[best]
    return MetadataField(name=name, type=best, kinds=kinds, odd=odd)


def _readable(kind: MetadataType) -> frozenset[MetadataType]:
    return _READABLE.get(kind, frozenset({kind}))


def _kind_of_text(text: str) -> MetadataType:
    # Most texts are words, and every commit looks at every value.
    if not _FIRST.match(text):
        return "boolean" if text.strip().lower() in ("true", "false") else "text"
    if _INTEGER.fullmatch(text):
        return "integer"
    if _NUMBER.fullmatch(text):
        return "number"
    return "timestamp" if parse_timestamp(text) is not None else "text"


def _as_boolean(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    lower = value.strip().lower() if isinstance(value, str) else ""
    return lower == "true" if lower in ("true", "false") else None


def _as_integer(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        return int(value) if _INTEGER.fullmatch(value) else None
    if isinstance(value, float) and not (abs(value) < _EXACT and value == int(value)):
        return None
    return int(value) if -_INT64 <= value < _INT64 else None


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str):
        if _INTEGER.fullmatch(value):
            return _as_number(int(value))
        return float(value) if _NUMBER.fullmatch(value) else None
    # A larger integer would be rounded, and equal to its neighbors.
    return float(value) if isinstance(value, float) or abs(value) <= _EXACT else None


def _as_list(value: Any) -> list[Any]:
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    return list(value) if isinstance(value, list | tuple) else [value]
