"""The postings of a published group: its words are fetched on first use, lists of rows by blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from isospace.search.postings import Postings
from isospace.search.remote.blocks import unpack_array
from isospace.search.remote.layout import POSTINGS_BLOCK, VOCABULARY

if TYPE_CHECKING:
    from isospace.search.remote.group import RemoteGroup

_DTYPES = {"words": np.uint8, "word_ends": np.int64, "starts": np.int64, "lengths": np.int32}


class RemotePostings:
    """Answers as `isospace.search.postings.Postings` does; `len` reads nothing."""

    def __init__(self, group: RemoteGroup) -> None:
        self._group = group

    def __len__(self) -> int:
        return len(self._group)

    @functools.cached_property
    def _vocabulary(self) -> Postings:
        file = self._group.file("words")
        data = self._group.reader.read([(file, number) for number in range(len(VOCABULARY))])
        arrays = {name: unpack_array(one, _DTYPES[name]) for name, one in zip(VOCABULARY, data, strict=True)}
        return Postings(**arrays, rows=np.zeros(0, np.int32), counts=np.zeros(0, np.uint8))

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """(n,) int32: the number of words in each row."""
        return self._vocabulary.lengths

    def find(self, word: str) -> int | None:
        """Return the number of a word; None if no row has it."""
        return self._vocabulary.find(word)

    def load(self, chosen: Iterable[int]) -> None:
        """Fetch the postings of words, in parallel, before `of` reads one after the other."""
        file = self._group.file("postings")
        blocks = sorted({block for number in chosen for block in self._blocks(number)})
        self._group.reader.read([(file, block) for block in blocks])

    def of(self, number: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[Any]]:
        """Return the rows that have a word, ascending, and how often each has it."""
        start, end = (int(place) for place in self._vocabulary.starts[number : number + 2])
        blocks = self._blocks(number)
        file, width = self._group.file("postings"), int(self._group.index["words.count_bytes"][0])
        rows, counts = [], []
        for data in self._group.reader.read([(file, block) for block in blocks]):
            count = len(data) // (4 + width)
            rows.append(np.frombuffer(data, "<i4", count))
            counts.append(np.frombuffer(data, f"<u{width}", count, 4 * count))
        first = start - blocks.start * POSTINGS_BLOCK
        own = slice(first, first + end - start)
        return np.concatenate(rows)[own], np.concatenate(counts)[own]

    def _blocks(self, number: int) -> range:
        start, end = (int(place) for place in self._vocabulary.starts[number : number + 2])
        return range(start // POSTINGS_BLOCK, -(-end // POSTINGS_BLOCK))
