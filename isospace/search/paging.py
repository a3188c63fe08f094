"""Pages of a search: parts of one order, which depends neither on `k` nor on `offset`.

An exact search and one by words or terms order all rows, so a page is a part of that order. Everything else looks at
candidates, and how many these are changes the order: the codes that are rescored, the lists that are fused, the hits
that are reranked, or from which diverse ones are selected. A page of such a search comes from the order that `depth`
alone determines.
"""

from __future__ import annotations

from isospace.errors import MismatchError, QueryError
from isospace.search.options import WORD_MODES, SearchOptions
from isospace.search.view import FLOATS, View

_SHORTEST_ID = 8


def require_snapshot(view: View, snapshot_id: str | None) -> None:
    """Refuse a search that requires another snapshot.

    Raises
    ------
    MismatchError
        If `snapshot_id` is neither the ID of the snapshot nor its first eight digits or more; it names both.
    """
    served = view.manifest.snapshot_id
    if snapshot_id is None or (len(snapshot_id) >= _SHORTEST_ID and served.startswith(snapshot_id)):
        return
    raise MismatchError(
        f"the search requires the snapshot {snapshot_id[:64]!r}, but {served} is searched (snapshot "
        f"{view.manifest.sequence}). Pages of two snapshots do not fit together: start again with the first page."
    )


def last_place(options: SearchOptions) -> int:
    """Return the place of the last hit, or of the last document, that a search returns; from 1."""
    return (options.offset or 0) + options.k


def searched_places(view: View, options: SearchOptions) -> int:
    """Return how many hits, or documents, a search has to order for the page that is asked for.

    Raises
    ------
    QueryError
        If the order depends on `depth`, and the page ends behind it.
    """
    last = last_place(options)
    if options.offset is not None and depends_on_depth(view, options):
        if last > options.depth:
            raise QueryError(
                f"offset + k = {last}, but depth = {options.depth}, which determines the order that this search cuts "
                f"into pages. Give depth = {last} or more, with every page."
            )
        return options.depth
    return max(last, options.depth) if options.rerank or options.diversity else last


def depends_on_depth(view: View, options: SearchOptions) -> bool:
    """Return whether the order of a search depends on how many candidates it has."""
    is_chosen_later = options.rerank or options.diversity > 0
    return is_chosen_later or not (options.mode in WORD_MODES or _is_exact(view, options))


def _is_exact(view: View, options: SearchOptions) -> bool:
    if options.mode != "auto":
        return options.mode == "exact"
    if view.declared_recall(options) is not None:
        return False
    chosen = options.representation
    return chosen in FLOATS if chosen is not None else any(name in view.representations for name in FLOATS)
