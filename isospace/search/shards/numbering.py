"""The numbers of rows: those of a snapshot, and those of a shard.

Both count the live rows in the order of the snapshot's parts, all of them or those of a shard. So they depend on the
snapshot and the number of shards alone: not on how a machine groups the parts, nor on when it was started.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.search.vector.topk import Rows

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class RowTable:
    """Where the rows of a snapshot are.

    Attributes
    ----------
    starts
        (p + 1,) first row of each part that has rows, and the number of all rows.
    homes
        (p,) the place of its shard, from 0.
    firsts
        (p,) its first row within the shard.
    """

    starts: Numbers
    homes: Numbers
    firsts: Numbers

    def __len__(self) -> int:
        return int(self.starts[-1])

    def split(self, rows: Rows) -> tuple[Numbers, Rows]:
        """Return the place of the shard of each int64 row, and the row within it."""
        parts = np.searchsorted(self.starts, rows, side="right") - 1
        return self.homes[parts], rows - self.starts[parts] + self.firsts[parts]

    def joined(self, shard: int, rows: Rows) -> Rows:
        """Return the rows of the snapshot, given rows within a shard; ascending ones stay ascending."""
        parts = np.flatnonzero(self.homes == shard)
        own = parts[np.searchsorted(self.firsts[parts], rows, side="right") - 1]
        return self.starts[own] + rows - self.firsts[own]

    def rows_in(self, shards: Sequence[int]) -> Rows:
        """Return the ascending int64 rows of some shards."""
        ranges = [
            np.arange(self.starts[part], self.starts[part + 1], dtype=np.int64)
            for part in np.flatnonzero(np.isin(self.homes, list(shards)))
        ]
        return np.concatenate([np.zeros(0, np.int64), *ranges])


def row_table(parts: Sequence[tuple[int, int]], shards: int) -> RowTable:
    """Return the table of parts, in their order: the place of the shard of each, and its number of live rows."""
    known = [(shard, count) for shard, count in parts if count]
    homes = np.array([shard for shard, _ in known], np.int64)
    counts = np.array([count for _, count in known], np.int64)
    firsts = np.zeros(len(known), np.int64)
    for shard in range(shards):
        own = homes == shard
        firsts[own] = np.cumsum(counts[own]) - counts[own]
    return RowTable(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), homes, firsts)
