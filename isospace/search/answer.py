"""What a search found, where, and in what time."""

from __future__ import annotations

import time
from dataclasses import dataclass

from isospace.search.view import Hit


@dataclass(frozen=True, slots=True)
class Answer:
    """What a batch of queries found, all in one snapshot.

    Attributes
    ----------
    hits
        One list a query.
    space_id, snapshot, snapshot_id
        Where it was found.
    seconds
        By stage: `embed`, `search`, `rerank`.
    """

    hits: list[list[Hit]]
    space_id: str
    snapshot: int
    snapshot_id: str
    seconds: dict[str, float]


class Clock:
    """Seconds by stage."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """End a stage."""
        now = time.perf_counter()
        self.laps[name] = now - self._last
        self._last = now
