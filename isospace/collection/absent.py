"""What to say of a collection that a store does not have: its name may be misspelled."""

from __future__ import annotations

from isospace.errors import NotFoundError
from isospace.storage.paths import checked_name, list_collections
from isospace.storage.store import Store


def absent_collection(store: Store, collection: str, lacks: str = "not") -> NotFoundError:
    """Return the error of a collection that is not there; it lists those that are.

    Parameters
    ----------
    lacks
        What is not in the store: `not` for the collection itself, or such as `no snapshot`.
    """
    # It is there itself if a first run was stopped, or if it has nothing but an evaluation set.
    known = ", ".join(name for name in list_collections(store) if name != collection) or "none"
    folder = " The folder does not exist." if store.root is not None and not store.root.is_dir() else ""
    return NotFoundError(f"collection {collection!r}: {lacks} in {store.url}. Collections there: {known}.{folder}")


def require_collection(store: Store, collection: str) -> None:
    """Raise NotFoundError if a store does not have a collection, not even one without a snapshot."""
    if checked_name(collection, "collection") not in list_collections(store):
        raise absent_collection(store, collection)
