"""`POST /search`: check requests against the limits, and build the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from isospace.errors import MismatchError, NotFoundError
from isospace.search.approximate.index import Visited
from isospace.search.available import search_available
from isospace.search.highlight import snapshot_highlighter
from isospace.search.hits import Hit, Missing
from isospace.search.more_like import example_of
from isospace.search.options import LAST_PLACE, WORD_MODES, SearchOptions, search_options
from isospace.search.paging import last_place, require_snapshot, searched_places
from isospace.search.view import View
from isospace.service.embed_requests import require_characters, require_within
from isospace.service.errors import Problem
from isospace.service.limits import Limits
from isospace.service.schemas import FoundChunk, Like, PartialSearch, QueryResult, SearchRequest, VisitedCells

# A section has at most 20,000 characters.
_HITS_OF_SECTION = 20


def require_query(
    body: SearchRequest, asked: Sequence[str | Like], view: View, limits: Limits, scope: str | None = None
) -> SearchOptions:
    """Check a request against the limits, and return its search options, with the scope of the key or the token.

    Raises
    ------
    Problem
        If another snapshot is required, there are too many hits, a query is too long for the encoder, or there is no
        such chunk to find others like it.
    QueryError
        If the snapshot does not support the options.
    ScopeError
        If the scope cannot be applied to the snapshot.
    """
    _require_snapshot(view, body.snapshot_id)
    texts = [one for one in asked if isinstance(one, str)]
    for name, value in (("k", body.k), ("depth", body.depth)):
        if value > limits.hits:
            raise Problem(400, f"{name} = {value}; expected at most {limits.hits}.", param=name)
    # The text around a hit is as much as so many hits.
    around = _HITS_OF_SECTION if body.neighbors == "section" else 2 * body.neighbors
    each = body.k * (body.per_document if body.group_by is not None else 1) * (1 + around)
    if len(asked) * each > limits.answers:
        raise Problem(
            400, f"{len(asked)} queries x {each} hits; expected at most {limits.answers} hits in all.", param="k"
        )
    if body.rerank and len(asked) * body.depth > limits.pairs:
        raise Problem(
            400,
            f"{len(asked)} queries x depth = {body.depth}; the reranker scores at most {limits.pairs} texts per "
            "request.",
            param="depth",
        )
    require_characters(limits.query_characters, texts)
    if texts and body.mode not in WORD_MODES:
        require_within(limits, [*texts], view.space, "query", param="query")
    options = search_options({**body.options(), "scope": scope})
    _require_few_places(view, options, len(asked), limits)
    # Report errors in the filter before the query is batched with others.
    search_available(view, lambda chosen: chosen.passing(options.filter, options.scope))
    for one in asked:
        if isinstance(one, Like):
            _require_example(view, one, options)
    return options


def _require_snapshot(view: View, snapshot_id: str | None) -> None:
    try:
        require_snapshot(view, snapshot_id)
    except MismatchError as error:
        raise Problem(409, str(error), param="snapshot_id", code="snapshot_mismatch") from error


def _require_example(view: View, like: Like, options: SearchOptions) -> None:
    try:
        search_available(view, lambda chosen: example_of(chosen, like.chunk_ids, options))
    except NotFoundError as error:
        raise Problem(404, str(error), param="like", code="chunk_not_found") from error


def _require_few_places(view: View, options: SearchOptions, queries: int, limits: Limits) -> None:
    """Refuse what takes too long, since also hits are searched that are not returned."""
    if options.offset is None and not options.diversity:
        return
    places, most = searched_places(view, options) * _rows_per_place(options), max(LAST_PLACE, limits.answers)
    if queries * places > most:
        raise Problem(
            400,
            f"{queries} queries x {places} hits to search for a page; expected at most {most} in all. Send fewer "
            "queries in one request.",
            param="offset" if options.offset is not None else "depth",
        )


def _rows_per_place(options: SearchOptions) -> int:
    return options.per_document if options.group_by is not None else 1


def search_cost(key: tuple[View, SearchOptions], _query: str | Like) -> float:
    """Estimate the work of a query, in units of a plain search for ten hits."""
    options = key[1]
    reranked = options.depth if options.rerank else 0
    hits = searched_places(key[0], options) * _rows_per_place(options)
    compared = last_place(options) * options.depth if options.diversity else 0
    # Documents may take several searches.
    plain = 1.0 if options.group_by is None else 2.0
    return plain + hits * max(options.rescore, 1) / 500 + reranked / 2 + compared / 10_000


def found_chunks(view: View, asked: str | Like, hits: Sequence[Hit], visited: Visited | None) -> QueryResult:
    """Return the hits with the spans that match words of the query, if there is one."""
    cells = None if visited is None else VisitedCells(**asdict(visited))
    if isinstance(asked, Like):
        chunks = [FoundChunk(**hit.as_dict(), highlights=[]) for hit in hits]
        return QueryResult(query=None, hits=chunks, visited=cells)
    highlight = search_available(view, lambda chosen: snapshot_highlighter(asked, chosen.lexical))
    chunks = [FoundChunk(**hit.as_dict(), highlights=highlight(hit.text)) for hit in hits]
    return QueryResult(query=asked, hits=chunks, visited=cells)


def partial_search(missing: Sequence[Missing | None]) -> PartialSearch | None:
    """Return what the answer to a request leaves out, given what the answers to its queries do; None for nothing."""
    found = [one for one in missing if one is not None]
    if not found:
        return None
    shards = sorted({name for one in found for name in one.shards})
    return PartialSearch(missing_shards=shards, searched=min(one.searched for one in found))
