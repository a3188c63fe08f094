"""A chunk with the chunks around it in its document, or with its section, as one text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from isospace.search.options import Neighbors

MOST_CHARACTERS = 20_000
"""The longest context of a section; a longer section is returned in part, as whole chunks around the hit."""

# Chunks are trimmed: a short gap is a space, or line breaks.
_SHORT = 8
_LEFT_OUT = " … "
COLUMNS = ("document", "start", "end", "text", "section_start", "section_end")
"""Columns of chunks that a context is made from."""
ReadRows: TypeAlias = Callable[[int, int], Sequence[dict[str, Any]]]
"""From a first row and an end to `COLUMNS` of these rows."""


def context_of(chunks: pa.Table, row: int, neighbors: Neighbors, *, most: int = MOST_CHARACTERS) -> dict[str, Any]:
    """Return the context of a chunk of a table; see `read_context`."""

    def read(first: int, end: int) -> Sequence[dict[str, Any]]:
        listed: list[dict[str, Any]] = chunks.select(list(COLUMNS)).slice(first, end - first).to_pylist()
        return listed

    return read_context(read, chunks.num_rows, row, neighbors, most=most)


def read_context(
    read: ReadRows, total: int, row: int, neighbors: Neighbors, *, most: int = MOST_CHARACTERS
) -> dict[str, Any]:
    """Return `context`, `context_start`, and `context_end` of a chunk; chunks of a document are rows in their order.

    What two chunks share stands once. Between two there is whitespace, or `…`. All of the chunk itself is in it.

    Parameters
    ----------
    read, total
        Read rows, of which there are so many.
    neighbors
        How many chunks before and after, or `section`: what its section has of them, up to `most` characters. A
        document whose headings are not known is one section.
    """
    if neighbors == "section":
        return _joined(_section(read, total, row, most))
    first, last = max(0, row - neighbors), min(total, row + neighbors + 1)
    near = read(first, last)
    own = near[row - first]
    return _joined([chunk for chunk in near if chunk["document"] == own["document"]])


def _section(read: ReadRows, total: int, row: int, most: int) -> list[dict[str, Any]]:
    """Return the chunk and those around it, cut to its section, while they have at most so many characters."""
    (own,) = read(row, row + 1)
    # All of the hit, also what it repeats of the section before, or holds of the one behind.
    begin = min(own["start"], own["section_start"] or 0)
    end = max(own["end"], sys.maxsize if own["section_end"] is None else own["section_end"])
    members, places = [own], {1: row, -1: row}
    while places:
        # In turn, so that the hit is in the middle of what is returned of a long section.
        for step in list(places):
            places[step] += step
            chunk = _within(read, total, places[step], own["document"], begin, end)
            if chunk is None or _length([chunk, *members]) > most:
                del places[step]
            else:
                members.insert(len(members) if step > 0 else 0, chunk)
    return members


def _within(read: ReadRows, total: int, row: int, document: int, begin: int, end: int) -> dict[str, Any] | None:
    """Return what a chunk has of a section; None if that is nothing, or if it is of another document."""
    if not 0 <= row < total:
        return None
    (chunk,) = read(row, row + 1)
    if chunk["document"] != document:
        return None
    first = max(chunk["start"], begin)
    text = chunk["text"][first - chunk["start"] : max(0, end - chunk["start"])].rstrip()
    return {"document": document, "start": first, "end": first + len(text), "text": text} if text else None


def _length(members: list[dict[str, Any]]) -> int:
    return int(max(one["end"] for one in members) - min(one["start"] for one in members))


def _joined(members: list[dict[str, Any]]) -> dict[str, Any]:
    text, end = "", members[0]["start"]
    for chunk in members:
        gap = chunk["start"] - end
        text += "" if gap <= 0 else " " if gap == 1 else "\n\n" if gap < _SHORT else _LEFT_OUT
        text += chunk["text"][max(0, end - chunk["start"]) :]
        end = max(end, chunk["end"])
    return {"context": text, "context_start": members[0]["start"], "context_end": end}
