"""Stored codes, block by block, so that a search never holds the scores of all rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.search.vector.stacked import CodeArray, arrays_of
from isospace.search.vector.topk import GROUP, Rows

# Rows of a block whose codes are converted first, and scores of a block that is used without a copy. With few queries
# the latter has many rows, since every product waits for all of its threads.
_BLOCK_ROWS, _BLOCK_SCORES = 16_384, 2_000_000


def row_blocks(array: CodeArray, rows: Rows | None, queries: int = 0) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield blocks of codes: large ones sized for the number of `queries`, or small ones if that is 0."""
    # Selected rows are copied, so their blocks stay small.
    size = max(_BLOCK_SCORES // queries, _BLOCK_ROWS) if queries and rows is None else _BLOCK_ROWS
    size -= size % GROUP
    if rows is not None:
        for first in range(0, len(rows), size):
            yield first, array[rows[first : first + size]]
        return
    for start, part in arrays_of(array):
        for first in range(0, len(part), size):
            yield start + first, part[first : first + size]


def without_dead(
    blocks: Iterator[tuple[int, npt.NDArray[Any]]], live: npt.NDArray[np.bool_] | None
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Give rows that are not live the lowest score, in blocks of scores that nobody else uses."""
    for first, scores in blocks:
        if live is not None:
            lowest = np.iinfo(scores.dtype).min if scores.dtype.kind == "i" else -np.inf
            scores[:, ~live[first : first + scores.shape[1]]] = lowest
        yield first, scores
