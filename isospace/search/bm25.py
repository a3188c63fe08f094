"""BM25 over the chunks of a snapshot, computed in float64 from postings when a query comes.

A word w that occurs `count` times in a row of `length` words adds

    idf(w) * count / (count + k1 * (1 - b + b * length / average)),   idf(w) = ln(1 + (N - df + 0.5) / (df + 0.5)),

where N, `average`, and df (the rows with w) count all live rows, however they are grouped. This is Lucene's variant.
Sources: Robertson and Zaragoza, "The probabilistic relevance framework: BM25 and beyond", 2009; Kamphuis et al., "Which
BM25 do you mean?", 2020.

Words are added up in the order of the most that each can add, so that a score depends on the row, the query, and the
live rows alone. Rows that cannot be among the best are skipped (`isospace.search.maxscore`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError
from isospace.search.maxscore import Best, Mask, PostingList, Rows, Saturation, Scores, between, score_lists
from isospace.search.postings import Postings
from isospace.search.remote.postings import RemotePostings
from isospace.search.spec import LexicalSpec
from isospace.search.words import query_weights


class WordIndex(Protocol):
    """What searches by words, here or in other processes."""

    @property
    def spec(self) -> LexicalSpec:
        """The rules for words, k1, and b."""
        ...

    def best(self, text: str, count: int, rows: Rows | None = None) -> tuple[Rows, Scores]:
        """Return the best rows for a query; see `LexicalIndex.best`."""
        ...

    def share(self, word: str) -> float:
        """Return the share of the live chunks that contain a word."""
        ...


@dataclass(frozen=True, slots=True)
class Weighted:
    """A word of a query, and the most that it adds to a score."""

    word: str
    bound: float


@dataclass(frozen=True, slots=True)
class Extent:
    """How many live chunks there are, and how many words these have."""

    chunks: int
    words: int


def weighted_words(
    text: str, spec: LexicalSpec, chunks: int, frequencies: Callable[[Sequence[str]], Sequence[int]]
) -> list[Weighted]:
    """Return the words of a query that live chunks have, those that add most first.

    Parameters
    ----------
    chunks
        Number of live chunks of the snapshot.
    frequencies
        Returns how many live chunks have each of some words.
    """
    counted = query_weights(text, spec)
    found = []
    for (word, times), frequency in zip(counted.items(), frequencies(list(counted)), strict=True):
        if frequency:
            idf = math.log1p((chunks - frequency + 0.5) / (frequency + 0.5))
            found.append(Weighted(word, times * idf))
    return sorted(found, key=lambda one: (-one.bound, one.word))


def saturation_of(spec: LexicalSpec, extent: Extent) -> Saturation:
    """Return how the count of a word and the length of its chunk saturate in a snapshot of some extent."""
    average = extent.words / extent.chunks if extent.words else 1.0
    return Saturation(spec.k1 * (1.0 - spec.b), spec.k1 * spec.b / average)


@dataclass(frozen=True, eq=False)
class LexicalIndex:
    """An opened BM25 index.

    Attributes
    ----------
    spec
        The rules for words, k1, and b.
    groups
        Postings of consecutive rows: the rows of each group follow those of the one before.
    live
        (n,) mask of the rows that count and can be found; None if all do.

    Raises
    ------
    IntegrityError
        If `live` has another length than the groups have rows.
    """

    spec: LexicalSpec
    groups: Sequence[Postings | RemotePostings]
    live: Mask | None = None

    def __post_init__(self) -> None:
        if self.live is not None and self.live.shape != (self._firsts[-1],):
            raise IntegrityError(
                f"lexical index: its mask of live rows has the shape {self.live.shape}, expected "
                f"({self._firsts[-1]},). Delete the local copy."
            )

    def best(self, text: str, count: int, rows: Rows | None = None) -> tuple[Rows, Scores]:
        """Return the best rows for a query that share a word with it, and all that tie with the last of them.

        Parameters
        ----------
        text
            The query.
        count
            How many rows are wanted.
        rows
            Ascending int64 rows to choose from; all if None. Scores do not depend on them.

        Returns
        -------
        rows, scores
            (m,) int64, ascending, and (m,) float64. A score depends on the row, the query, and the live rows alone.
        """
        words = weighted_words(text, self.spec, self.extent.chunks, self.frequencies) if count > 0 else []
        return self.best_for(words, self._saturation, count, rows)

    def best_for(
        self, words: Sequence[Weighted], saturation: Saturation, count: int, rows: Rows | None = None
    ) -> tuple[Rows, Scores]:
        """Return what `best` does for weighted words, in their order; they may be weighted by more rows than these."""
        found = Best(count)
        edges = [int(row) for row in self._firsts]
        for group, (postings, (start, stop)) in enumerate(zip(self.groups, pairwise(edges), strict=True)):
            score_lists(
                [
                    PostingList(one.bound, *postings.of(number))
                    for one in words
                    if (number := self._numbers(one.word)[group]) is not None
                ],
                postings.lengths,
                saturation,
                found,
                first=start,
                live=None if self.live is None else self.live[start:stop],
                rows=None if rows is None else between(rows, start, stop),
            )
        return found.rows, found.scores

    def share(self, word: str) -> float:
        """Return the share of the live chunks that contain a word, as the index holds it."""
        chunks = self.extent.chunks
        return self.frequencies([word])[0] / chunks if chunks else 0.0

    def frequencies(self, words: Sequence[str]) -> list[int]:
        """Return how many live rows have each word."""
        numbers = [self._numbers(word) for word in words]
        self._load(numbers)
        return [self._frequency(own) for own in numbers]

    def _load(self, numbers: Sequence[tuple[int | None, ...]]) -> None:
        """Read the postings of some words together, where reading takes a request."""
        for place, postings in enumerate(self.groups):
            postings.load([number for own in numbers if (number := own[place]) is not None])

    def _frequency(self, numbers: Sequence[int | None]) -> int:
        """Return how many live rows have a word, given its number in each group."""
        total = 0
        for postings, dead, number in zip(self.groups, self._dead, numbers, strict=True):
            if number is not None:
                rows, _ = postings.of(number)
                total += len(rows) - _common(rows, dead)
        return total

    @functools.cached_property
    def _numbers(self) -> Callable[[str], tuple[int | None, ...]]:
        """Return the number of a word in each group; those of the last words are kept."""
        # Of the groups alone: it must not keep the index alive.
        groups = self.groups
        return functools.lru_cache(maxsize=4_096)(lambda word: tuple(postings.find(word) for postings in groups))

    @functools.cached_property
    def _firsts(self) -> Rows:
        """The first row of each group, and the number of all rows."""
        return np.cumsum([0, *map(len, self.groups)], dtype=np.int64)

    @functools.cached_property
    def _dead(self) -> list[npt.NDArray[np.int32]]:
        """The rows of each group that are not live, ascending."""
        if self.live is None:
            return [np.zeros(0, np.int32) for _ in self.groups]
        parts = np.split(self.live, self._firsts[1:-1])
        return [np.flatnonzero(~part).astype(np.int32) for part in parts[: len(self.groups)]]

    @functools.cached_property
    def extent(self) -> Extent:
        """The numbers of live rows and of their words."""
        words = sum(
            int(postings.lengths.sum(dtype=np.int64)) - int(postings.lengths[dead].sum(dtype=np.int64))
            for postings, dead in zip(self.groups, self._dead, strict=True)
        )
        return Extent(int(self._firsts[-1]) - sum(map(len, self._dead)), words)

    @functools.cached_property
    def _saturation(self) -> Saturation:
        return saturation_of(self.spec, self.extent)


def _common(rows: npt.NDArray[np.int32], dead: npt.NDArray[np.int32]) -> int:
    """Return how many rows two ascending arrays have in common; the shorter is looked up in the longer."""
    short, long = (rows, dead) if len(rows) < len(dead) else (dead, rows)
    if not len(short):
        return 0
    found = np.minimum(np.searchsorted(long, short), len(long) - 1)
    return int(np.count_nonzero(long[found] == short))
