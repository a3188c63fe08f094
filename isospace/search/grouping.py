"""Search for documents: each by its best chunk, with the best of its chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isospace.search.options import SearchOptions
from isospace.search.view import RankedRows, View
from isospace.transform.vectors import Float32

# In these modes a chunk's score does not depend on what else is searched: a fused one depends on ranks.
_SCORED_ALONE = frozenset({"auto", "exact", "lexical", "sparse"})


def rank_documents(
    view: View, texts: Sequence[str] | None, vectors: Float32 | None, options: SearchOptions
) -> list[RankedRows]:
    """Rank the chunks of the `k` best documents of each query; a document is as good as its best chunk.

    The search goes as deep as it takes to find so many documents. With mode hybrid, the chunks of a document are those
    that the search found on the way; with quantized and tiered, too.

    Parameters
    ----------
    texts, vectors
        As for `View.rank`: m queries, and their (m, k) float32 vectors.
    """
    plain = options.model_copy(update={"group_by": None})
    count = options.k * options.per_document
    if options.mode not in _SCORED_ALONE:
        count = max(count, options.depth)
    most = len(view.copy)
    found: dict[int, RankedRows] = {}
    open_queries = list(range(len(texts) if texts is not None else len(vectors if vectors is not None else ())))
    while open_queries:
        deeper = plain.model_copy(update={"k": count})
        ranked = view.rank(_of(texts, open_queries), _rows(vectors, open_queries), deeper)
        found |= dict(zip(open_queries, ranked, strict=True))
        # Fewer rows than asked for are all there are.
        open_queries = [
            query
            for query in open_queries
            if len(found[query].rows) >= count and len(_documents(view, found[query])) < options.k
        ]
        if count >= most:
            break
        count = min(2 * count, most)
    return [
        group(view, _completed(view, query, found[query], texts, vectors, plain, options), options)
        for query in sorted(found)
    ]


def group(view: View, ranked: RankedRows, options: SearchOptions) -> RankedRows:
    """Return the rows of the `k` best documents, `per_document` of each at most, the best document first."""
    chosen: dict[int, list[tuple[int, float]]] = {}
    owners = _owners(view)
    for row, score in ranked.rows:
        rows = chosen.get(int(owners[row]))
        if rows is None and len(chosen) < options.k:
            rows = chosen.setdefault(int(owners[row]), [])
        if rows is not None and len(rows) < options.per_document:
            rows.append((row, score))
    return RankedRows([one for rows in chosen.values() for one in rows], ranked.parts)


def _completed(
    view: View,
    query: int,
    ranked: RankedRows,
    texts: Sequence[str] | None,
    vectors: Float32 | None,
    plain: SearchOptions,
    options: SearchOptions,
) -> RankedRows:
    """Return the rows with all chunks of the `k` best documents, of which the search may not have found some."""
    if options.per_document == 1 or options.mode not in _SCORED_ALONE or not ranked.rows:
        return ranked
    if options.mode == "auto" and not view.is_exact(options):
        return ranked
    documents = list(_documents(view, ranked))[: options.k]
    within = np.flatnonzero(np.isin(_owners(view), documents)).astype(np.int64)
    whole = plain.model_copy(update={"k": len(within), "rerank": False})
    return view.rank(_of(texts, [query]), _rows(vectors, [query]), whole, within=within)[0]


def _documents(view: View, ranked: RankedRows) -> dict[int, None]:
    """Return the documents of rows, as rows of `documents`, the best first."""
    owners = _owners(view)
    return dict.fromkeys(int(owners[row]) for row, _ in ranked.rows)


def _owners(view: View) -> npt.NDArray[np.int32]:
    owners: npt.NDArray[np.int32] = view.copy.chunks["document"].to_numpy()
    return owners


def _of(texts: Sequence[str] | None, chosen: Sequence[int]) -> list[str] | None:
    return None if texts is None else [texts[query] for query in chosen]


def _rows(vectors: Float32 | None, chosen: Sequence[int]) -> Float32 | None:
    return None if vectors is None else vectors[list(chosen)]
