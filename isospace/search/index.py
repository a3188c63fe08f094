"""The query side: open a snapshot by alias, search it, and follow the alias when it moves."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

import numpy as np
import pyarrow as pa

from isospace.collection.shard import Shard
from isospace.collection.snapshot import Manifest, files_digest, read_manifest
from isospace.encoding.embedder import OpenSpace
from isospace.encoding.forks import require_loaded_here
from isospace.errors import NO_ANSWER, MismatchError, NotFoundError, QueryError
from isospace.ingest.document import is_unicode
from isospace.search.answer import Answer, Clock
from isospace.search.approximate.index import Visited
from isospace.search.available import search_available
from isospace.search.highlight import Spans, snapshot_highlighter
from isospace.search.hits import Hit
from isospace.search.local.copy import LocalCopy, take_rows
from isospace.search.more_like import example_of
from isospace.search.opener import Opener
from isospace.search.options import TEXT_MODES, WORD_MODES, SearchKeywords, SearchOptions, search_options
from isospace.search.paging import require_snapshot
from isospace.search.promise import SnapshotPromise, promise_of
from isospace.search.query_cache import QueryCache
from isospace.search.remote.copy import RemoteCopy
from isospace.search.results import rank_results, with_percentiles
from isospace.search.shards.client import ShardClients
from isospace.search.shards.opener import ShardedOpener
from isospace.search.vector.stacked import Stacked
from isospace.search.vector.topk import Rows
from isospace.search.view import FLOATS, View
from isospace.storage.store import Store
from isospace.transform.affine import Role
from isospace.transform.quantizer_set import Representation, require_representation
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.search.reranker import Reranker

_LOG = logging.getLogger(__name__)
# Snapshots before the one in use that a shard still searches: as many as local copies are kept for.
_EARLIER = 2
# From a move of the alias on, those who ask a shard have this time to follow if the snapshot before is erased.
_FOLLOWING_SECONDS = 600.0


class Index:
    """A searchable collection, opened by `open_index`; thread-safe.

    Every search runs on one snapshot from start to finish. `refresh` opens the snapshot that the alias names now, and
    swaps it in atomically; searches in flight finish on the old one.

    A fork of the process can search stored vectors and words, but neither embed texts nor follow the alias.

    Attributes
    ----------
    problem
        Why the last refresh failed; empty if it succeeded. Until one succeeds, the previous snapshot is searched.
    """

    def __init__(
        self, opener: Opener, view: View, cache: QueryCache, reranker: Reranker | None, representation: str | None
    ) -> None:
        self.cache, self.reranker, self.problem = cache, reranker, ""
        self._opener, self._view, self._representation = opener, view, representation
        # Those who ask a shard may follow the alias a little later.
        self._earlier: tuple[tuple[View, float], ...] = ()
        self._refreshing = threading.Lock()
        self._closed = threading.Event()
        self._watchers: list[threading.Thread] = []
        self._process = os.getpid()

    def __repr__(self) -> str:
        place = f"{self.manifest.collection}, snapshot {self.manifest.sequence}"
        return f"Index({place}, {self.view.size} chunks, {self.representation})"

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def view(self) -> View:
        """The snapshot that is searched now; keep a reference to use one snapshot for several calls."""
        return self._view

    @property
    def views(self) -> tuple[View, ...]:
        """The snapshot that is searched now, and of a shard those before it, which it can still search."""
        return (self._view, *(view for view, _ in self._earlier))

    @property
    def shard(self) -> Shard | None:
        """The shard that was opened; None for all parts."""
        return self._opener.shard

    @property
    def shard_clients(self) -> ShardClients | None:
        """What asks the shards that hold the rows; None if they are here."""
        return self._opener.clients if isinstance(self._opener, ShardedOpener) else None

    @property
    def store(self) -> Store:
        """The store that holds the collection."""
        return self._opener.store

    @property
    def manifest(self) -> Manifest:
        """The manifest of the snapshot that is searched now."""
        return self._view.manifest

    @property
    def space(self) -> OpenSpace:
        """The space of the snapshot that is searched now, with the encoder."""
        return self._view.space

    @property
    def promise(self) -> SnapshotPromise:
        """Whether texts that are embedded here have the bits of the snapshot's vectors, or what holds instead."""
        return self._view.promise or promise_of(self.manifest, self.space)

    @property
    def alias(self) -> str:
        """What the snapshot was opened by: an alias, a snapshot number, or the first digits of a snapshot ID."""
        return self._opener.alias

    @property
    def verified(self) -> bool:
        """Whether opening a snapshot hashes its files and checks the encoder against the space."""
        return self._opener.verify == "content" and self._opener.encode

    @property
    def representation(self) -> Representation:
        """The stored representation that a search uses by default."""
        return self._representation or self.space.space.record.representations[0]

    @property
    def vectors(self) -> Float32:
        """(n, k) float32 vectors, decoded from `representation`; mapped if that is float32 in one group of parts.

        Refused without a local copy: it would read all codes.
        """
        copy = self._local_copy()
        codes = copy.codes[self.representation]
        if isinstance(codes.array, Stacked) or copy.live is not None:
            return codes.quantizer.decode(codes.array[copy.rows])
        return codes.array if self.representation == "float32" else codes.quantizer.decode(np.asarray(codes.array))

    @property
    def chunks(self) -> pa.Table:
        """The chunks, in the order of `vectors`, with chunk_id, doc_id, uri, title, span, text, and heading_path.

        Refused without a local copy.
        """
        copy = self._local_copy()
        chunks = take_rows(copy.chunks, copy.rows)
        owners = copy.documents.select(["doc_id", "uri", "title"]).take(chunks["document"])
        columns = {
            **{n: chunks[n] for n in chunks.column_names},
            **{n: owners[n] for n in owners.column_names},
        }
        order = ["chunk_id", "doc_id", "uri", "title", "start", "end", "text", "prefix", "heading_path"]
        return pa.table({name: columns[name] for name in order})

    def search(self, texts: Sequence[str] | str, k: int = 10, **options: Unpack[SearchKeywords]) -> list[list[Hit]]:
        """Find the chunks nearest to each text.

        Parameters
        ----------
        texts
            Queries; one string is a list of one.
        k
            Maximum number of hits per query.
        **options
            Fields of `isospace.search.options.SearchOptions`: mode, filter, rerank, metric, …

        Returns
        -------
        list of list of Hit
            One list per query, by descending score, ties by chunk_id.

        Raises
        ------
        QueryError
            If a query is blank or not Unicode text, or an option is invalid.
        """
        return self.answer(texts, self._options(k, options)).hits

    def highlights(self, query: str, hits: Sequence[Hit]) -> list[Spans]:
        """Return the spans of each hit's text that match words of the query, in characters; for hits of any mode.

        Words match by the rules of the lexical index. Those of a quarter of the chunks do not count beside rarer ones.
        """

        def search(view: View) -> list[Spans]:
            highlight = snapshot_highlighter(query, view.lexical)
            return [highlight(hit.text) for hit in hits]

        return search_available(self._view, search)

    def answer(self, texts: Sequence[str] | str, options: SearchOptions, *, view: View | None = None) -> Answer:
        """Search `view`, or the current snapshot, and return the hits with the snapshot and timings."""
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise QueryError(f"queries are {type(texts).__name__} {texts!r:.60}; expected a text, or a list of texts.")
        queries = [texts] if isinstance(texts, str) else list(texts)
        if empty := [i for i, text in enumerate(queries) if not text.strip()]:
            raise QueryError(f"query {empty[0]} is {queries[empty[0]]!r}; expected a text that is not blank.")
        if broken := [i for i, text in enumerate(queries) if not is_unicode(text)]:
            raise QueryError(
                f"query {broken[0]} is {ascii(queries[broken[0]])[:80]}, which is not Unicode text: it has half of a "
                "surrogate pair, as bytes of another encoding leave it. Give the query in UTF-8."
            )
        return search_available(view or self._view, lambda chosen: self._answer_texts(queries, options, chosen))

    def _answer_texts(self, queries: list[str], options: SearchOptions, view: View) -> Answer:
        if options.rerank and self.reranker is None:
            raise QueryError(
                "rerank = True, but no reranker is loaded. Serve with --reranker FOLDER, or open the index with "
                "reranker=open_reranker(FOLDER)."
            )
        clock = Clock()
        vectors, degraded = None, ""
        if options.mode not in WORD_MODES and queries:
            try:
                vectors = self.cache.embed(view.space, queries)
            except NO_ANSWER as error:
                if view.lexical is None:
                    raise
                options, degraded = options.by_words(), str(error)
                _LOG.warning("searching words alone, since queries cannot be embedded: %s", error)
        if view.sparse is not None and options.uses_sparse:
            view.sparse.prepare(queries)
        clock.lap("embed")
        return replace(self._answer(view, queries, vectors, options, clock), degraded=degraded)

    def search_vectors(
        self, vectors: Float32, k: int = 10, *, space_id: str | None = None, **options: Unpack[SearchKeywords]
    ) -> list[list[Hit]]:
        """Find the chunks nearest to (m, k) float32 vectors of this space.

        Pass the `space_id` of stored query vectors: after a refit they belong to another space, and the vectors alone
        do not show it. For `k` and `options` see `search`; modes that need texts are refused.

        Raises
        ------
        MismatchError
            If the vectors belong to another space, or have another dimension.
        """
        view = self._view
        if space_id is not None and not _is_space(space_id, view.space.space_id):
            raise MismatchError(
                f"the vectors belong to space {str(space_id)[:16]}…, but snapshot {view.manifest.sequence} is in space "
                f"{view.space.space_id[:16]}…. Embed the queries again."
            )
        chosen, asked = self._vector_options(k, options), np.asarray(vectors, np.float32)
        return search_available(view, lambda one: self._answer(one, None, asked, chosen, Clock())).hits

    def more_like(self, chunk_ids: Sequence[str] | str, k: int = 10, **options: Unpack[SearchKeywords]) -> list[Hit]:
        """Find the chunks nearest to a stored one, or to the mean of several; no text is encoded.

        Parameters
        ----------
        chunk_ids
            One to 100 IDs, as hits have them. These chunks are no hits, and neither are their documents with
            `group_by`.
        **options
            As for `search`; modes that need texts are refused.

        Returns
        -------
        list of Hit
            By descending score, ties by chunk_id.

        Raises
        ------
        NotFoundError
            If the snapshot has no such chunk, or `scope` does not let it be seen.
        QueryError
            If an option is invalid, or the vectors of the chunks cancel each other.
        """
        return self.answer_like(chunk_ids, self._options(k, options)).hits[0]

    def answer_like(
        self, chunk_ids: Sequence[str] | str, options: SearchOptions, *, view: View | None = None
    ) -> Answer:
        """Find the chunks nearest to stored ones in `view`, or in the current snapshot; see `more_like`."""

        def search(chosen: View) -> Answer:
            example = example_of(chosen, chunk_ids, options)
            return self._answer(chosen, None, example.vector, options, Clock(), without=example.rows)

        return search_available(view or self._view, search)

    def search_raw(
        self, raw: Float32, k: int = 10, *, role: Role = "query", **options: Unpack[SearchKeywords]
    ) -> list[list[Hit]]:
        """Transform (m, d) float32 raw vectors of the space's encoder, and find the chunks nearest to them."""
        view = self._view
        vectors = view.space.transform(np.asarray(raw, np.float32), role)
        chosen = self._vector_options(k, options)
        return search_available(view, lambda one: self._answer(one, None, vectors, chosen, Clock())).hits

    def refresh(self) -> bool:
        """Open the snapshot that the alias names now; return whether it is a new one.

        Raises
        ------
        IsospaceError
            If it cannot be opened; the old one stays in use, and `problem` says why.
        """
        require_loaded_here(self._process, "the index")
        with self._refreshing:
            try:
                newer = self._opener.open_newer(self._view)
                if newer is not None and self._representation is not None:
                    require_representation(newer.space.space.transform.quantizers, self._representation)
            except Exception as error:
                self.problem = str(error)
                raise
            self.problem = ""
            if newer is None:
                self._drop_erased()
                return False
            earlier = ((self._view, time.monotonic()), *self._earlier)[:_EARLIER]
            self._view, self._earlier = newer, (earlier if self.shard is not None else ())
            _LOG.info("now at snapshot %d (%s)", newer.manifest.sequence, newer.manifest.snapshot_id[:16])
            return True

    def watch(self, seconds: float) -> None:
        """Refresh every `seconds` in the background, until `close`; failures are logged and retried."""
        watcher = threading.Thread(target=self._watch, args=(seconds,), name="isospace-refresh", daemon=True)
        self._watchers.append(watcher)
        watcher.start()

    def close(self) -> None:
        """Stop the background refresh, and wait for one in progress: the process may exit next."""
        self._closed.set()
        for watcher in self._watchers:
            watcher.join()
        self._opener.close()

    def _watch(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                self.refresh()
            except Exception as error:
                _LOG.warning("refresh failed, still serving snapshot %d: %s", self.manifest.sequence, error)

    def _drop_erased(self) -> None:
        """Drop earlier snapshots that the store no longer has: they may hold documents that were erased since."""
        late = time.monotonic() - _FOLLOWING_SECONDS
        self._earlier = tuple(
            (view, since) for view, since in self._earlier if since > late or self._is_stored(view.manifest)
        )

    def _is_stored(self, manifest: Manifest) -> bool:
        try:
            stored = read_manifest(self.store, manifest.collection, manifest.sequence)
        except NotFoundError:
            return False
        return (stored.snapshot_id, files_digest(stored)) == (manifest.snapshot_id, files_digest(manifest))

    def _local_copy(self) -> LocalCopy:
        copy = self._view.copy
        if isinstance(copy, RemoteCopy):
            raise QueryError(
                'all chunks are asked for, but the index was opened with local="none". Open it with a local copy, or '
                "use isospace.read_chunks."
            )
        return copy

    def _options(self, k: int, options: Mapping[str, object]) -> SearchOptions:
        return search_options({"k": k, **options})

    def _vector_options(self, k: int, options: Mapping[str, object]) -> SearchOptions:
        chosen = self._options(k, options)
        if chosen.rerank or chosen.mode in TEXT_MODES:
            raise QueryError(
                f"mode {chosen.mode}, rerank {chosen.rerank}: needs texts, but was given vectors. Use `search`."
            )
        return chosen

    def _with_default(self, view: View, options: SearchOptions) -> SearchOptions:
        """Fill in the representation that the index was opened with, if the mode can search it."""
        name = self._representation
        able = ("auto", "hybrid", "exact" if name in FLOATS else "quantized")
        if (
            name is None
            or options.representation is not None
            or options.mode not in able
            or name not in view.representations
        ):
            return options
        return options.model_copy(update={"representation": name})

    def _answer(
        self,
        view: View,
        queries: list[str] | None,
        vectors: Float32 | None,
        options: SearchOptions,
        clock: Clock,
        *,
        without: Rows | None = None,
    ) -> Answer:
        if self._watchers:
            # The thread that follows the alias is not in a fork, which would go on serving an old snapshot.
            require_loaded_here(self._process, "the index")
        options = self._with_default(view, options)
        require_snapshot(view, options.snapshot_id)
        count = len(queries) if queries is not None else len(vectors) if vectors is not None else 0
        place = (view.space.space_id, view.digest, options.model_dump_json())
        # A page that a similar query had would not fit the pages beside it, and an example is no hit of its own. What
        # was found while a shard was missing is no answer for later.
        is_shared = options.offset is None and without is None and view.missing is None
        shared = vectors if is_shared else None
        cached = [None if shared is None else self.cache.answer(place, shared[n]) for n in range(count)]
        unknown = [n for n in range(count) if cached[n] is None]
        hits: list[list[Hit]] = [answer or [] for answer in cached]
        visited: list[Visited | None] = [None] * count
        if unknown:
            texts = None if queries is None else [queries[n] for n in unknown]
            asked = None if vectors is None else vectors[unknown]
            scorer = None if self.reranker is None else self.reranker.scores
            ranked = rank_results(view, texts, asked, options, scorer=scorer, without=without, clock=clock)
            for n, rows in zip(unknown, ranked, strict=True):
                visited[n] = rows.visited
                found = view.hits(rows, options.neighbors)
                hits[n] = with_percentiles(view, found, options) if options.explain else found
                if shared is not None:
                    self.cache.keep_answer(place, shared[n], hits[n])
        else:
            clock.lap("search")
        manifest = view.manifest
        return Answer(
            hits,
            view.space.space_id,
            manifest.sequence,
            manifest.snapshot_id,
            clock.laps,
            visited,
            missing=view.missing,
        )


def _is_space(given: str, space_id: str) -> bool:
    """Return whether a space ID, or its first eight digits or more, names the space."""
    return isinstance(given, str) and len(given) >= 8 and space_id.startswith(given)
