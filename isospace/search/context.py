"""A chunk with the chunks around it in its document, as one text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

# Chunks are trimmed: a short gap is a space, or line breaks.
_SHORT = 8
_LEFT_OUT = " … "


def context_of(chunks: pa.Table, row: int, neighbors: int) -> dict[str, Any]:
    """Return `context`, `context_start`, and `context_end` of a chunk; chunks of a document are rows in their order.

    What two chunks share stands once. Between two there is whitespace, or `…`.
    """
    first, last = max(0, row - neighbors), min(chunks.num_rows, row + neighbors + 1)
    near = chunks.select(["document", "start", "end", "text"]).slice(first, last - first).to_pylist()
    return joined(near, row - first)


def joined(near: Sequence[Mapping[str, Any]], place: int) -> dict[str, Any]:
    """Return what `context_of` returns, given the rows near a chunk, and its place among them."""
    own = near[place]
    members = [chunk for chunk in near if chunk["document"] == own["document"]]
    text, end = "", members[0]["start"]
    for chunk in members:
        gap = chunk["start"] - end
        text += "" if gap <= 0 else " " if gap == 1 else "\n\n" if gap < _SHORT else _LEFT_OUT
        text += chunk["text"][max(0, end - chunk["start"]) :]
        end = max(end, chunk["end"])
    return {"context": text, "context_start": members[0]["start"], "context_end": end}
