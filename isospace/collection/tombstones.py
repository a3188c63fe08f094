"""Tombstones: permanent, numbered records of forgotten documents, which every later run leaves out."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace.collection.absent import require_collection
from isospace.errors import ConflictError, NotFoundError
from isospace.storage.hashing import seal
from isospace.storage.numbered_log import append, entry_paths, read_all
from isospace.storage.paths import CollectionPaths, numbered
from isospace.storage.store import Store


class Tombstone(BaseModel):
    """One record; the action is `forget`, or `allow` to let later runs ingest forgotten documents again."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    action: str
    doc_ids: tuple[str, ...]
    reason: str
    at: str


class Receipt(BaseModel):
    """What was erased for a tombstone.

    Attributes
    ----------
    order
        Number of the tombstone.
    found
        The documents that were in the store.
    chunks
        Number of their chunks, in all stored versions of the documents.
    snapshots
        The number of each rewritten snapshot, by its old number. Both are equal; only earlier versions gave a rewritten
        snapshot a new number.
    aliases
        Aliases that moved.
    removed, rewritten
        Paths.
    vectors
        Number of removed raw vectors; those shared with other documents stay.
    queries
        Number of removed queries that evaluation sets derived from the documents.
    at
        When the erasure was completed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    order: int
    doc_ids: tuple[str, ...]
    found: tuple[str, ...]
    chunks: int
    snapshots: dict[int, int]
    aliases: tuple[str, ...]
    removed: tuple[str, ...]
    rewritten: tuple[str, ...]
    vectors: int
    queries: int
    at: str


def read_tombstones(store: Store, collection: str) -> list[Tombstone]:
    """Return the tombstones of a collection, oldest first."""
    return read_all(store, CollectionPaths(collection).folder("forgotten"), Tombstone)


def count_tombstones(store: Store, collection: str) -> int:
    """Return the number of the newest tombstone; 0 if there is none."""
    return max(entry_paths(store, CollectionPaths(collection).folder("forgotten")), default=0)


def forgotten_documents(store: Store, collection: str) -> frozenset[str]:
    """Return the doc_ids that no run may ingest again."""
    forgotten: set[str] = set()
    for tombstone in read_tombstones(store, collection):
        doc_ids = {*tombstone.doc_ids}
        forgotten = forgotten - doc_ids if tombstone.action == "allow" else forgotten | doc_ids
    return frozenset(forgotten)


def unfinished_tombstones(store: Store, collection: str) -> list[Tombstone]:
    """Return the tombstones without a receipt, whose documents may still be in the store."""
    done = entry_paths(store, CollectionPaths(collection).receipts)
    forgotten = forgotten_documents(store, collection)
    return [
        tombstone
        for tombstone in read_tombstones(store, collection)
        if tombstone.action == "forget" and tombstone.number not in done and not forgotten.isdisjoint(tombstone.doc_ids)
    ]


def settled_tombstones(store: Store, collection: str) -> int | None:
    """Return the number of the newest tombstone, 0 without any; None while an erasure is not complete."""
    newest = count_tombstones(store, collection)
    return None if newest and unfinished_tombstones(store, collection) else newest


def write_tombstone(store: Store, collection: str, action: str, doc_ids: tuple[str, ...], reason: str) -> Tombstone:
    """Write the next tombstone, or return an unfinished one for the same documents."""
    forgotten = forgotten_documents(store, collection)
    for tombstone in unfinished_tombstones(store, collection):
        # If some documents have been allowed again since then, the old tombstone no longer covers them.
        if (tombstone.action, set(tombstone.doc_ids)) == (action, set(doc_ids)) and set(doc_ids) <= forgotten:
            return tombstone
    at = datetime.now(UTC).isoformat(timespec="seconds")

    def make(number: int) -> Tombstone:
        return Tombstone(number=number, action=action, doc_ids=doc_ids, reason=reason, at=at)

    return append(store, CollectionPaths(collection).folder("forgotten"), make)


def allow_documents(store: Store, collection: str, doc_ids: Collection[str], *, reason: str) -> Tombstone:
    """Let later runs ingest documents again that were forgotten.

    Raises
    ------
    NotFoundError
        If one of them was not forgotten, or if there is no such collection.
    """
    if unknown := set(doc_ids) - forgotten_documents(store, collection):
        require_collection(store, collection)
        raise NotFoundError(f"{sorted(unknown)[0]!r} is not among the forgotten documents of {collection!r}.")
    return write_tombstone(store, collection, "allow", tuple(sorted(set(doc_ids))), reason)


def require_no_newer_tombstone(store: Store, collection: str, known: int) -> None:
    """Raise ConflictError if documents were forgotten since there were `known` tombstones."""
    if (newest := count_tombstones(store, collection)) > known:
        raise ConflictError(
            f"collection {collection!r}: documents were forgotten (order {newest}) since this command began; nothing "
            "was committed. Run the same command again: it leaves them out."
        )


def write_receipt(store: Store, collection: str, receipt: Receipt) -> str:
    """Write the receipt of a tombstone; return its path."""
    path = numbered(CollectionPaths(collection).receipts, receipt.order)
    body: dict[str, Any] = receipt.model_dump(mode="json")
    body["snapshots"] = {str(old): new for old, new in receipt.snapshots.items()}
    store.write(path, seal(body))
    return path
