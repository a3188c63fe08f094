"""Compare a field of mixed values with a constant: by the values that have the constant's type.

CSV has only texts, and one odd value (a year "n.d.", one tag that is a bare text) makes a field of numbers or lists one
of texts. A comparison with a number sees the numbers in such a field, also those that are written as text, and a list
of one for a bare text. The odd value is missing for that comparison.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_INTEGER = r"^\s*[+-]?\d{1,18}\s*$"
# As a double, such an integer would be rounded, and equal to its neighbors.
_INEXACT = r"^\s*[+-]?\d{16,}\.?\s*$"


def is_text(column: Any) -> bool:
    """Return whether a column holds texts, among them other values written as JSON."""
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def as_kind_of(column: pa.ChunkedArray, constant: Any) -> pa.ChunkedArray:
    """Return the values of a column of texts that a constant can be compared with, others as null.

    Parameters
    ----------
    constant
        A boolean, number, or text. A text is compared with the column as it is.

    Returns
    -------
    pa.ChunkedArray
        Booleans, int64, or doubles; the column itself if no value has the type of the constant.
    """
    if not is_text(column) or isinstance(constant, str):
        return column
    found = _booleans(column) if isinstance(constant, bool) else _numbers(column)
    return found if found is not None and found.null_count < len(found) else column


def as_lists(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts as lists of texts, a bare text as a list of one; the column itself if none is a list."""
    if not is_text(column) or not pc.any(pc.starts_with(column, "[")).as_py():
        return column
    lists = [None if text is None else _list(text) for text in column.to_pylist()]
    is_list = any(text is not None and [text] != items for text, items in zip(column.to_pylist(), lists, strict=True))
    return pa.chunked_array([pa.array(lists, pa.list_(pa.large_string()))]) if is_list else column


def _numbers(column: pa.ChunkedArray) -> pa.ChunkedArray | None:
    """Return the numbers; None if some integers are too large to be compared beside fractions."""
    numeric = _where(column, pc.match_substring_regex(column, _NUMBER))
    whole = pc.all(pc.match_substring_regex(numeric, _INTEGER)).as_py()
    if not whole and pc.any(pc.match_substring_regex(numeric, _INEXACT)).as_py():
        return None
    return pc.cast(pc.utf8_trim_whitespace(_without_plus(numeric)), pa.int64() if whole else pa.float64())


def _without_plus(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(column, r"^\s*\+", "")


def _booleans(column: pa.ChunkedArray) -> pa.ChunkedArray:
    lower = pc.utf8_lower(column)
    return pc.equal(_where(lower, pc.is_in(lower, pa.array(["true", "false"], lower.type))), "true")


def _where(column: pa.ChunkedArray, mask: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.if_else(mask, column, pa.scalar(None, column.type))


def _list(text: str) -> list[str]:
    if text.startswith("["):
        with contextlib.suppress(ValueError, RecursionError):
            items = json.loads(text)
            return [item if isinstance(item, str) else json.dumps(item) for item in items if item is not None]
    return [text]
