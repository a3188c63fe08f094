"""Search for documents: each by its best chunk, with the best of its chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from isospace.search.options import SearchOptions
from isospace.search.vector.topk import Rows
from isospace.search.view import RankedRows, View
from isospace.transform.vectors import Float32

# Rows that are looked up at a time, for one query.
_MOST_ROWS = 1_000
_Search = Callable[[int, Rows | None], RankedRows]


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
            count: int, within: Rows | None, text: list[str] | None = text, vector: Float32 | None = vector
        ) -> RankedRows:
            return view.rank(text, vector, plain.model_copy(update={"k": count}), within=within)[0]

        whole = (_deeper if is_hybrid else _among_the_rest)(view, ranked, search, asked, options)
        found.append(group(view, whole, options))
    return found


def _among_the_rest(view: View, ranked: RankedRows, search: _Search, asked: int, options: SearchOptions) -> RankedRows:
    """Return the rows, and further ones until `k` documents have `per_document` rows, or all that they have."""
    owners = view.copy.owners
    is_left = np.ones(len(owners), bool)
    rows, found = list(ranked.rows), ranked.rows
    # Fewer rows than asked for are all there are.
    while len(found) >= asked:
        is_left[[row for row, _ in found]] = False
        counts = Counter(int(owners[row]) for row, _ in rows)
        best = list(counts)[: options.k]
        if len(best) < options.k:
            whole = [document for document, count in counts.items() if count >= options.per_document]
            wanted = is_left & ~np.isin(owners, whole)
        else:
            wanted = is_left & np.isin(owners, [one for one in best if counts[one] < options.per_document])
        left = np.flatnonzero(wanted).astype(np.int64)
        if not len(left):
            break
        asked = min(2 * asked, _MOST_ROWS, len(left))
        found = search(asked, left).rows
        rows += found
    return RankedRows(rows, ranked.parts, ranked.visited)


def _deeper(view: View, ranked: RankedRows, search: _Search, asked: int, options: SearchOptions) -> RankedRows:
    """Return the rows of a search that goes deep enough for `k` documents, or to the limit."""
    owners, limit = view.copy.owners, min(len(view.copy), max(asked, _MOST_ROWS))
    while asked < limit and len(ranked.rows) >= asked and len({owners[row] for row, _ in ranked.rows}) < options.k:
        asked = min(2 * asked, limit)
        ranked = search(asked, None)
    return ranked


def group(view: View, ranked: RankedRows, options: SearchOptions) -> RankedRows:
    """Return the rows of the `k` best documents, `per_document` of each at most, the best document first."""
    chosen: dict[int, list[tuple[int, float]]] = {}
    owners = view.copy.owners
    for row, score in ranked.rows:
        rows = chosen.get(int(owners[row]))
        if rows is None and len(chosen) < options.k:
            rows = chosen.setdefault(int(owners[row]), [])
        if rows is not None and len(rows) < options.per_document:
            rows.append((row, score))
    # Approximate scores of a later search may be above those of an earlier one.
    ordered = sorted(chosen.values(), key=lambda rows: -rows[0][1])
    return RankedRows([one for rows in ordered for one in rows], ranked.parts, ranked.visited)
