"""Paths of a store as a person, an editor or another command can open them."""

from __future__ import annotations

from isospace.storage.store import Store


def openable(store: Store, path: str) -> str:
    """Return where a file of a store is: its absolute path, or its URL for an object store."""
    if store.root is not None:
        return str(store.root / path)
    return f"{store.url.rstrip('/')}/{path}"
