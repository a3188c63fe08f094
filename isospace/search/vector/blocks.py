"""Stored codes, block by block, so that a search never holds the scores of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy.typing as npt

from isospace.search.vector.topk import GROUP, Rows

# Rows of a block whose codes are converted first, and scores of a block that is used without a copy. With few queries
# the latter has many rows, since every product waits for all of its threads.
_BLOCK_ROWS, _BLOCK_SCORES = 16_384, 2_000_000


def row_blocks(array: npt.NDArray[Any], rows: Rows | None, queries: int = 0) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield blocks of codes: large ones sized for the number of `queries`, or small ones if that is 0."""
    total = len(array) if rows is None else len(rows)
    # Selected rows are copied, so their blocks stay small.
    size = max(_BLOCK_SCORES // queries, _BLOCK_ROWS) if queries and rows is None else _BLOCK_ROWS
    size -= size % GROUP
    for first in range(0, total, size):
        part = slice(first, first + size)
        yield first, (array[part] if rows is None else array[rows[part]])
