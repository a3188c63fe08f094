"""More like this: search with the stored vectors of chunks, without encoding anything.

The vectors are searched with as they are stored, in the role of documents. In a space that treats queries otherwise, by
a prompt or an encoder of their own, scores are those of chunks among each other, which are often higher than those of
queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isospace.errors import NotFoundError, QueryError
from isospace.ingest.document import is_unicode
from isospace.search.options import TEXT_MODES, SearchOptions
from isospace.search.vector.topk import Rows
from isospace.search.view import View
from isospace.transform.vectors import Float32

MOST_CHUNKS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Chunks to find others like them."""

    rows: Rows
    """int64 rows of the chunks, which are no hits themselves."""
    vector: Float32
    """(1, k) float32: the stored vector, or the mean of several."""


def example_of(view: View, chunk_ids: Sequence[str] | str, options: SearchOptions) -> Example:
    """Return what a search for chunks like some others needs.

    Of several vectors, the mean is taken; where a space normalizes its vectors, it is normalized, too.

    Parameters
    ----------
    chunk_ids
        One to 100 IDs of chunks of the snapshot; further mentions of the same one do not count.

    Raises
    ------
    NotFoundError
        If the snapshot has no such chunk, or none that `options.scope` lets the caller see; the message is the same.
    QueryError
        If the options need a text, or the IDs are none, too many, or no texts; also if the vectors cancel each other.
    ScopeError
        If the scope cannot be applied.
    """
    names = _names(chunk_ids)
    if options.mode in TEXT_MODES or options.rerank:
        raise QueryError(
            f"mode {options.mode}, rerank {options.rerank}: a search for chunks like {names[0]!r:.80} compares vectors "
            "alone. Use mode auto, exact, quantized, or tiered, or search with a text."
        )
    rows = _visible_rows(view, names, options.scope)
    vectors = view.vectors_of(rows)
    return Example(rows, vectors if len(rows) == 1 else _mean(view, vectors))


def _names(chunk_ids: Sequence[str] | str) -> list[str]:
    names = [chunk_ids] if isinstance(chunk_ids, str) else list(chunk_ids)
    if not all(isinstance(name, str) for name in names):
        raise QueryError(f"chunk IDs are {names!r:.80}; expected a text, or a list of texts.")
    names = list(dict.fromkeys(names))
    if not 1 <= len(names) <= MOST_CHUNKS:
        raise QueryError(f"{len(names)} chunk IDs; expected 1 to {MOST_CHUNKS}.")
    return names


def _visible_rows(view: View, names: Sequence[str], scope: str | None) -> Rows:
    found = view.rows_of([name for name in names if is_unicode(name)], scope)
    if missing := [name for name in names if name not in found]:
        raise NotFoundError(
            f"chunk {missing[0][:200]!r} is not in snapshot {view.manifest.sequence}. Take the chunk_id of a hit in "
            "this snapshot; a changed text has another one."
        )
    # In the order of the IDs: that of the rows is another one where the groups of the local copy are others.
    return np.array([found[name] for name in names], np.int64)


def _mean(view: View, vectors: Float32) -> Float32:
    mean = vectors.astype(np.float64).mean(axis=0, keepdims=True)
    length = float(np.sqrt((mean**2).sum()))
    # Below that, a direction would be made of rounding errors.
    if length < 1e-6 * float(np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1)).max()):
        raise QueryError("the vectors of the chunks cancel each other; expected chunks that have something in common.")
    is_unit = view.space.space.transform.normalization == "l2"
    searched: Float32 = (mean / length if is_unit else mean).astype(np.float32)
    return searched
