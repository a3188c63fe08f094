"""The result of a search: hits, the snapshot that was searched, and timings."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from isospace.search.approximate.index import Visited
from isospace.search.hits import Hit, Missing


@dataclass(frozen=True, slots=True)
class Answer:
    """The hits of a batch of queries, all from one snapshot."""

    hits: list[list[Hit]]
    """One list per query."""
    space_id: str
    snapshot: int
    snapshot_id: str
    seconds: dict[str, float]
    """By stage: `embed`, `search`, `rerank`."""
    visited: list[Visited | None] = field(default_factory=list)
    """For each query, what an approximate search visited; None for one that scored every row, or a cached answer."""
    degraded: str = ""
    """Why words alone were searched, instead of what was asked for: the API of the encoder does not answer."""
    missing: Missing | None = None
    """The shards that were not searched, since they do not answer; None for none."""


class Clock:
    """Measure the seconds of each stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage, and record its seconds."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
