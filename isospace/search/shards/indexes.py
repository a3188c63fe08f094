"""The indexes of shards: words, terms, and cells, with the interfaces of the indexes of one process.

What a score or a choice depends on besides a row is summed over the shards first: the number of chunks with a word, and
the rows of each cell.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.encoding.sparse.embedder import OpenSparseSpace
from isospace.errors import QueryError
from isospace.search.approximate.index import ApproximateIndex, Passing, UnitQuery
from isospace.search.approximate.record import LearnedRecall
from isospace.search.bm25 import Extent, saturation_of, weighted_words
from isospace.search.shards.asking import ChosenRows, Shards, joined, listed
from isospace.search.shards.messages import MessageError, packed, taken, unpacked
from isospace.search.spec import LexicalSpec
from isospace.search.vector.kernels import Codes
from isospace.search.vector.rescoring import Scored
from isospace.search.vector.scoring import Metric
from isospace.search.vector.topk import Rows
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.vectors import Float32

_KEPT_WORDS = 100_000


@dataclass(frozen=True, eq=False)
class ShardedWords:
    """BM25 over all shards: words count by all chunks, wherever these are."""

    shards: Shards
    spec: LexicalSpec
    _counts: dict[str, int] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @functools.cached_property
    def extent(self) -> Extent:
        """The numbers of chunks and of their words."""
        each = [self.shards.layout.each[place].words for place in self.shards.places]
        found = [one for one in each if one is not None]
        return Extent(sum(one.chunks for one in found), sum(one.words for one in found))

    def best(self, text: str, count: int, rows: Any = None) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return the best rows for a query, and all that tie with the last; see `LexicalIndex.best`."""
        words = weighted_words(text, self.spec, self.extent.chunks, self.frequencies)
        if not words or count < 1:
            return np.zeros(0, np.int64), np.zeros(0)
        saturation = saturation_of(self.spec, self.extent)
        body = {
            "words": [one.word for one in words],
            "bounds": packed(np.array([one.bound for one in words], np.float64)),
            "saturation": packed(np.array([saturation.base, saturation.per_word], np.float64)),
            "count": count,
        }
        found = joined(list(self.shards.each("lexical", body, self.shards.found, rows=rows).values()))
        return found.rows, found.scores

    def share(self, word: str) -> float:
        """Return the share of the chunks that contain a word."""
        return self.frequencies([word])[0] / self.extent.chunks if self.extent.chunks else 0.0

    def frequencies(self, words: Sequence[str]) -> list[int]:
        """Return how many chunks have each word; those of the last words are kept."""
        known = {word: self._counts.get(word) for word in words}
        missing = [word for word, count in known.items() if count is None]
        if missing:
            read = self.shards.each(
                "frequencies",
                {"words": missing},
                lambda place, answer: self._checked(place, unpacked(answer, "counts", "<i8", (len(missing),))),
            )
            fresh = dict(zip(missing, np.sum(np.stack(list(read.values())), axis=0).tolist(), strict=True))
            known.update(fresh)
            with self._lock:
                if len(self._counts) > _KEPT_WORDS:
                    self._counts.clear()
                self._counts.update(fresh)
        return [known[word] or 0 for word in words]

    def _checked(self, place: int, counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        most = self.shards.layout.each[place].chunks
        if len(counts) and not (int(counts.min()) >= 0 and int(counts.max()) <= most):
            raise MessageError(f"counts are from {counts.min()} to {counts.max()}, expected 0 to {most}")
        return counts


@dataclass(frozen=True, eq=False)
class ShardedTerms:
    """Sparse vectors of all shards; `space` has the encoder of queries."""

    shards: Shards
    space: OpenSparseSpace | None

    def prepare(self, texts: Sequence[str]) -> None:
        """Encode texts that will be searched next."""
        if self.space is not None:
            for text in texts:
                self.space.query(text)

    def best(self, text: str, count: int, rows: Any = None) -> tuple[Rows, npt.NDArray[np.float64]]:
        """Return rows that share a term with a text, at least the `count` best and all that tie with the last."""
        if self.space is None:
            raise QueryError(
                "the index was opened without its sparse encoder, so that it takes no texts for mode sparse. Open it "
                "with sparse=True."
            )
        terms, impacts = self.space.query(text)
        body = {
            "terms": packed(np.asarray(terms, np.int64)),
            "impacts": packed(np.asarray(impacts, np.int64)),
            "count": count,
        }
        found = joined(list(self.shards.each("sparse", body, self.shards.found, rows=rows).values()))
        return found.rows, found.scores


class ShardedCells(ApproximateIndex):
    """The cells of all shards: cells are chosen by all rows in them, and candidates by the estimates of all."""

    def __init__(self, shards: Shards, quantizer: CellQuantizer, learned: LearnedRecall | None) -> None:
        super().__init__((), quantizer, learned, None)
        self._shards = shards

    @functools.cached_property
    def live_rows(self) -> Passing:
        """All rows."""
        each = [self._shards.layout.each[place].cells for place in self._shards.places]
        counts = np.sum(np.stack([one for one in each if one is not None]), axis=0)
        return Passing(None, counts, len(self._shards))

    def passing(self, rows: Any, keep: bool) -> Passing:
        """Return the counts of rows that the shards know."""
        chosen: ChosenRows = rows
        return Passing(chosen, chosen.cells, len(chosen))

    def ranked_each(
        self, queries: Sequence[UnitQuery], cells: Sequence[npt.NDArray[np.int64]], count: int, bits: Any
    ) -> list[tuple[Rows, Float32]]:
        """Return the rows of some cells with the best estimates of all shards, for each query."""
        body = {
            "count": count,
            "queries": [
                {
                    "turned": packed(query.turned),
                    "cells": packed(np.asarray(visited, np.int64)),
                    "products": packed(query.products[visited]),
                }
                for query, visited in zip(queries, cells, strict=True)
            ],
        }
        each = self._shards.each(
            "cells", body, lambda place, answer: self._estimates(place, answer, len(queries)), rows=bits
        )
        merged = []
        for parts in zip(*each.values(), strict=True):
            rows, estimates = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
            order = np.lexsort((rows, -estimates))[:count]
            merged.append((rows[order], estimates[order]))
        return merged

    def _estimates(self, place: int, answer: dict[str, Any], count: int) -> list[tuple[Rows, Float32]]:
        found = []
        for one in listed(answer, "queries", count):
            rows = self._shards.own_rows(place, one, "rows")
            found.append((rows, unpacked(one, "estimates", "<f4", (len(rows),))))
        return found

    def best_each(
        self, last: Codes, queries: Sequence[UnitQuery], near: Sequence[Rows], count: int, metric: Metric
    ) -> list[Scored]:
        """Return the candidates of each query that may be among the best, with their exact scores."""
        bodies = {}
        for place in self._shards.places:
            own = [self._shards.within(place, rows) for rows in near]
            if any(len(rows) for rows in own):
                asked = [
                    {"vector": packed(np.asarray(query.vector, np.float32)), "rows": packed(rows)}
                    for query, rows in zip(queries, own, strict=True)
                ]
                bodies[place] = {"count": count, "metric": metric, "queries": asked}
        each = self._shards.some(
            bodies,
            "best",
            lambda place, answer: [self._shards.found(place, one) for one in listed(answer, "queries", len(queries))],
        )
        whole = [joined([found[number] for found in each.values()]) for number in range(len(queries))]
        return [(one.rows, one.scores) for one in whole]


def require_known(answer: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return the IDs of an answer that are among those asked for; MessageError if others are."""
    found = taken(answer, "chunk_ids", list)
    if not set(found) <= set(names) or len(set(found)) != len(found):
        raise MessageError("chunk_ids are others than those asked for")
    return list(found)
