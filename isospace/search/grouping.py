"""Search for documents: each by its best chunk, with the best of its chunks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from isospace.search.options import SearchOptions
from isospace.search.view import RankedRows, View
from isospace.transform.vectors import Float32

# In these modes a chunk's score does not depend on what else is searched.
_SCORED_ALONE = frozenset({"auto", "exact", "lexical", "sparse"})
# Rows that are looked up at a time, for one query.
_MOST_ROWS = 1_000


def rank_documents(
    view: View, texts: Sequence[str] | None, vectors: Float32 | None, options: SearchOptions
) -> list[RankedRows]:
    """Rank the chunks of the `k` best documents of each query; a document is as good as its best chunk.

    Where the best chunks are of too few documents, the others are searched again without these. That keeps their order,
    except with mode hybrid, where a score depends on ranks: there, the search goes deeper, up to a limit.

    Parameters
    ----------
    texts, vectors
        As for `View.rank`: m queries, and their (m, k) float32 vectors.
    """
    plain = options.model_copy(update={"group_by": None, "k": min(_first_rows(options), max(1, len(view.copy)))})
    ranked = view.rank(texts, vectors, plain)
    deepened = _deeper if options.mode == "hybrid" else _without_found
    found = []
    for query, rows in enumerate(ranked):
        text = None if texts is None else [texts[query]]
        vector = None if vectors is None else vectors[query : query + 1]
        whole = deepened(view, rows, text, vector, plain, options)
        found.append(group(view, _completed(view, whole, text, vector, plain, options), options))
    return found


def _first_rows(options: SearchOptions) -> int:
    wanted = options.k * options.per_document
    return max(wanted, options.depth) if options.mode == "hybrid" else max(wanted, 2 * options.k)


def _without_found(
    view: View,
    ranked: RankedRows,
    text: list[str] | None,
    vector: Float32 | None,
    plain: SearchOptions,
    options: SearchOptions,
) -> RankedRows:
    """Return the rows, and those of further documents until there are `k`, or no more."""
    rows, asked = list(ranked.rows), plain.k
    passing = view.passing(options.filter, options.scope)
    owners = _owners(view)
    last = len(rows)
    while last >= asked and len(documents := _documents(view, rows)) < options.k:
        left = np.arange(len(view.copy), dtype=np.int64) if passing is None else passing
        left = left[~np.isin(owners[left], list(documents))]
        if not len(left):
            break
        asked = min(2 * asked, _MOST_ROWS, len(left))
        more = view.rank(text, vector, plain.model_copy(update={"k": asked}), within=left)[0].rows
        rows, last = rows + more, len(more)
    return RankedRows(rows, ranked.parts)


def _deeper(
    view: View,
    ranked: RankedRows,
    text: list[str] | None,
    vector: Float32 | None,
    plain: SearchOptions,
    options: SearchOptions,
) -> RankedRows:
    """Return the rows of a search that goes deep enough for `k` documents, or to the limit."""
    asked, limit = plain.k, min(len(view.copy), max(plain.k, _MOST_ROWS))
    while len(ranked.rows) >= asked and asked < limit and len(_documents(view, ranked.rows)) < options.k:
        asked = min(2 * asked, limit)
        ranked = view.rank(text, vector, plain.model_copy(update={"k": asked}))[0]
    return ranked


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
    ranked: RankedRows,
    text: list[str] | None,
    vector: Float32 | None,
    plain: SearchOptions,
    options: SearchOptions,
) -> RankedRows:
    """Return the rows with all chunks of the `k` best documents, of which the search may not have found some."""
    if options.per_document == 1 or options.mode not in _SCORED_ALONE or not ranked.rows:
        return ranked
    if options.mode == "auto" and not view.is_exact(options):
        return ranked
    documents = list(_documents(view, ranked.rows))[: options.k]
    within = np.flatnonzero(np.isin(_owners(view), documents)).astype(np.int64)
    found: list[tuple[int, float]] = []
    for document in documents:
        own = within[_owners(view)[within] == document]
        most = plain.model_copy(update={"k": options.per_document, "rerank": False})
        found += view.rank(text, vector, most, within=own)[0].rows
    return RankedRows(found, ranked.parts)


def _documents(view: View, rows: Sequence[tuple[int, float]]) -> dict[int, None]:
    """Return the documents of rows, as rows of `documents`, the best first."""
    owners = _owners(view)
    return dict.fromkeys(int(owners[row]) for row, _ in rows)


def _owners(view: View) -> npt.NDArray[np.int32]:
    owners: npt.NDArray[np.int32] = view.copy.chunks["document"].to_numpy()
    return owners
