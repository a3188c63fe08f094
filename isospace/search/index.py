"""The query side: open a snapshot by its alias, search it, and follow the alias when it moves."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import OpenSpace
from isospace.errors import ConfigError, MismatchError, QueryError
from isospace.search.answer import Answer, Clock
from isospace.search.build_local_copy import Verify
from isospace.search.opener import Opener
from isospace.search.options import SearchOptions, search_options
from isospace.search.query_cache import CacheConfig, QueryCache
from isospace.search.vector.kernels import Kernels
from isospace.search.view import FLOATS, Hit, Ranked, View
from isospace.storage.store import Store, open_store
from isospace.transform.affine import Role
from isospace.transform.quantizer_set import Representation, require_representation
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.encoding.encoder import Encoder
    from isospace.encoding.engine import Engine
    from isospace.search.reranker import Reranker

_LOG = logging.getLogger(__name__)

__all__ = ["Answer", "Hit", "Index", "QueryError", "open_index"]


class Index:
    """A searchable collection; made by `open_index`, safe for many threads.

    Every search works on one snapshot from begin to end. `refresh` opens what the alias names now and puts it in the
    place of the old one at once; searches under way finish on the old one.

    Attributes
    ----------
    cache
        Of query vectors.
    reranker
        The cross-encoder, if there is one.
    problem
        Why the last refresh failed; empty if it did not. The snapshot before it is searched meanwhile.
    """

    def __init__(
        self, opener: Opener, view: View, cache: QueryCache, reranker: Reranker | None, representation: str | None
    ) -> None:
        self.cache, self.reranker, self.problem = cache, reranker, ""
        self._opener, self._view, self._representation = opener, view, representation
        self._refreshing = threading.Lock()
        self._closed = threading.Event()
        self._watchers: list[threading.Thread] = []

    def __repr__(self) -> str:
        place = f"{self.manifest.collection}, snapshot {self.manifest.sequence}"
        return f"Index({place}, {len(self.view.copy)} chunks, {self.representation})"

    def __enter__(self) -> Index:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def view(self) -> View:
        """The snapshot that is searched now; hold it to work on one snapshot for longer than one call."""
        return self._view

    @property
    def store(self) -> Store:
        """Where it was opened."""
        return self._opener.store

    @property
    def manifest(self) -> Manifest:
        """Of the snapshot that is searched now."""
        return self._view.manifest

    @property
    def space(self) -> OpenSpace:
        """Its space, with the encoder."""
        return self._view.space

    @property
    def alias(self) -> str:
        """What it was opened by: an alias, a number or the start of a snapshot_id."""
        return self._opener.alias

    @property
    def verified(self) -> bool:
        """Whether files are hashed when a snapshot is opened, and the encoder is compared with the space."""
        return self._opener.verify == "content" and self._opener.encode

    @property
    def representation(self) -> Representation:
        """Which stored representation is searched where a search names none."""
        return self._representation or self.space.space.record.representations[0]

    @property
    def vectors(self) -> Float32:
        """(n, k) float32, decoded from `representation`; float32 ones are mapped from the disk."""
        codes = self._view.copy.codes[self.representation]
        if self.representation == "float32":
            return codes.array
        return codes.quantizer.decode(np.asarray(codes.array))

    @property
    def chunks(self) -> pa.Table:
        """Row by row as `vectors`: chunk_id, doc_id, uri, title, start, end, text, prefix."""
        copy = self._view.copy
        owners = copy.documents.select(["doc_id", "uri", "title"]).take(copy.chunks["document"])
        columns = {
            **{n: copy.chunks[n] for n in copy.chunks.column_names},
            **{n: owners[n] for n in owners.column_names},
        }
        order = ["chunk_id", "doc_id", "uri", "title", "start", "end", "text", "prefix"]
        return pa.table({name: columns[name] for name in order})

    def search(self, texts: Sequence[str] | str, k: int = 10, **options: Any) -> list[list[Hit]]:
        """Find the chunks nearest to each text.

        Parameters
        ----------
        texts
            Queries; one string is a list of one.
        k
            Most hits a query.
        **options
            As `isospace.search.options.SearchOptions` has them: mode, filter, rerank, metric, …

        Returns
        -------
        list of list of Hit
            By falling score, equal scores by chunk_id; one list a query.

        Raises
        ------
        QueryError
            For an empty query, or options that cannot be.
        """
        return self.answer(texts, self._options(k, options)).hits

    def answer(self, texts: Sequence[str] | str, options: SearchOptions, *, view: View | None = None) -> Answer:
        """Search, and say in which snapshot and how long it took; in `view` if one is held, else in the current one."""
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
            raise QueryError(f"queries are {type(texts).__name__} {texts!r:.60}; expected a text, or a list of texts.")
        queries = [texts] if isinstance(texts, str) else list(texts)
        if empty := [i for i, text in enumerate(queries) if not text.strip()]:
            raise QueryError(f"query {empty[0]} is {queries[empty[0]]!r}; expected a text that is not blank.")
        view = view or self._view
        if options.rerank and self.reranker is None:
            raise QueryError(
                "rerank was asked for, and there is no reranker. Serve with --reranker FOLDER, or open the index with "
                "reranker=open_reranker(FOLDER)."
            )
        clock = Clock()
        vectors = None
        if options.mode != "lexical" and queries:
            vectors = self.cache.embed(view.space, queries)
        clock.lap("embed")
        return self._answered(view, queries, vectors, options, clock)

    def search_vectors(
        self, vectors: Float32, k: int = 10, *, space_id: str | None = None, **options: Any
    ) -> list[list[Hit]]:
        """Find the chunks nearest to (m, k) float32 vectors of this space; texts, and so words, are not needed.

        Parameters
        ----------
        vectors, k, **options
            As `search` has them.
        space_id
            The space that the vectors are of. Give it for vectors that were kept: a refit may have come since, and
            nothing else tells vectors of two spaces apart.

        Raises
        ------
        MismatchError
            If the vectors are of another space or dimension.
        """
        view = self._view
        if space_id not in (None, view.space.space_id):
            raise MismatchError(
                f"the vectors are of space {str(space_id)[:16]}…, {view.space.space_id[:16]}… is searched (snapshot "
                f"{view.manifest.sequence}). Embed the queries again."
            )
        chosen = self._vector_options(k, options)
        return self._answered(view, None, np.asarray(vectors, np.float32), chosen, Clock()).hits

    def search_raw(self, raw: Float32, k: int = 10, *, role: Role = "query", **options: Any) -> list[list[Hit]]:
        """Find the chunks nearest to (m, d) float32 raw vectors of the space's encoder; they are transformed first."""
        view = self._view
        vectors = view.space.transform(np.asarray(raw, np.float32), role)
        return self._answered(view, None, vectors, self._vector_options(k, options), Clock()).hits

    def refresh(self) -> bool:
        """Open what the alias names now, if it is another snapshot; tell whether it was.

        Raises
        ------
        IsospaceError
            If it cannot be opened; the old one stays, and `problem` says why.
        """
        with self._refreshing:
            try:
                found = self._opener.open_newer(self._view)
                if found is not None and self._representation is not None:
                    require_representation(found.space.space.transform.quantizers, self._representation)
            except Exception as error:
                self.problem = str(error)
                raise
            self.problem = ""
            if found is None:
                return False
            self._view = found
            _LOG.info("now at snapshot %d (%s)", found.manifest.sequence, found.manifest.snapshot_id[:16])
            return True

    def watch(self, seconds: float) -> None:
        """Refresh every so many seconds in the background, until `close`; a failure is logged and tried again."""
        watcher = threading.Thread(target=self._watch, args=(seconds,), name="isospace-refresh", daemon=True)
        self._watchers.append(watcher)
        watcher.start()

    def close(self) -> None:
        """End the background refresh; waits for one that is under way, since the process may end next."""
        self._closed.set()
        for watcher in self._watchers:
            watcher.join()

    def _watch(self, seconds: float) -> None:
        while not self._closed.wait(seconds):
            try:
                self.refresh()
            except Exception as error:
                _LOG.warning("the alias was not followed, snapshot %d stays: %s", self.manifest.sequence, error)

    def _options(self, k: int, options: dict[str, Any]) -> SearchOptions:
        return search_options({"k": k, **options})

    def _vector_options(self, k: int, options: dict[str, Any]) -> SearchOptions:
        chosen = self._options(k, options)
        if chosen.rerank or chosen.mode in ("lexical", "hybrid"):
            raise QueryError(
                f"mode {chosen.mode}, rerank {chosen.rerank}: needs texts, and these are vectors. Use `search`."
            )
        return chosen

    def _with_default(self, view: View, options: SearchOptions) -> SearchOptions:
        """Fill in the representation that the index was opened with, for the modes that can search it."""
        name = self._representation
        able = ("auto", "hybrid", "exact" if name in FLOATS else "quantized")
        if (
            name is None
            or options.representation is not None
            or options.mode not in able
            or name not in view.copy.codes
        ):
            return options
        return options.model_copy(update={"representation": name})

    def _answered(
        self, view: View, queries: list[str] | None, vectors: Float32 | None, options: SearchOptions, clock: Clock
    ) -> Answer:
        options = self._with_default(view, options)
        count = len(queries) if queries is not None else len(vectors) if vectors is not None else 0
        place = (view.space.space_id, view.digest, options.model_dump_json())
        known = [None if vectors is None else self.cache.answer(place, vectors[n]) for n in range(count)]
        unknown = [n for n in range(count) if known[n] is None]
        texts = None if queries is None else [queries[n] for n in unknown]
        ranked = view.rank(texts, None if vectors is None else vectors[unknown], options) if unknown else []
        clock.lap("search")
        if options.rerank and texts is not None:
            ranked = [self._reranked(view, text, one, options) for text, one in zip(texts, ranked, strict=True)]
            clock.lap("rerank")
        hits: list[list[Hit]] = [found or [] for found in known]
        for n, one in zip(unknown, ranked, strict=True):
            hits[n] = view.hits(one)
            if vectors is not None:
                self.cache.keep_answer(place, vectors[n], hits[n])
        manifest = view.manifest
        return Answer(hits, view.space.space_id, manifest.sequence, manifest.snapshot_id, clock.laps)

    def _reranked(self, view: View, query: str, ranked: Ranked, options: SearchOptions) -> Ranked:
        if self.reranker is None or not ranked.rows:
            return ranked
        best = ranked.rows[: options.depth]
        scores = self.reranker.scores(query, view.texts(row for row, _ in best))
        order = sorted(range(len(best)), key=lambda place: (-scores[place], place))
        rows = [(best[place][0], float(scores[place])) for place in order]
        parts = {**ranked.parts, "retrieval": dict(ranked.rows), "rerank": dict(rows)}
        # What the reranker did not read stays behind, in the order of the search.
        return Ranked([*rows, *ranked.rows[options.depth :]][: options.k], parts)


