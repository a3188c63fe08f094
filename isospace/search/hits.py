"""What a search returns: ranked rows, hits, and what was missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from isospace.search.approximate.index import Visited

Ranking: TypeAlias = list[tuple[int, float]]
Visits: TypeAlias = Sequence[Visited | None]


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk that matches a query."""

    score: float
    """Higher is better. For cosine: the inner product of the unit vectors of query and chunk."""
    chunk_id: str
    doc_id: str
    uri: str
    title: str
    text: str
    start: int
    """First character of the chunk in the document's text."""
    end: int
    """One past its last character."""
    metadata: dict[str, Any]
    """Metadata of the document."""
    scores: dict[str, float]
    """The scores that `score` combines, by name (`vector`, `bm25`, `sparse`, `retrieval`, `rerank`); empty if it is
    just one."""
    context: str = ""
    """The chunk with those around it, if `neighbors` asks for them."""
    context_start: int = 0
    """First character of the context in the document's text."""
    context_end: int = 0
    """One past its last character."""
    percentile: float | None = None
    """With `explain`: percentage of pairs of chunks of different documents whose cosine is lower than that of query and
    chunk; of up to 32,640 pairs of the snapshot. None if the chunk was not found by its cosine."""
    heading_path: list[str] = field(default_factory=list)
    """The headings above the chunk, outermost first; empty if none is known."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class RankedRows:
    """Rows with their scores, best first; `parts` holds the combined scores, by name and row."""

    rows: Ranking
    parts: dict[str, dict[int, float]]
    visited: Visited | None = None
    """What an approximate search visited; None for one that scored every row."""


@dataclass(frozen=True, slots=True)
class Missing:
    """What a search left out, since shards do not answer.

    Attributes
    ----------
    shards
        The missing ones, as `2/3`.
    searched
        The share of the snapshot's chunks that was searched.
    """

    shards: tuple[str, ...]
    searched: float
