"""Orders to forget documents: numbered, kept for ever, and obeyed by every later run over the source."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from isospace.storage.hashing import seal
from isospace.storage.numbered_log import append, entry_paths, read_all
from isospace.storage.paths import CollectionPaths, numbered
from isospace.storage.store import Store


class Tombstone(BaseModel):
    """One order; `allow` lets documents in again that an earlier one kept out."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    number: int
    action: str
    doc_ids: tuple[str, ...]
    reason: str
    at: str


class Receipt(BaseModel):
    """What was done for an order.

    Attributes
    ----------
    order
        Its number.
    doc_ids
        The documents.
    found
        Those of them that the store held.
    chunks
        Their chunks, in every version of them that was there.
    snapshots
        The new number of each snapshot that was written anew, by the old one.
    aliases
        Those that moved.
    removed, rewritten
        Paths.
    vectors
        Raw vectors that no other document shares, and that are gone.
    queries
        Queries of evaluation sets that were made from the documents, and are gone.
    at
        When it was done.
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
    """Return the orders of a collection, oldest first."""
    return read_all(store, CollectionPaths(collection).folder("forgotten"), Tombstone)


def forgotten_documents(store: Store, collection: str) -> frozenset[str]:
    """Return the doc_ids that no run may bring back."""
    forgotten: set[str] = set()
    for order in read_tombstones(store, collection):
        forgotten = forgotten - {*order.doc_ids} if order.action == "allow" else forgotten | {*order.doc_ids}
    return frozenset(forgotten)


def unfinished_tombstones(store: Store, collection: str) -> list[Tombstone]:
    """Return orders without a receipt: what was to be forgotten may still be there."""
    done = entry_paths(store, CollectionPaths(collection).receipts)
    still = forgotten_documents(store, collection)
    found = [
        order for order in read_tombstones(store, collection) if order.action == "forget" and order.number not in done
    ]
    return [order for order in found if not still.isdisjoint(order.doc_ids)]


def write_tombstone(store: Store, collection: str, action: str, doc_ids: tuple[str, ...], reason: str) -> Tombstone:
    """Write an order as the next one; an unfinished one for the same documents is taken up again."""
    still = forgotten_documents(store, collection)
    for order in unfinished_tombstones(store, collection):
        # One that was lifted meanwhile keeps nothing out any more.
        if (order.action, set(order.doc_ids)) == (action, set(doc_ids)) and set(doc_ids) <= still:
            return order
    at = datetime.now(UTC).isoformat(timespec="seconds")

    def make(number: int) -> Tombstone:
        return Tombstone(number=number, action=action, doc_ids=doc_ids, reason=reason, at=at)

    return append(store, CollectionPaths(collection).folder("forgotten"), make)


def write_receipt(store: Store, collection: str, receipt: Receipt) -> str:
    """Write the receipt of an order; return its path."""
    path = numbered(CollectionPaths(collection).receipts, receipt.order)
    body: dict[str, Any] = receipt.model_dump(mode="json")
    body["snapshots"] = {str(old): new for old, new in receipt.snapshots.items()}
    store.write(path, seal(body))
    return path
