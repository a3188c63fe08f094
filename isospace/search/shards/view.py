"""A snapshot whose rows are in shards, searched as one process would search it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import OpenSpace
from isospace.errors import QueryError, ShardError
from isospace.search.approximate.index import Visited
from isospace.search.approximate.record import LearnedRecall
from isospace.search.hits import Missing, Ranking, Visits
from isospace.search.local.copy import LocalCopy
from isospace.search.options import Neighbors, SearchOptions
from isospace.search.percentiles import chance_cosines, sampled
from isospace.search.promise import SnapshotPromise
from isospace.search.rest import Rest
from isospace.search.shards.asking import ChosenRows, Found, Shards, joined, listed
from isospace.search.shards.client import ShardClients
from isospace.search.shards.described import Layout
from isospace.search.shards.indexes import ShardedCells, ShardedTerms, ShardedWords, require_known
from isospace.search.shards.messages import MessageError, packed, texts, unpacked
from isospace.search.sparse_index import TermIndex
from isospace.search.spec import LexicalSpec
from isospace.search.vector.kernels import Codes, Kernels
from isospace.search.vector.rescoring import Candidates, Scored, is_binary, wanted_rows
from isospace.search.vector.scoring import Metric
from isospace.search.vector.topk import Rows
from isospace.search.view import View
from isospace.search.words import missing_for_words
from isospace.transform.vectors import Float32, Float64

_FIELDS = {
    "chunk_id": str,
    "doc_id": str,
    "uri": str,
    "title": str,
    "text": str,
    "metadata": str,
    "start": int,
    "end": int,
    "heading_path": list,
}
_CONTEXT = {"context": str, "context_start": int, "context_end": int}


# What a request may hold of queries, far below what a shard accepts.
_QUERY_BYTES = 4_000_000
_CELL_BYTES, _ROW_BYTES = 12, 8


class _NoCopy:
    """In place of the local copy, which a view of shards does not have."""

    def __getattr__(self, name: str) -> Any:
        raise QueryError(
            f"the index is opened from shards, which hold the rows: {name} of the local copy is not here. Open the "
            "index without shards."
        )


NO_COPY = cast(LocalCopy, _NoCopy())


@dataclass(frozen=True, eq=False, kw_only=True)
class ShardedView(View):
    """A snapshot whose rows are in shards; immutable.

    Attributes
    ----------
    shards
        Those that are searched.
    words
        The rules of the lexical index; None if the snapshot has none.
    siblings
        Views of the same snapshot with other shards missing, by the places of the shards that are searched.
    """

    shards: Shards
    words: LexicalSpec | None = None
    siblings: dict[tuple[int, ...], ShardedView] = field(default_factory=dict, repr=False)

    @property
    def size(self) -> int:
        """Number of chunks that can be found."""
        return len(self.shards)

    @functools.cached_property
    def representations(self) -> tuple[str, ...]:
        """The representations that can be searched."""
        return tuple(self.space.space.transform.quantizers.by_name)

    @functools.cached_property
    def finest(self) -> Codes:
        """The finest representation, without its rows."""
        return self._empty(self.finest_name)

    @functools.cached_property
    def chance(self) -> Float64:
        """Ascending cosines of a sample of pairs of chunks of different documents."""
        rows = sampled(self.shards.rows)
        return chance_cosines(self.vectors_of(rows), self.documents_of(rows))

    @property
    def word_rules(self) -> LexicalSpec | None:
        """The rules of the lexical index; None if the snapshot has none."""
        return self.words

    @functools.cached_property
    def missing(self) -> Missing | None:
        """The shards that are not searched."""
        every = self.shards.layout.each
        left = [one for place, one in enumerate(every) if place not in self.shards.places]
        if not left:
            return None
        total = len(self.shards.layout.table)
        return Missing(tuple(sorted(str(one.shard) for one in left)), len(self.shards) / total if total else 1.0)

    def available(self, without: Set[str] = frozenset()) -> View:
        """Return the view to search now: without the shards that are down, if that is allowed.

        Raises
        ------
        ShardError
            If a shard is down and none may be missing, or if all are down.
        """
        clients = self.shards.clients
        down = {place: problem for place, problem in clients.down().items() if place in self.shards.places}
        down |= {place: "" for place in self.shards.places if clients.each[place].url in without}
        if not down:
            return self
        left = tuple(place for place in self.shards.places if place not in down)
        if not self.allow_partial or not left:
            reason = next((problem for problem in down.values() if problem), "no shard of the collection answers")
            raise ShardError(reason)
        if left not in self.siblings:
            shards = Shards(clients, self.shards.layout, left)
            self.siblings[left] = sharded_view(
                self.manifest,
                self.space,
                self.promise,
                shards,
                self.words,
                self._terms_of(shards),
                self._learned,
                allow_partial=True,
            )
        return self.siblings[left]

    def passing(self, expression: str | None, scope: str | None = None) -> Any:
        """Return the rows that pass a filter and a scope, as the shards know them; None if there is neither."""
        return None if expression is None and scope is None else self.shards.passing(expression, scope)

    def documents_of(self, rows: Rows) -> npt.NDArray[np.integer]:
        """Return a number for each row that is the same for all rows of a document."""
        return np.array([document for _, document in self.shards.identities(rows)], np.int64)

    def chunk_ids(self, rows: Rows) -> list[str]:
        """Return the IDs of the chunks of rows."""
        return [name for name, _ in self.shards.identities(rows)]

    def vectors_of(self, rows: Rows) -> Float32:
        """Return the (m, k) float32 vectors of rows, decoded from the finest representation."""
        codes = self.finest
        dtype, width = codes.array.dtype.str, codes.array.shape[1]
        read = self.shards.of_rows(
            "codes", {}, rows, lambda answer, count: list(unpacked(answer, "codes", dtype, (count, width)))
        )
        stacked = np.stack(read) if read else np.zeros((0, width), codes.array.dtype)
        return codes.quantizer.decode(np.ascontiguousarray(stacked))

    def rows_of(self, chunk_ids: Sequence[str], scope: str | None) -> dict[str, int]:
        """Return the rows of chunks, by ID; those that do not exist, or that a scope hides, are left out."""
        names = list(chunk_ids)
        seen = ChosenRows(self.shards, None, scope) if scope is not None else None

        def read(place: int, answer: dict[str, Any]) -> dict[str, int]:
            found = require_known(answer, names)
            rows = self.shards.own_rows(place, answer, "rows")
            return dict(zip(found, rows.tolist(), strict=True))

        each = self.shards.each("find", {"chunk_ids": names}, read, rows=seen)
        return {name: row for found in each.values() for name, row in found.items()}

    def found(self, rows: Sequence[int], neighbors: Neighbors) -> list[dict[str, Any]]:
        """Return the fields of hits by name, except their scores; metadata as JSON."""
        wanted = {**_FIELDS, **_CONTEXT} if neighbors else _FIELDS

        def read(answer: dict[str, Any], count: int) -> list[dict[str, Any]]:
            return [_checked(one, wanted) for one in listed(answer, "hits", count)]

        return self.shards.of_rows("found", {"neighbors": neighbors}, np.array(rows, np.int64), read)

    def texts(self, rows: Iterable[int]) -> list[str]:
        """Return the texts of rows as they were encoded."""
        wanted = np.array(list(rows), np.int64)
        return self.shards.of_rows("texts", {}, wanted, lambda answer, count: texts(answer, "texts", count))

    def _chosen(self, options: SearchOptions, within: Rows | Rest | None) -> Any:
        if within is None:
            return self.passing(options.filter, options.scope)
        if not isinstance(within, Rest):
            raise QueryError("within: an index that is opened from shards takes no rows. Open it without shards.")
        return ChosenRows(self.shards, options.filter, options.scope, within)

    def _searchable(self, rows: Any) -> Any:
        return rows

    def _near(
        self, vectors: Float32, count: int, rows: Any, options: SearchOptions, *, keep: bool
    ) -> tuple[list[Ranking], Visits]:
        """Search a portion of the queries at a time: all of them may be more than a shard accepts at once."""
        size = vectors.itemsize * vectors.shape[1]
        if self._learned is not None:
            # The cells to visit, and then the candidates.
            candidates = max([count, *(rule.candidates for rule in self._learned.rules)])
            size += _CELL_BYTES * self.shards.cell_count + _ROW_BYTES * candidates
        portion = max(1, _QUERY_BYTES // size)
        ranked: list[Ranking] = []
        visits: list[Visited | None] = []
        for start in range(0, len(vectors), portion):
            found, visited = super()._near(vectors[start : start + portion], count, rows, options, keep=keep)
            ranked += found
            visits += visited
        return ranked, visits

    def nearest(
        self, first: str, last: str, vectors: Float32, count: int, *, metric: Metric, rescore: int, rows: Any
    ) -> list[Scored]:
        """Find the rows nearest to each vector; see `isospace.search.vector.rescoring.nearest`."""
        if metric == "l1":
            # As in one process: the sum of absolute differences has one stage.
            last = first
        body = {
            "first": first,
            "last": last,
            "vectors": packed(np.asarray(vectors, np.float32)),
            "count": count,
            "metric": metric,
            "rescore": rescore,
        }

        def read(place: int, answer: dict[str, Any]) -> list[Found]:
            return [self.shards.found(place, one) for one in listed(answer, "queries", len(vectors))]

        each = list(self.shards.each("nearest", body, read, rows=rows).values())
        searched = self._empty(first)
        # Of rows that are left after another search, the number costs a request, and bits alone need it.
        total = len(self.shards) if rows is None or not is_binary(searched) else len(rows)
        wanted = wanted_rows(searched, count, total, rescore=rescore, is_rescored=last != first)
        merged = [joined([found[number] for found in each]) for number in range(len(vectors))]
        best = [Candidates(one.rows, one.keys, one.scores).best(wanted) for one in merged]
        return [(one.rows, one.scores) for one in best]

    def _empty(self, name: str) -> Codes:
        """Return a representation without rows."""
        quantizer = self.space.space.transform.quantizers.by_name[name]
        code = quantizer.encode(np.zeros((1, quantizer.dimension), np.float32))
        return Codes(name, quantizer, code[:0])

    def _terms_of(self, shards: Shards) -> TermIndex | None:
        return None if self.sparse is None else ShardedTerms(shards, self.sparse.space)

    @property
    def _learned(self) -> LearnedRecall | None:
        return None if self.approximate is None else self.approximate.learned


def sharded_view(
    manifest: Manifest,
    space: OpenSpace,
    promise: SnapshotPromise | None,
    shards: Shards,
    words: LexicalSpec | None,
    terms: TermIndex | None,
    learned: LearnedRecall | None,
    *,
    allow_partial: bool,
) -> ShardedView:
    """Return a view of shards; `words` has the rules of the lexical index, and `terms` the sparse encoder."""
    each = [shards.layout.each[place] for place in shards.places]
    quantizer = space.space.transform.cells
    has_words = words is not None and missing_for_words(words) is None and all(one.words is not None for one in each)
    has_cells = quantizer is not None and all(one.cells is not None for one in each)
    kernels: Kernels = "auto"
    return ShardedView(
        manifest=manifest,
        space=space,
        copy=NO_COPY,
        lexical=ShardedWords(shards, words) if has_words and words is not None else None,
        kernels=kernels,
        promise=promise,
        sparse=terms,
        approximate=ShardedCells(shards, quantizer, learned) if has_cells and quantizer is not None else None,
        shards=shards,
        allow_partial=allow_partial,
        words=words,
    )


def _checked(hit: Any, wanted: dict[str, type]) -> dict[str, Any]:
    if not isinstance(hit, dict) or {name: type(hit.get(name)) for name in wanted} != wanted:
        raise MessageError(f"a hit is {str(hit)[:60]!r}, expected {', '.join(wanted)}")
    texts(hit, "heading_path", len(hit["heading_path"]))
    return {name: hit[name] for name in wanted}


def layout_shards(clients: ShardClients, layout: Layout) -> Shards:
    """Return all shards of a layout."""
    return Shards(clients, layout, tuple(range(len(layout.each))))
