"""Search for documents: each by its best chunk, with the best of its chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from isospace.search.hits import RankedRows, Ranking
from isospace.search.options import SearchOptions
from isospace.search.rest import Rest
from isospace.search.view import View
from isospace.transform.vectors import Float32

# Rows that are looked up at a time, for one query.
_MOST_ROWS = 1_000
_Search = Callable[[int, Rest | None], RankedRows]


def rank_documents(
    view: View, texts: Sequence[str] | None, vectors: Float32 | None, options: SearchOptions
) -> list[RankedRows]:
    """Rank the chunks of the `k` best documents of each query; a document is as good as its best chunk.

    What is still wanted after a first search is searched for among the rows that are left. That keeps the order, except
    with mode hybrid, where a score depends on ranks: there, the search goes deeper, up to a limit.

    Parameters
    ----------
    texts, vectors
        As for `View.rank`: m queries, and their (m, k) float32 vectors.
    """
    is_hybrid = options.mode == "hybrid"
    asked = max(options.k * options.per_document, options.depth if is_hybrid else 2 * options.k)
    plain = options.model_copy(update={"group_by": None, "k": asked})
    found = []
    for query, ranked in enumerate(view.rank(texts, vectors, plain)):
        text = None if texts is None else [texts[query]]
        vector = None if vectors is None else vectors[query : query + 1]

        def search(
            count: int, within: Rest | None, text: list[str] | None = text, vector: Float32 | None = vector
        ) -> RankedRows:
            return view.rank(text, vector, plain.model_copy(update={"k": count}), within=within)[0]

        whole = (_deeper if is_hybrid else _among_the_rest)(view, ranked, search, asked, options)
        found.append(group(view, whole, options))
    return found


def _among_the_rest(view: View, ranked: RankedRows, search: _Search, asked: int, options: SearchOptions) -> RankedRows:
    """Return the rows, and further ones until `k` documents have `per_document` rows, or all that they have."""
    rows, found = list(ranked.rows), ranked.rows
    # Fewer rows than asked for are all there are.
    while len(found) >= asked:
        counts = Counter(_documents(view, rows))
        best = list(counts)[: options.k]
        seen = np.array([row for row, _ in rows], np.int64)
        if len(best) < options.k:
            whole = [document for document, count in counts.items() if count >= options.per_document]
            rest = Rest(seen, np.array(whole, np.int64), is_among=False)
        else:
            wanted = [document for document in best if counts[document] < options.per_document]
            if not wanted:
                break
            rest = Rest(seen, np.array(wanted, np.int64), is_among=True)
        asked = min(2 * asked, _MOST_ROWS)
        found = search(asked, rest).rows
        rows += found
    return RankedRows(rows, ranked.parts, ranked.visited)


def _deeper(view: View, ranked: RankedRows, search: _Search, asked: int, options: SearchOptions) -> RankedRows:
    """Return the rows of a search that goes deep enough for `k` documents, or to the limit."""
    limit = min(view.size, max(asked, _MOST_ROWS))
    while asked < limit and len(ranked.rows) >= asked and len(set(_documents(view, ranked.rows))) < options.k:
        asked = min(2 * asked, limit)
        ranked = search(asked, None)
    return ranked


def group(view: View, ranked: RankedRows, options: SearchOptions) -> RankedRows:
    """Return the rows of the `k` best documents, `per_document` of each at most, the best document first."""
    chosen: dict[int, list[tuple[int, float]]] = {}
    for document, (row, score) in zip(_documents(view, ranked.rows), ranked.rows, strict=True):
        rows = chosen.get(document)
        if rows is None and len(chosen) < options.k:
            rows = chosen.setdefault(document, [])
        if rows is not None and len(rows) < options.per_document:
            rows.append((row, score))
    # Approximate scores of a later search may be above those of an earlier one.
    ordered = sorted(chosen.values(), key=lambda rows: -rows[0][1])
    return RankedRows([one for rows in ordered for one in rows], ranked.parts, ranked.visited)


def _documents(view: View, rows: Ranking) -> list[int]:
    numbers: list[int] = view.documents_of(np.array([row for row, _ in rows], np.int64)).tolist()
    return numbers
