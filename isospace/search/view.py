"""Search one opened snapshot: find candidates, score them exactly, sort them, look up their texts."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.collection.snapshot import Manifest, files_digest
from isospace.encoding.embedder import OpenSpace
from isospace.encoding.forks import is_fork_of
from isospace.errors import MismatchError, QueryError, missing_package
from isospace.search.approximate.index import FROM_ROWS, ApproximateIndex
from isospace.search.bm25 import WordIndex
from isospace.search.filtered_rows import FilteredRows
from isospace.search.fusion import reciprocal_rank_fusion, weighted_fusion
from isospace.search.hits import Hit, Missing, RankedRows, Ranking, Visits
from isospace.search.local.copy import LocalCopy
from isospace.search.metadata import parse_metadata
from isospace.search.options import TEXT_MODES, Mode, Neighbors, SearchOptions
from isospace.search.percentiles import chance_cosines, sampled
from isospace.search.promise import SnapshotPromise
from isospace.search.remote.copy import RemoteCopy
from isospace.search.rest import Rest
from isospace.search.sparse_index import TermIndex
from isospace.search.spec import DEFAULT_RECALL, LexicalSpec
from isospace.search.vector.kernels import Codes, Kernels
from isospace.search.vector.rescoring import Scored, nearest
from isospace.search.vector.scoring import Metric
from isospace.search.vector.topk import Rows
from isospace.search.words import missing_for_words
from isospace.transform.quantizer_set import require_representation
from isospace.transform.representations import ShortSpec, finest_of
from isospace.transform.vectors import Float32, Float64

FLOATS = ("float32", "float16")
# Modes that read floats if the space stores any, else other codes.
_ANY_CODES = ("auto", "hybrid", "approximate")


@dataclass(frozen=True, eq=False)
class View:
    """One opened snapshot; immutable."""

    manifest: Manifest
    space: OpenSpace
    copy: LocalCopy | RemoteCopy
    lexical: WordIndex | None
    """The BM25 index; None if none was built, or if a library that finds its words is missing."""
    kernels: Kernels = "auto"
    promise: SnapshotPromise | None = None
    """Whether texts that are embedded here have the bits of the stored vectors; always set by `open_index`."""
    sparse: TermIndex | None = None
    """The inverted index of sparse vectors; None if the snapshot has none."""
    approximate: ApproximateIndex | None = None
    """The inverted lists of cells; None if the space has none."""
    process: int = field(default_factory=os.getpid, repr=False)
    """ID of the process that opened it."""
    allow_partial: bool = False
    """Whether shards may be missing; False in one process."""

    @functools.cached_property
    def digest(self) -> str:
        """Fingerprint of the snapshot's files."""
        return files_digest(self.manifest)

    @functools.cached_property
    def finest(self) -> Codes:
        """The most precise representation: of those with all dimensions, the one with the most bytes."""
        return self.copy.codes[self.finest_name]

    @functools.cached_property
    def finest_name(self) -> str:
        """The name of the finest representation."""
        record = self.space.space.record
        return finest_of(record.spec.representations, record.dimension).name

    @functools.cached_property
    def chance(self) -> Float64:
        """Ascending cosines of a sample of pairs of chunks of different documents; see `chance_cosines`."""
        rows = sampled(self.copy.rows)
        return chance_cosines(self.vectors_of(rows), self.documents_of(rows))

    @property
    def missing(self) -> Missing | None:
        """What searches leave out; None for nothing, as always in one process."""
        return None

    def available(self, without: Set[str] = frozenset()) -> View:
        """Return the view to search now: of shards, without those that do not answer, if that is allowed."""
        return self

    @property
    def size(self) -> int:
        """Number of chunks that can be found."""
        return len(self.copy)

    @property
    def representations(self) -> tuple[str, ...]:
        """The representations that can be searched."""
        return tuple(self.copy.codes)

    def rank(
        self,
        texts: Sequence[str] | None,
        vectors: Float32 | None,
        options: SearchOptions,
        *,
        within: Rows | Rest | None = None,
    ) -> list[RankedRows]:
        """Rank rows for each query.

        Parameters
        ----------
        texts
            m queries; for modes lexical, sparse, and hybrid.
        vectors
            (m, k) float32 vectors of the space; for all modes but lexical and sparse.
        options
            `k` rows are returned, or `depth` if they will be reranked.
        within
            Ascending int64 rows to search, or what is left after another search, of those that pass the filter; all if
            None.
        """
        count = max(options.k, options.depth) if options.rerank else options.k
        rows = self._chosen(options, within)
        match options.mode:
            case "lexical":
                return [RankedRows(ranking, {}) for ranking in self._by_words(_required(texts, "lexical"), count, rows)]
            case "sparse":
                return [RankedRows(ranking, {}) for ranking in self._by_terms(_required(texts, "sparse"), count, rows)]
            case "hybrid":
                legs, visits = self._legs(
                    _required(texts, "hybrid"),
                    _required(vectors, "hybrid"),
                    count,
                    rows,
                    options,
                    keep=within is None,
                )
                weights = [weight for _, weight in legs.values()]
                fuse = reciprocal_rank_fusion if options.fusion == "rrf" else weighted_fusion
                return [
                    RankedRows(
                        self._ordered(*_arrays(fuse(rankings, weights)), count),
                        dict(zip(legs, map(dict, rankings), strict=True)),
                        visited,
                    )
                    for visited, *rankings in zip(visits, *(ranked for ranked, _ in legs.values()), strict=True)
                ]
            case _:
                near, visits = self._by_vectors(
                    _required(vectors, options.mode), count, rows, options, keep=within is None
                )
                return [RankedRows(ranking, {}, visited) for ranking, visited in zip(near, visits, strict=True)]

    def passing(self, expression: str | None, scope: str | None = None) -> Rows | None:
        """Return the live rows that pass a filter and a scope, ascending; None if there is neither.

        Raises
        ------
        QueryError
            If the filter cannot be parsed, or names an unknown field.
        ScopeError
            If that is so for the scope.
        """
        return None if expression is None and scope is None else self._filtered.rows(expression, scope)

    def _chosen(self, options: SearchOptions, within: Rows | Rest | None) -> Rows | None:
        """Return the rows to search: those that pass the filter and are within others; None for all."""
        rows = self.passing(options.filter, options.scope)
        if within is None:
            return rows
        if isinstance(within, Rest):
            alive = within.rows(self.copy.owners, self.copy.live)
        else:
            alive = within if self.copy.live is None else within[self.copy.live[within]]
        return alive if rows is None else np.intersect1d(rows, alive, assume_unique=True)

    @functools.cached_property
    def _filtered(self) -> FilteredRows:
        # It refers to the copy, not to the view, so that a replaced view is freed at once.
        return FilteredRows(self.copy.owners, self.copy.live, self.copy.documents)

    def documents_of(self, rows: Rows) -> npt.NDArray[np.integer]:
        """Return a number for each row that is the same for all rows of a document."""
        return self.copy.owners[rows]

    def chunk_ids(self, rows: Rows) -> list[str]:
        """Return the IDs of the chunks of rows."""
        return [chunk["chunk_id"] for chunk in self.copy.chunk_rows(rows, ["chunk_id"])]

    def vectors_of(self, rows: Rows) -> Float32:
        """Return the (m, k) float32 vectors of rows, decoded from the finest representation."""
        return self.finest.quantizer.decode(np.ascontiguousarray(self.finest.array[rows]))

    def rows_of(self, chunk_ids: Sequence[str], scope: str | None) -> dict[str, int]:
        """Return the rows of chunks, by ID; those that do not exist, or that a scope hides, are left out.

        Raises
        ------
        ScopeError
            If the scope cannot be applied.
        """
        rows = self.copy.rows_of(chunk_ids)
        # The chunk of a deleted version of a document may have the same ID.
        rows = rows if self.copy.live is None else rows[self.copy.live[rows]]
        # Computed whether the chunks exist or not, so that the time does not tell either.
        seen = self.passing(None, scope)
        rows = rows if seen is None else rows[np.isin(rows, seen)]
        return dict(zip(self.chunk_ids(rows), rows.tolist(), strict=True))

    def hits(self, ranked: RankedRows, neighbors: Neighbors = 0) -> list[Hit]:
        """Look up the chunks and documents of ranked rows; see `context_of` for `neighbors`."""
        return [
            Hit(
                score=score,
                scores={name: scores[row] for name, scores in ranked.parts.items() if row in scores},
                **{**found, "metadata": parse_metadata(found["metadata"])},
            )
            for (row, score), found in zip(
                ranked.rows, self.found([row for row, _ in ranked.rows], neighbors), strict=True
            )
        ]

    def found(self, rows: Sequence[int], neighbors: Neighbors) -> list[dict[str, Any]]:
        """Return the fields of hits by name, except their scores; metadata as JSON."""
        chunks = self.copy.chunk_rows(rows, ["chunk_id", "start", "end", "text", "heading_path"])
        return [
            {
                **{name: chunk[name] for name in ("chunk_id", "text", "start", "end")},
                "heading_path": chunk["heading_path"] or [],
                **document,
                **(self.copy.context(row, neighbors) if neighbors else {}),
            }
            for row, chunk, document in zip(rows, chunks, self.copy.owner_rows(rows), strict=True)
        ]

    def texts(self, rows: Iterable[int]) -> list[str]:
        """Return the texts of rows as they were encoded, with the title in front if the recipe puts it there."""
        return [row["prefix"] + row["text"] for row in self.copy.chunk_rows(rows, ["prefix", "text"])]

    @property
    def word_rules(self) -> LexicalSpec | None:
        """The rules of the lexical index; None if the snapshot has none."""
        return None if self.copy.lexical is None else self.copy.lexical[0].spec

    def _by_words(self, texts: Sequence[str], count: int, rows: Rows | None) -> list[Ranking]:
        if self.lexical is None and self.word_rules is not None:
            raise QueryError(missing_package(missing_for_words(self.word_rules) or "regex", "lexical search"))
        if self.lexical is None:
            raise QueryError(
                f"snapshot {self.manifest.sequence} has no lexical index. Set recipe.lexical.kind=bm25, and run the "
                "pipeline; no text is re-encoded."
            )
        return [self._ordered(*self.lexical.best(text, count, rows), count) for text in texts]

    def _legs(
        self,
        texts: Sequence[str],
        vectors: Float32,
        count: int,
        rows: Rows | None,
        options: SearchOptions,
        *,
        keep: bool,
    ) -> tuple[dict[str, tuple[list[Ranking], float]], Visits]:
        """Return the rankings that a hybrid search fuses, with their weights, by the name of their scores; and visits.

        The sparse ranking takes part if the snapshot has one; then, BM25 may be missing.
        """
        depth = max(options.depth, count)
        near, words = options.weights
        sparse = self.sparse is not None and options.uses_sparse
        by_vectors, visits = self._by_vectors(vectors, depth, rows, options, keep=keep)
        legs = {"vector": (by_vectors, near)}
        if self.word_rules is not None or not sparse:
            legs["bm25"] = (self._by_words(texts, depth, rows), words)
        if sparse:
            legs["sparse"] = (self._by_terms(texts, depth, rows), options.sparse_weight)
        return legs, visits

    def _by_terms(self, texts: Sequence[str], count: int, rows: Rows | None) -> list[Ranking]:
        if self.sparse is None:
            raise QueryError(
                f"snapshot {self.manifest.sequence} has no sparse vectors. Set recipe.sparse.model to a sparse "
                "encoder, and run the pipeline; the dense vectors are kept."
            )
        return [self._ordered(*self.sparse.best(text, count, self._searchable(rows)), count) for text in texts]

    def _searchable(self, rows: Rows | None) -> Rows | None:
        """Return the rows to search; None only if each row can be found."""
        return rows if rows is not None or self.copy.live is None else self.copy.rows

    def _by_vectors(
        self, vectors: Float32, count: int, rows: Rows | None, options: SearchOptions, *, keep: bool
    ) -> tuple[list[Ranking], Visits]:
        dimension = self.space.space.record.dimension
        if vectors.ndim != 2 or vectors.shape[1] != dimension:
            raise MismatchError(f"query vectors have the shape {vectors.shape}; the space expects (m, {dimension}).")
        if not np.isfinite(vectors).all():
            raise QueryError("a query vector holds NaN or infinity; expected finite float32 values.")
        if options.metric == "cosine" and len(vectors) and not vectors.any(axis=1).all():
            raise QueryError("a query vector is zero and has no direction; expected the vector of a text.")
        return self._near(vectors, count, rows, options, keep=keep)

    def _near(
        self, vectors: Float32, count: int, rows: Rows | None, options: SearchOptions, *, keep: bool
    ) -> tuple[list[Ranking], Visits]:
        recall, index = self.declared_recall(options), self.approximate
        is_able = len(vectors) > 0 and bool(vectors.any(axis=1).all())
        if recall is not None and index is not None and is_able and index.can_search(recall, count, rows):
            found, visits = index.nearest(
                self.finest, vectors, count, metric=options.metric, recall=recall, rows=rows, keep=keep
            )
            return [self._ordered(near, scores, count) for near, scores in found], list(visits)
        first, last = self.stages(options)
        scored = self.nearest(first, last, vectors, count, metric=options.metric, rescore=options.rescore, rows=rows)
        return [self._ordered(near, scores, count) for near, scores in scored], [None] * len(vectors)

    def nearest(
        self, first: str, last: str, vectors: Float32, count: int, *, metric: Metric, rescore: int, rows: Rows | None
    ) -> list[Scored]:
        """Find the rows nearest to each vector; see `isospace.search.vector.rescoring.nearest`."""
        return nearest(
            self.copy.codes[first],
            self.copy.codes[last],
            vectors,
            count,
            metric=metric,
            rescore=rescore,
            rows=rows,
            kernels=self.usable_kernels,
        )

    @property
    def usable_kernels(self) -> Kernels:
        """The kernels to use in this process: a fork lacks the threads of torch and faiss; the results are the same."""
        return "numpy" if is_fork_of(self.process) else self.kernels

    @property
    def has_cells(self) -> bool:
        """Whether approximate searches are possible."""
        return self.approximate is not None

    @property
    def default_recall(self) -> float:
        """The recall of approximate searches that state none: that of the recipe."""
        return float(self.manifest.recipe.get("search", {}).get("recall", DEFAULT_RECALL))

    def declared_recall(self, options: SearchOptions) -> float | None:
        """Return the recall of an approximate search; None if the search is to score every row.

        Raises
        ------
        QueryError
            If an approximate search is asked for that is not possible.
        """
        is_asked = options.mode == "approximate"
        if is_asked and not self.has_cells:
            raise QueryError(
                "mode approximate needs cells, and the space has none that can be searched here. Set "
                "recipe.transform.cells=auto, and run the pipeline with runtime.refit=true, which encodes no text "
                "again. Transformed vectors must have unit length, and faiss-cpu must be installed."
            )
        if is_asked and options.metric == "l1":
            raise QueryError("mode approximate cannot search by metric l1. Use cosine, dot, or l2, or mode exact.")
        may_be = options.mode in ("auto", "hybrid") and options.representation is None and options.metric != "l1"
        if not is_asked and not (may_be and self.has_cells and self.size >= FROM_ROWS):
            return None
        recall = self.default_recall if options.recall is None else options.recall
        return recall if recall < 1.0 else None

    def stages(self, options: SearchOptions) -> tuple[str, str]:
        """Return the representation that is searched, and that from which the candidates are rescored.

        Raises
        ------
        QueryError
            If the mode cannot search the snapshot, or not by this representation.
        """
        name = self.searched(options)
        is_exact = options.mode == "exact" or (options.mode in _ANY_CODES and name in FLOATS)
        return name, self.finest_name if not is_exact and options.rescore > 0 else name

    def searched(self, options: SearchOptions) -> str:
        """Return the representation that a search reads; QueryError if its mode can read none."""
        if options.representation is not None:
            require_representation(self.space.space.transform.quantizers, options.representation)
        specs = {spec.name: spec for spec in self.space.space.record.spec.representations}
        floats = [name for name in FLOATS if name in specs]
        mode = options.mode
        if mode in _ANY_CODES:
            chosen = options.representation or next(iter(floats), None)
            mode = "exact" if chosen in floats else "quantized"
        able = {
            "exact": floats,
            "tiered": [name for name, spec in specs.items() if isinstance(spec, ShortSpec)],
            "quantized": [name for name in specs if name not in floats],
        }[mode]
        name = options.representation or next(iter(able), None)
        if name is None or name not in able:
            wanted = f"representation {name!r}" if name else "this space"
            raise QueryError(
                f"mode {mode} cannot search {wanted}; the space stores {', '.join(specs)}, of which the mode can use "
                f"{', '.join(able) or 'none'}. Add a suitable one to recipe.transform.representations; no text is "
                "re-encoded."
            )
        return name

    @functools.cached_property
    def modes(self) -> tuple[Mode, ...]:
        """The modes that can search this snapshot, as it is opened here."""
        specs = [spec for spec in self.space.space.record.spec.representations if spec.name in self.representations]
        floats = [name for name in FLOATS if name in self.representations]
        able: dict[Mode, bool] = {
            "auto": True,
            "exact": bool(floats),
            "approximate": self.has_cells,
            "quantized": len(self.representations) > len(floats),
            "tiered": any(isinstance(spec, ShortSpec) for spec in specs),
            "lexical": self.lexical is not None,
            "sparse": self.sparse is not None,
            "hybrid": self.lexical is not None or self.sparse is not None,
        }
        return tuple(mode for mode, works in able.items() if works)

    def _ordered(self, rows: Rows, scores: npt.NDArray[np.float64], count: int) -> Ranking:
        """Sort rows by descending score, ties by chunk_id."""
        if len(scores) > count:
            # Rows that tie with the last one compete by chunk_id.
            best = scores >= np.partition(scores, len(scores) - count)[len(scores) - count]
            rows, scores = rows[best], scores[best]
        names = self.chunk_ids(rows)
        order = sorted(range(len(rows)), key=lambda place: (-scores[place], names[place]))
        return [(int(rows[place]), float(scores[place])) for place in order[:count]]


def _arrays(scores: dict[int, float]) -> tuple[Rows, npt.NDArray[np.float64]]:
    return np.fromiter(scores, np.int64, len(scores)), np.fromiter(scores.values(), np.float64, len(scores))


def _required(queries: Any, mode: str) -> Any:
    if queries is None:
        kind = "texts" if mode in TEXT_MODES else "vectors"
        raise QueryError(f"mode {mode} needs the queries as {kind}, but got none. Use `search`.")
    return queries
