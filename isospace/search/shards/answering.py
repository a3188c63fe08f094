"""What a shard answers: the primitives that a search needs from the rows of its parts.

Rows are numbered among the live rows of the shard, in the order of the snapshot's parts. A document has the number of
its first row. Each request can be answered by any process that has opened the shard of the snapshot.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from isospace.collection.shard import Shard
from isospace.collection.snapshot import Manifest, files_digest
from isospace.errors import IsospaceError
from isospace.search.bm25 import LexicalIndex, Weighted
from isospace.search.filtered_rows import FilteredRows
from isospace.search.local.copy import LocalCopy
from isospace.search.maxscore import Saturation
from isospace.search.metadata import FieldValues
from isospace.search.options import Neighbors
from isospace.search.rest import Rest
from isospace.search.shards.messages import MessageError, packed, require_rows, taken, texts, unpacked
from isospace.search.sparse_index import SparseIndex, sharing
from isospace.search.vector.rescoring import keyed_nearest
from isospace.search.vector.topk import Rows
from isospace.search.view import View

Answer = dict[str, Any]
_METRICS = ("cosine", "dot", "l2", "l1")
_MOST = 1_000_000


def snapshot_key(manifest: Manifest) -> str:
    """Return what identifies a snapshot between a front and its shards: its content, and its files and their order."""
    return f"{manifest.snapshot_id}:{files_digest(manifest)}"


@dataclass(frozen=True, eq=False)
class OpenShard:
    """A shard of an opened snapshot."""

    view: View
    shard: Shard

    @functools.cached_property
    def key(self) -> str:
        """What identifies the snapshot."""
        return snapshot_key(self.view.manifest)

    @property
    def copy(self) -> LocalCopy:
        """The parts of the shard: always on this machine."""
        if not isinstance(self.view.copy, LocalCopy):
            raise AssertionError("a shard without a local copy")
        return self.view.copy

    @functools.cached_property
    def rows(self) -> Rows:
        """(n,) int64 row of the view for each row of the shard."""
        return self.view.copy.rows

    @functools.cached_property
    def places(self) -> Rows:
        """(m,) int64 row of the shard for each row of the view; -1 for dead ones."""
        places = np.full(self.view.copy.chunks.num_rows, -1, np.int64)
        places[self.rows] = np.arange(len(self.rows))
        return places

    @functools.cached_property
    def documents(self) -> npt.NDArray[np.int64]:
        """(n,) int64 first row of the document of each row."""
        _, first, inverse = np.unique(self.view.copy.owners[self.rows], return_index=True, return_inverse=True)
        return first[inverse].astype(np.int64)

    @functools.cached_property
    def filtered(self) -> Callable[[str], FilteredRows]:
        """Return the rows that pass filters, for documents whose metadata have the types that some values decide."""
        copy = self.copy

        def typed(values: str) -> FilteredRows:
            fields = {name: FieldValues.from_dict(one) for name, one in json.loads(values).items()}
            documents = copy.documents if copy.types is None else copy.types.documents(fields)
            return FilteredRows(copy.owners, copy.live, documents)

        return functools.lru_cache(maxsize=2)(typed)

    def fields(self) -> dict[str, Any]:
        """Return the values of each metadata field of the shard's documents, counted."""
        types = self.copy.types
        return {} if types is None else {name: one.as_dict() for name, one in types.values.items()}


def answer(opened: OpenShard, primitive: str, body: Mapping[str, Any]) -> Answer:
    """Answer a request.

    Raises
    ------
    MessageError
        If the request is not what the primitive expects.
    QueryError, ScopeError
        If a filter or a scope cannot be applied.
    """
    known = PRIMITIVES.get(primitive)
    if known is None:
        raise MessageError(f"primitive {primitive[:40]!r}, expected one of {', '.join(PRIMITIVES)}")
    try:
        return known(opened, body)
    except (MessageError, IsospaceError):
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise MessageError(f"{primitive}: {type(error).__name__}: {error}") from error


