"""The vectors of the approximate search benchmark: those of a file, and those that replace some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

K, BLOCK = 10, 65_536
Search = Callable[[Any, Any], Any]
"""From (m, k) queries and a parameter to the rows of the hits."""


@dataclass(frozen=True)
class Contestant:
    """An index that is ready, and what building it took.

    Attributes
    ----------
    parameters
        What may be chosen: in each list, recall grows.
    replace
        Delete rows and add others, whose numbers follow; None if the library cannot.
    """

    search: Search
    parameters: Sequence[Sequence[Any]]
    seconds: float
    megabytes: float
    replace: Callable[[Any, Any], None] | None = None


class Rows:
    """The vectors by row number; `added` follow those of the file."""

    def __init__(self, file: Any) -> None:
        self.file, self.added = file, file[:0]
        self.live = np.ones(len(file), bool)

    @property
    def dimension(self) -> int:
        """Number of components."""
        return int(self.file.shape[1])

    def __len__(self) -> int:
        return len(self.file) + len(self.added)

    def __getitem__(self, rows: Any) -> Any:
        """Return float32 vectors of some rows."""
        found = np.empty((len(rows), self.dimension), np.float32)
        is_new = rows >= len(self.file)
        found[~is_new] = self.file[rows[~is_new]]
        found[is_new] = self.added[rows[is_new] - len(self.file)]
        return found

    def sample(self, most: int) -> Any:
        """Return float32 vectors of evenly spaced rows."""
        step = max(1, len(self.file) // most)
        return np.ascontiguousarray(self.file[::step][:most], np.float32)

    def replace(self, deleted: Any, added: Any) -> None:
        """Delete rows, and add others."""
        self.live = np.concatenate([self.live, np.ones(len(added), bool)])
        self.live[deleted] = False
        self.added = added


def blocks(vectors: Any) -> Iterator[Any]:
    """Yield blocks of float32 vectors."""
    for first in range(0, len(vectors), BLOCK):
        yield np.ascontiguousarray(vectors[first : first + BLOCK], np.float32)


def exact_rows(rows: Rows, queries: Any) -> Any:
    """Return the (m, K) live rows nearest to each query."""
    scores, found = np.full((len(queries), K), -2.0, np.float32), np.zeros((len(queries), K), np.int64)
    first = 0
    for part in (rows.file, rows.added):
        for block in blocks(part):
            here = queries @ block.T
            here[:, ~rows.live[first : first + len(block)]] = -2.0
            own = np.argpartition(-here, K - 1, axis=1)[:, :K]
            both = np.concatenate([scores, np.take_along_axis(here, own, 1)], axis=1)
            places = np.concatenate([found, own + first], axis=1)
            order = np.argsort(-both, axis=1)[:, :K]
            scores, found = np.take_along_axis(both, order, 1), np.take_along_axis(places, order, 1)
            first += len(block)
    return found


def anonymous_mb() -> float:
    """Return the anonymous memory of this process."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024
