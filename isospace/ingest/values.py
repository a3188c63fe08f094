"""Turn values of tables into IDs, titles, texts, and metadata, without guessing.

JSON, CSV, and Parquet give a value in many types. One rule for all of them keeps the ID of a document the same when a
column changes its type: pandas makes integers floats when one of them is missing.
"""

from __future__ import annotations

import datetime
import uuid
from decimal import Decimal
from typing import Any

from isospace.ingest.document import MAX_METADATA_DEPTH, nests_deeper
from isospace.ingest.parsers.parsed import UnreadableError

# A larger float is not the integer that somebody wrote.
_EXACT = 2**53
_KINDS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    (bool, "a boolean"),
    (dict, "an object"),
    ((list, tuple), "a list"),
    (bytes, "binary data that are not UTF-8"),
)


def id_text(value: Any, column: str) -> str | None:
    """Return an ID as it is written; None if it is missing: null, NaN, or blank.

    Texts stay as they are. A whole number has the same ID as an integer, a float, and a decimal. MongoDB's
    `{"$oid": "..."}` is the text in it.

    Raises
    ------
    UnreadableError
        If the value is a boolean, a list, an object, or a number that is not exact.
    """
    if isinstance(value, dict) and list(value) == ["$oid"]:
        value = value["$oid"]
    text = _label(value, column, "an ID")
    return text if text is not None and text.strip() else None


def title_text(value: Any, column: str) -> str:
    """Return a title; empty if it is missing.

    Raises
    ------
    UnreadableError
        If the value is a boolean, a list, an object, or a number that is not exact.
    """
    return _label(value, column, "a title") or ""


def body_text(value: Any, column: str) -> str | None:
    """Return a text; None if it is missing. Binary columns without a mark may hold texts in UTF-8.

    Raises
    ------
    UnreadableError
        If the value is anything else.
    """
    value = _decoded(value)
    if _is_missing(value) or isinstance(value, str):
        return None if _is_missing(value) else str(value)
    raise UnreadableError(f"has {type(value).__name__} where text was expected, in the column {column}")


def metadata_value(value: Any, column: str) -> Any:
    """Return a value that JSON can hold and filters can compare: decimals become numbers, binary data text.

    A decimal that no double equals stays as it is written.

    Raises
    ------
    UnreadableError
        If the value holds binary data that are not UTF-8.
    """
    if nests_deeper(value, MAX_METADATA_DEPTH):
        # Its document is quarantined for that.
        return value
    match _decoded(value):
        case bytes():
            raise UnreadableError(f"has binary data that are not UTF-8 in the column {column}")
        case Decimal() as number:
            return _number(number)
        case list() | tuple() as items:
            return [metadata_value(item, column) for item in items]
        case dict() as fields:
            return {str(_decoded(name)): metadata_value(item, column) for name, item in fields.items()}
        case plain:
            return plain


def _label(value: Any, column: str, what: str) -> str | None:
    value = _decoded(value)
    if _is_missing(value):
        return None
    if isinstance(value, float | Decimal):
        value = _whole(value, column, what)
    if isinstance(value, str | int | float | Decimal | uuid.UUID | datetime.date | datetime.time) and not isinstance(
        value, bool
    ):
        return str(value)
    kind = next((name for types, name in _KINDS if isinstance(value, types)), f"a {type(value).__name__}")
    raise UnreadableError(f"has {kind} in the column {column}, where {what} was expected: a text or a number")


def _whole(value: float | Decimal, column: str, what: str) -> int | float | Decimal:
    """Return a whole number as an integer, and any other as it is."""
    is_exact = isinstance(value, Decimal) or abs(value) < _EXACT
    if not is_exact or abs(value) == float("inf"):
        raise UnreadableError(
            f"has the number {value!r} in the column {column}, which is not exact, where {what} was expected; store "
            "it as text"
        )
    return int(value) if value == int(value) else value


def _decoded(value: Any) -> Any:
    if not isinstance(value, bytes | bytearray | memoryview):
        return value
    try:
        return bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        return bytes(value)


def _is_missing(value: Any) -> bool:
    """Return whether a value is null or NaN, which many writers use for null."""
    return value is None or (isinstance(value, float | Decimal) and value != value)


def _number(value: Decimal) -> int | float | str | None:
    if not value.is_finite():
        return None if value.is_nan() else str(value)
    if value == value.to_integral_value() and value.as_tuple().exponent == 0:
        return int(value)
    return float(value) if Decimal(repr(float(value))) == value else str(value)
