"""A local store that is used like an object store: no root, and every request is counted."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from isospace.storage.store import Store, open_store


class RemoteLike:
    """Passes every call on to a store in a folder."""

    root = None

    def __init__(self, folder: Path) -> None:
        self.inner = open_store(folder)
        self.url = self.inner.url
        self.requests: Counter[str] = Counter()
        self.read_bytes = 0
        self.walked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            self.requests[name] += 1
            if name == "walk":
                self.walked.append(given[0])
            result = getattr(self.inner, name)(*given, **named)
            self.read_bytes += len(result) if isinstance(result, bytes) else 0
            return result

        return call


def remote_like(folder: Path) -> tuple[Store, RemoteLike]:
    """Return the store twice: by its interface, and with its counters."""
    made: Any = RemoteLike(folder)
    return made, made