def describe(opened: OpenShard) -> Answer:
    """Return what a front has to know of a shard of a snapshot."""
    view, copy = opened.view, opened.copy
    counts = {
        name: int(end - first if copy.live is None else np.count_nonzero(copy.live[first:end]))
        for name, (first, end) in zip(copy.parts, copy.ranges, strict=True)
    }
    lexical = view.lexical
    extent = lexical.extent if isinstance(lexical, LexicalIndex) else None
    return {
        "sequence": view.manifest.sequence,
        "space_id": view.space.space_id,
        "chunks": len(opened.rows),
        "parts": [[name, count] for name, count in counts.items()],
        "words": None if extent is None else [extent.chunks, extent.words],
        "sparse": view.sparse is not None,
        "cells": None if view.approximate is None else packed(view.approximate.sizes.astype(np.int64)),
        "fields": json.dumps(opened.fields(), sort_keys=True),
    }


def selected(opened: OpenShard, body: Mapping[str, Any]) -> tuple[Rows | None, bool]:
    """Return the rows of the view that a request is about, None for all; and whether they will be asked for again."""
    chosen = body.get("rows_of")
    if chosen is None:
        return None, False
    where, scope = chosen.get("filter"), chosen.get("scope")
    rows = None
    if where is not None or scope is not None:
        rows = opened.filtered(taken(chosen, "fields", str)).rows(where, scope)
    if chosen.get("rest") is None:
        return rows, True
    rest = chosen["rest"]
    found = opened.rows[_rows(opened, rest, "found")]
    documents = opened.view.copy.owners[opened.rows[_rows(opened, rest, "documents")]]
    left = Rest(found, documents.astype(np.int64), taken(rest, "is_among", bool))
    alive = left.rows(opened.view.copy.owners, opened.view.copy.live)
    return (alive if rows is None else np.intersect1d(rows, alive, assume_unique=True)), False


