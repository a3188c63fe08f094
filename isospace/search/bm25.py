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
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from isospace.errors import IntegrityError
from isospace.search.maxscore import Best, Mask, PostingList, Rows, Saturation, Scores, between, score_lists
from isospace.search.postings import Postings
from isospace.search.remote.postings import RemotePostings
from isospace.search.spec import LexicalSpec
from isospace.search.words import query_weights


@dataclass(frozen=True, slots=True)
class _Term:
    """A word of a query: the most it adds to a score, and its number in each group."""

    bound: float
    numbers: tuple[int | None, ...]


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
        terms, found = self._terms(text) if count > 0 else [], Best(count)
        edges = [int(row) for row in self._firsts]
        for group, (postings, (start, stop)) in enumerate(zip(self.groups, pairwise(edges), strict=True)):
            score_lists(
                [
                    PostingList(term.bound, *postings.of(number))
                    for term in terms
                    if (number := term.numbers[group]) is not None
                ],
                postings.lengths,
                self._saturation,
                found,
                first=start,
                live=None if self.live is None else self.live[start:stop],
                rows=None if rows is None else between(rows, start, stop),
            )
        return found.rows, found.scores

    def share(self, word: str) -> float:
        """Return the share of the live chunks that contain a word, as the index holds it."""
        numbers = [postings.find(word) for postings in self.groups]
        return self._frequency(numbers) / self._chunks if self._chunks else 0.0

    def _terms(self, text: str) -> list[_Term]:
        """Return the words of a query that live rows have, those that add most first."""
        found = []
        weights = query_weights(text, self.spec)
        numbers_of = {word: tuple(postings.find(word) for postings in self.groups) for word in weights}
        for place, postings in enumerate(self.groups):
            postings.load([number for own in numbers_of.values() if (number := own[place]) is not None])
        for word, times in weights.items():
            numbers = numbers_of[word]
            if frequency := self._frequency(numbers):
                idf = math.log1p((self._chunks - frequency + 0.5) / (frequency + 0.5))
                found.append((-times * idf, word, _Term(times * idf, numbers)))
        return [term for _, _, term in sorted(found, key=lambda one: one[:2])]

    def _frequency(self, numbers: Sequence[int | None]) -> int:
        """Return how many live rows have a word, given its number in each group."""
        total = 0
        for postings, dead, number in zip(self.groups, self._dead, numbers, strict=True):
            if number is not None:
                rows, _ = postings.of(number)
                total += len(rows) - _common(rows, dead)
        return total

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
    def _chunks(self) -> int:
        """The number of live rows."""
        return int(self._firsts[-1]) - sum(map(len, self._dead))

    @functools.cached_property
    def _saturation(self) -> Saturation:
        words = sum(
            int(postings.lengths.sum(dtype=np.int64)) - int(postings.lengths[dead].sum(dtype=np.int64))
            for postings, dead in zip(self.groups, self._dead, strict=True)
        )
        average = words / self._chunks if words else 1.0
        return Saturation(self.spec.k1 * (1.0 - self.spec.b), self.spec.k1 * self.spec.b / average)


def _common(rows: npt.NDArray[np.int32], dead: npt.NDArray[np.int32]) -> int:
    """Return how many rows two ascending arrays have in common; the shorter is looked up in the longer."""
    short, long = (rows, dead) if len(rows) < len(dead) else (dead, rows)
    if not len(short):
        return 0
    found = np.minimum(np.searchsorted(long, short), len(long) - 1)
    return int(np.count_nonzero(long[found] == short))