def open_index(
    store: Store | str,
    collection: str,
    alias: str = "production",
    *,
    representation: Representation | None = None,
    encoder: Encoder | None = None,
    engine: Engine | None = None,
    encode: bool = True,
    reranker: Reranker | None = None,
    cache: CacheConfig | None = None,
    kernels: Kernels = "auto",
    verify: Verify = "content",
    watch_seconds: float | None = None,
) -> Index:
    """Open a snapshot for search; refuses any mismatch and names it.

    Parameters
    ----------
    store
        A store, or its url.
    collection
        Name of the collection.
    alias
        An alias, a snapshot's number, or the start of a snapshot_id.
    representation
        Which stored representation is searched where a search names none; by default a float one if there is any.
    encoder
        An encoder that is already loaded; taken from the store if not given.
    engine
        What is to run an encoder from the store; by default OpenVINO on a CPU, torch on a GPU.
    encode
        Whether texts will be embedded; without that nothing but NumPy and Arrow is needed, and raw vectors are
        searched.
    reranker
        A cross-encoder, see `isospace.search.reranker.open_reranker`.
    cache
        What of queries is kept.
    kernels
        `numpy` searches with NumPy alone; `fast` with torch and faiss where they are installed; `auto` takes these for
        large collections.
    verify
        `content` compares the SHA-256 of every file that is read, `size` its size alone.
    watch_seconds
        How often the alias is looked at in the background; never if empty.

    Returns
    -------
    Index

    Raises
    ------
    NotFoundError
        If collection or alias does not exist.
    IntegrityError
        If a file is missing or not what was committed.
    MismatchError
        If segments, space and encoder are not of one space, or a probe comes out differently.
    """
    opened = open_store(store) if isinstance(store, str) else store
    if watch_seconds is not None and not watch_seconds > 0:
        raise ConfigError(f"watch_seconds = {watch_seconds}; expected a positive time, or none.")
    opener = Opener(opened, collection, alias, engine, encode, verify, kernels)
    manifest = resolve(opened, collection, alias)
    view = opener.open(manifest, encoder)
    if representation is not None:
        require_representation(view.space.space.transform.quantizers, representation)
    index = Index(opener, view, QueryCache(cache), reranker, representation)
    if watch_seconds is not None:
        index.watch(watch_seconds)
    return index