def _count(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    rows, keep = selected(opened, body)
    found: Answer = {"count": len(opened.rows) if rows is None else len(rows)}
    index = opened.view.approximate
    if body.get("cells") and index is not None:
        passing = index.live_rows if rows is None else index.passing(rows, keep)
        found["cells"] = packed(passing.counts.astype(np.int64))
    return found


def _nearest(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    codes = opened.view.copy.codes
    first, last = codes[taken(body, "first", str)], codes[taken(body, "last", str)]
    vectors = unpacked(body, "vectors", "<f4", (None, first.quantizer.dimension if first is last else None))
    if taken(body, "metric", str) not in _METRICS:
        raise MessageError(f"metric {body['metric']!r}, expected one of {', '.join(_METRICS)}")
    rows, _ = selected(opened, body)
    found = keyed_nearest(
        first,
        last,
        vectors,
        _number(body, "count"),
        metric=body["metric"],
        rescore=_number(body, "rescore"),
        rows=rows,
        kernels=opened.view.usable_kernels,
    )
    return {"queries": [{**_named(opened, one.rows, one.scores), "keys": packed(one.keys)} for one in found]}


def _cells(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    """Return the rows of some cells with the best estimates."""
    index = opened.view.approximate
    if index is None:
        raise MessageError("the shard has no cells")
    rows, keep = selected(opened, body)
    bits = (index.live_rows if rows is None else index.passing(rows, keep)).bits
    found = []
    for query in taken(body, "queries", list):
        cells = unpacked(query, "cells", "<i8", (None,))
        require_rows(cells, index.quantizer.count, "cells")
        # Of the products, those with the cells to visit are looked at.
        products = np.zeros(index.quantizer.count, np.float32)
        products[cells] = unpacked(query, "products", "<f4", (len(cells),))
        turned = unpacked(query, "turned", "<f4", (1, index.quantizer.dimension))
        near, estimates = index.ranked(turned, products, cells, _number(body, "count"), bits)
        found.append({"rows": packed(opened.places[near]), "estimates": packed(estimates.astype(np.float32))})
    return {"queries": found}


def _best(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    """Return the best of some rows by their exact scores."""
    index = opened.view.approximate
    if index is None:
        raise MessageError("the shard has no cells")
    from isospace.search.approximate.index import best_of

    found = []
    for query in taken(body, "queries", list):
        vector = unpacked(query, "vector", "<f4", (opened.view.finest.quantizer.dimension,))
        near = opened.rows[_rows(opened, query, "rows")]
        found.append(_named(opened, *best_of(opened.view.finest, vector, near, _number(body, "count"), body["metric"])))
    return {"queries": found}


def _frequencies(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    return {"counts": packed(np.array(_words(opened).frequencies(texts(body, "words")), np.int64))}


def _lexical(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    words = texts(body, "words")
    bounds = unpacked(body, "bounds", "<f8", (len(words),))
    base, per_word = unpacked(body, "saturation", "<f8", (2,)).tolist()
    rows, _ = selected(opened, body)
    weighted = [Weighted(word, bound) for word, bound in zip(words, bounds.tolist(), strict=True)]
    count = _number(body, "count")
    return _ordered(opened, *_words(opened).best_for(weighted, Saturation(base, per_word), count, rows), count)


def _sparse(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    index = opened.view.sparse
    if not isinstance(index, SparseIndex):
        raise MessageError("the shard has no sparse vectors")
    terms = unpacked(body, "terms", "<i8", (None,))
    impacts = unpacked(body, "impacts", "<i8", (len(terms),))
    rows, _ = selected(opened, body)
    copy = opened.view.copy
    searched = rows if rows is not None or copy.live is None else copy.rows
    return _ordered(opened, *sharing(index.scores_of(terms, impacts), searched), _number(body, "count"))


def _found(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    rows = opened.rows[_rows(opened, body, "rows")].tolist()
    neighbors: Neighbors = "section" if body.get("neighbors") == "section" else _number(body, "neighbors")
    return {"hits": opened.view.found(rows, neighbors)}


def _types(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    """Read the metadata of the documents by types that are those of all shards."""
    opened.filtered(taken(body, "fields", str))
    return {}


def _texts(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    return {"texts": opened.view.texts(opened.rows[_rows(opened, body, "rows")].tolist())}


def _codes(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    """Return the codes of the finest representation."""
    return {"codes": packed(np.asarray(opened.view.finest.array[opened.rows[_rows(opened, body, "rows")]]))}


def _identify(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    """Return the chunk and the document of rows."""
    places = _rows(opened, body, "rows")
    return {"ids": opened.view.chunk_ids(opened.rows[places]), "documents": packed(opened.documents[places])}


def _find(opened: OpenShard, body: Mapping[str, Any]) -> Answer:
    """Return the rows of chunks, by ID."""
    # The scope is applied as a filter of other requests is: by the types of the whole snapshot.
    seen, _ = selected(opened, body)
    found = opened.view.rows_of(texts(body, "chunk_ids"), None)
    rows = np.array(list(found.values()), np.int64)
    kept = np.ones(len(rows), bool) if seen is None else np.isin(rows, seen)
    names = [name for name, is_kept in zip(found, kept, strict=True) if is_kept]
    return {"chunk_ids": names, "rows": packed(opened.places[rows[kept]])}


PRIMITIVES: Mapping[str, Callable[[OpenShard, Mapping[str, Any]], Answer]] = {
    "describe": lambda opened, _: describe(opened),
    "count": _count,
    "nearest": _nearest,
    "cells": _cells,
    "best": _best,
    "frequencies": _frequencies,
    "lexical": _lexical,
    "sparse": _sparse,
    "found": _found,
    "types": _types,
    "texts": _texts,
    "codes": _codes,
    "identify": _identify,
    "find": _find,
}


def _ordered(opened: OpenShard, rows: Rows, scores: npt.NDArray[np.float64], count: int) -> Answer:
    """Return the `count` best rows, and all that tie with the last: which of these are hits, all shards decide."""
    if len(rows) > count:
        kept = scores >= np.partition(scores, len(scores) - count)[len(scores) - count]
        rows, scores = rows[kept], scores[kept]
    return _named(opened, rows, scores)


def _named(opened: OpenShard, rows: Rows, scores: npt.NDArray[np.float64]) -> Answer:
    """Return rows with their scores, chunks, and documents: what order and groups need."""
    places = opened.places[rows]
    return {
        "rows": packed(places),
        "scores": packed(np.asarray(scores, np.float64)),
        "ids": opened.view.chunk_ids(rows),
        "documents": packed(opened.documents[places]),
    }


def _words(opened: OpenShard) -> LexicalIndex:
    if not isinstance(opened.view.lexical, LexicalIndex):
        raise MessageError("the shard has no lexical index, or lacks a library that finds its words")
    return opened.view.lexical


def _rows(opened: OpenShard, body: Mapping[str, Any], name: str) -> Rows:
    return require_rows(unpacked(body, name, "<i8", (None,)), len(opened.rows), name)


def _number(body: Mapping[str, Any], name: str) -> int:
    value: int = taken(body, name, int)
    if not 0 <= value <= _MOST:
        raise MessageError(f"{name} is {value}, expected 0 to {_MOST}")
    return value
