"""The best rows of posting lists, without scoring rows that cannot be among them, and exactly the same rows and scores.

MaxScore: lists come in the order of the most that each can add to a score. Once the lists that are left cannot lift a
row that is in none of the others to the best so far, only rows with a score are looked up in them. Source: Turtle and
Flood, "Query evaluation: strategies and optimizations", 1995. Rows are scored in windows, whose scores stay in the
processor's cache; what is the least score of the best carries over from one window to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
# Rows that are scored at once: the scores of so many stay in the processor's cache.
_WINDOW = 1 << 17
_BLOCK = 1 << 13
# Postings of a word from which it pays to find out whether they can be skipped.
_MANY = 4_096
# A binary search takes about as long as reading so many postings.
_SEARCH = 16
# Sorting the rows that were scored takes about as long as looking at so many scores for each.
_FEW = 64
# A bound is summed in another order than a score; this is far more than what rounding changes over a million words.
_ROUNDING = 1e-9
_POSITIVE = float(np.nextafter(0.0, 1.0))


class PostingList(NamedTuple):
    """The rows that have a word, ascending, how often each has it, and a bound on what the word adds to a score."""

    bound: float
    rows: npt.NDArray[np.int32]
    counts: npt.NDArray[Any]


class Saturation(NamedTuple):
    """Occurrences that add half of a word's bound: `base` for each row, and `per_word` for each word of the row.

    A word that occurs c times in a row of n words adds bound * c / (c + base + per_word * n).
    """

    base: float
    per_word: float


class Best:
    """The best rows so far, with all that tie with the last of them; rows come in ascending order."""

    def __init__(self, count: int) -> None:
        self.count, self.least = count, _POSITIVE
        """Rows with a score below `least` are not among the best."""
        self.rows, self.scores = np.zeros(0, np.int64), np.zeros(0, np.float64)

    def raise_least(self, scores: Scores) -> None:
        """Raise the least score of the best, given scores that other rows have at least."""
        every = np.concatenate([self.scores, scores[scores > self.least]])
        if len(every) >= self.count:
            last = len(every) - self.count
            self.least = max(self.least, float(np.partition(every, last)[last]))

    def add(self, rows: Rows, scores: Scores) -> None:
        """Add rows with their final scores."""
        self.raise_least(scores)
        rows, scores = np.concatenate([self.rows, rows]), np.concatenate([self.scores, scores])
        self.rows, self.scores = rows[scores >= self.least], scores[scores >= self.least]

    def needed(self, rest: float) -> float:
        """Return the score without which a row, to which `rest` can still be added, is not among the best."""
        return self.least * (1.0 - _ROUNDING) - rest


def score_lists(
    lists: Sequence[PostingList],
    lengths: npt.NDArray[np.int32],
    saturation: Saturation,
    found: Best,
    *,
    first: int = 0,
    live: Mask | None = None,
    rows: Rows | None = None,
) -> None:
    """Add the best rows that are in one of the lists to those found.

    Parameters
    ----------
    lists
        By descending bound: the order in which they are added up.
    lengths
        (n,) int32: the words of each row.
    first
        What is added to the numbers of the rows.
    live
        (n,) mask of the rows that can be found; all if None.
    rows
        Ascending int64 rows from 0 to n - 1 that can be found; all if None.
    """
    buffers = _Buffers(min(_WINDOW, len(lengths)))
    for start, occurring in _windows(lists, len(lengths)):
        stop = min(start + _WINDOW, len(lengths))
        chosen = None if rows is None else between(rows, start, stop)
        mask = None if live is None else live[start:stop]
        if chosen is not None and mask is not None:
            chosen = chosen[mask[chosen]]
        # What the lists from each on can add in all; nothing after the last.
        rest = np.append(np.cumsum([one.bound for one in reversed(occurring)])[::-1] * (1.0 + _ROUNDING), 0.0)
        window = _Window(occurring, rest, start, lengths[start:stop], saturation, buffers, found)
        if chosen is None:
            window.score(None if mask is None or mask.all() else mask, first + start)
        elif len(chosen) * _SEARCH < sum(len(one.rows) for one in occurring):
            window.score_some(chosen, first + start)
        else:
            window.score(_mask(chosen, stop - start), first + start)


def between(rows: Rows, start: int, stop: int) -> Rows:
    """Return the rows from `start` to `stop`, of ascending ones, counted from `start`."""
    low, high = np.searchsorted(rows, [start, stop])
    return rows[low:high] - start


class _Buffers:
    """A score and a mark for each row of a window; between windows, all are zero."""

    def __init__(self, rows: int) -> None:
        self.scores = np.zeros(rows, np.float64)
        self.marks = np.zeros(rows, np.bool_)


@dataclass(frozen=True, slots=True)
class _Window:
    """The scoring of one window: its posting lists, and what the lists from each on can add in all."""

    lists: Sequence[PostingList]
    rest: Scores
    first: int
    lengths: npt.NDArray[np.int32]
    saturation: Saturation
    buffers: _Buffers
    found: Best

    def score(self, allowed: Mask | None, start: int) -> None:
        """Score the rows that are allowed, a mask; `start` is the number of the first row in the index."""
        scores, touched, done = self.buffers.scores[: len(self.lengths)], 0, 0
        for one, rest in zip(self.lists, self.rest, strict=False):
            if touched and len(one.rows) >= _MANY and rest < scores.max():
                self.found.raise_least(scores)
            if rest < self.found.least:
                # Rows that have only these words cannot be among the best.
                break
            self._add_all(one, allowed)
            touched, done = touched + len(one.rows), done + 1
        few = touched * _FEW < len(scores)
        needed = max(self.found.needed(float(self.rest[done])), _POSITIVE)
        if few:
            places = self._places(done)
            self._finish(places[scores[places] >= needed], done, start)
            scores[places] = 0.0
        else:
            self._finish(np.flatnonzero(scores >= needed), done, start)
            scores.fill(0.0)

    def score_some(self, places: Rows, start: int) -> None:
        """Score the rows at some places."""
        self._finish(places, 0, start)
        self.buffers.scores[places] = 0.0

    def _finish(self, places: npt.NDArray[Any], done: int, start: int) -> None:
        """Add the words that are not done to the rows at some places, and keep the best of them."""
        scores = self.buffers.scores
        for one, rest in zip(self.lists[done:], self.rest[done:], strict=False):
            own = scores[places]
            self.found.raise_least(own)
            places = places[own >= self.found.needed(float(rest))]
            self._update(one, places)
        own = scores[places]
        best = own >= self.found.least
        self.found.add(places[best].astype(np.int64) + start, own[best])

    def _places(self, done: int) -> npt.NDArray[np.intp]:
        """Return the places of the rows that have one of the first words, ascending."""
        places = np.concatenate([np.zeros(0, np.int32), *(one.rows for one in self.lists[:done])]).astype(np.intp)
        places.sort()
        return places[np.diff(places, prepend=-1) > 0] - self.first

    def _update(self, one: PostingList, places: npt.NDArray[Any]) -> None:
        """Add a word to the rows at some places."""
        if len(places) * _SEARCH < len(one.rows):
            wanted = (places + self.first).astype(np.int32)
            found = np.searchsorted(one.rows, wanted)
            has = one.rows[np.minimum(found, len(one.rows) - 1)] == wanted
            self._add(one.bound, places[has], one.counts[found[has]])
            return
        self.buffers.marks[places] = True
        self._add_all(one, self.buffers.marks)
        self.buffers.marks[places] = False

    def _add_all(self, one: PostingList, allowed: Mask | None) -> None:
        # In blocks, whose temporary arrays are small enough to be allocated fast.
        for start in range(0, len(one.rows), _BLOCK):
            places = one.rows[start : start + _BLOCK].astype(np.intp) - self.first
            counts = one.counts[start : start + _BLOCK]
            if allowed is not None:
                kept = allowed[places]
                places, counts = places[kept], counts[kept]
            self._add(one.bound, places, counts)

    def _add(self, bound: float, places: npt.NDArray[Any], counts: npt.NDArray[Any]) -> None:
        # Always in this order, so that a score does not depend on which rows are scored beside it.
        times = counts.astype(np.float64)
        below = self.lengths[places] * self.saturation.per_word
        below += self.saturation.base
        below += times
        times /= below
        times *= bound
        # Faster than an indexed sum; no place occurs twice.
        np.add.at(self.buffers.scores, places, times)


def _windows(lists: Sequence[PostingList], rows: int) -> Iterator[tuple[int, list[PostingList]]]:
    """Yield the first row of each window that is in a list, with the lists there."""
    firsts = range(0, rows, _WINDOW) if lists else range(0)
    # In the dtype of the rows: NumPy would convert all of them.
    edges = [np.searchsorted(one.rows, np.array([*firsts, rows], np.int32)) for one in lists]
    for window, first in enumerate(firsts):
        parts = [
            PostingList(one.bound, one.rows[start:stop], one.counts[start:stop])
            for one, (start, stop) in zip(lists, (edge[window : window + 2] for edge in edges), strict=True)
        ]
        if occurring := [part for part in parts if len(part.rows)]:
            yield first, occurring


def _mask(places: Rows, length: int) -> Mask:
    mask = np.zeros(length, np.bool_)
    mask[places] = True
    return mask
