"""Arrays in a file, in blocks that are read and checked one by one."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError
from isospace.storage.read_ranges import read_ranges
from isospace.storage.store import Store

# Blocks of one request are at most so many bytes apart, and span at most so many. A request to an object store costs
# as much as a megabyte or so.
_LOCAL_GAP, _REMOTE_GAP, _LONGEST = 16 << 10, 1 << 20, 8 << 20

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class Blocks:
    """Where the items of an array are.

    Attributes
    ----------
    path
        The file.
    offset
        Position of the first item in the file.
    item
        Bytes of an item.
    per_block, count
        Items of a block, and in all.
    sums
        (blocks,) uint32: CRC-32 of each block.
    """

    path: str
    offset: int
    item: int
    per_block: int
    count: int
    sums: npt.NDArray[np.uint32]

    def span(self, block: int) -> tuple[int, int]:
        """Return position and length of one block."""
        first = block * self.per_block
        items = min(self.per_block, self.count - first)
        return self.offset + first * self.item, items * self.item


def read_blocks(store: Store, blocks: Blocks, numbers: Numbers) -> bytes:
    """Return the bytes of some blocks, given by number in ascending order, one after the other.

    Raises
    ------
    IntegrityError
        If the sum of a block is another one.
    """
    groups = _groups(blocks, numbers, remote=store.root is None)
    spans = [(blocks.span(group[0])[0], sum(blocks.span(group[-1])) - blocks.span(group[0])[0]) for group in groups]
    kept = []
    for group, (start, _), data in zip(groups, spans, read_ranges(store, blocks.path, spans), strict=True):
        view = memoryview(data)
        for number in group:
            first, length = blocks.span(number)
            block = view[first - start : first - start + length]
            if zlib.crc32(block) != blocks.sums[number]:
                raise IntegrityError(
                    f"{blocks.path}: block {number} has CRC-32 {zlib.crc32(block):08x}, expected "
                    f"{blocks.sums[number]:08x}. The file is damaged: delete it, and the next run makes another."
                )
            kept.append(block)
    return b"".join(kept)


def _groups(blocks: Blocks, numbers: Numbers, *, remote: bool) -> list[Sequence[int]]:
    """Divide numbers of blocks into those of one request each."""
    size = blocks.item * blocks.per_block
    gap, longest = (_REMOTE_GAP if remote else _LOCAL_GAP) // size, max(_LONGEST // size, 1)
    groups: list[list[int]] = []
    for number in numbers.tolist():
        if groups and number - groups[-1][-1] - 1 <= gap and number - groups[-1][0] < longest:
            groups[-1].append(number)
        else:
            groups.append([number])
    return list(groups)
