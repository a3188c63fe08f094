"""`POST /search`: what is asked for, within limits, and what is shown of it."""

from __future__ import annotations

from collections.abc import Sequence

from isospace.search.highlight import highlighter
from isospace.search.options import SearchOptions, search_options
from isospace.search.spec import LexicalSpec
from isospace.search.view import Hit, View
from isospace.service.embed_requests import require_characters, require_within
from isospace.service.errors import Problem
from isospace.service.schemas import FoundChunk, QueryResult, SearchRequest
from isospace.service.settings import Limits


def require_query(body: SearchRequest, queries: Sequence[str], view: View, limits: Limits) -> SearchOptions:
    """Return how to search.

    Raises
    ------
    Problem
        For too many queries or hits, or a query that the encoder would have to cut.
    QueryError
        For options that the snapshot cannot serve.
    """
    if len(queries) > limits.texts:
        raise Problem(400, f"{len(queries)} queries; expected at most {limits.texts} in one request.", param="query")
    for name, value in (("k", body.k), ("depth", body.depth)):
        if value > limits.hits:
            raise Problem(400, f"{name} = {value}; expected at most {limits.hits}.", param=name)
    if len(queries) * body.k > limits.answers:
        raise Problem(
            400, f"{len(queries)} queries x k = {body.k}; expected at most {limits.answers} hits in all.", param="k"
        )
    if body.rerank and len(queries) * body.depth > limits.pairs:
        raise Problem(
            400,
            f"{len(queries)} queries x depth = {body.depth}; the reranker reads at most {limits.pairs} texts a "
            "request.",
            param="depth",
        )
    require_characters(limits, queries)
    if body.mode != "lexical":
        require_within(limits, list(queries), view.space, "query")
    options = search_options(body.options())
    # What is wrong with a filter is told before the query joins others.
    view.passing(options.filter)
    return options


def search_cost(key: tuple[View, SearchOptions], _query: str) -> float:
    """Return about how much work a query is, in plain searches for ten hits."""
    options = key[1]
    read = options.depth if options.rerank else 0
    return 1.0 + options.k * max(options.rescore, 1) / 500 + read / 2


def found_chunks(view: View, query: str, hits: Sequence[Hit]) -> QueryResult:
    """Return hits with the spans that hold words of the query."""
    marked = highlighter(query, view.lexical.spec if view.lexical is not None else LexicalSpec())
    found = [FoundChunk(**hit.as_dict(), highlights=marked(hit.text)) for hit in hits]
    return QueryResult(query=query, hits=found)
