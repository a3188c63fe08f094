"""Search in the values of a field: in its texts, and in its lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def matches(field: pa.ChunkedArray, wanted: str, *, as_pattern: bool) -> Any:
    """Return where texts are like a pattern of SQL (`%` any characters, `_` one), or contain a text.

    A backslash makes the next character a plain one. Case matters, as in `==`; a missing value is null.
    """
    return pc.match_like(field, wanted) if as_pattern else pc.match_substring(field, wanted)


def contained(value: str | float, field: pa.ChunkedArray, rows: int) -> pa.ChunkedArray:
    """Return where lists hold a value; null for a missing list, and where a missing element might be the value."""
    whole = field.combine_chunks()
    equal = pc.fill_null(pc.equal(whole.flatten(), value), False).to_numpy(zero_copy_only=False)
    parents = pc.list_parent_indices(whole).to_numpy(zero_copy_only=False)
    hits = np.zeros(rows, bool)
    hits[parents[equal]] = True
    unknown = ~whole.is_valid().to_numpy(zero_copy_only=False)
    unknown[parents[pc.is_null(whole.flatten()).to_numpy(zero_copy_only=False)]] = True
    return pa.chunked_array([pa.array(hits, mask=unknown & ~hits)])
