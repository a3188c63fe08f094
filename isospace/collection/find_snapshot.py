"""Find a snapshot by number or ID, and say what became of one that is gone."""

from __future__ import annotations

from isospace.collection.absent import absent_collection
from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.errors import NotFoundError
from isospace.storage.store import Store

# A daily run without a vacuum leaves hundreds of snapshots: the latest are those to go to.
_LISTED = 12


def require_snapshots(store: Store, collection: str) -> list[int]:
    """Return the snapshot numbers of a collection, ascending; NotFoundError if it has none."""
    numbers = sequences(store, collection)
    if not numbers:
        raise absent_collection(store, collection, "no snapshot")
    return numbers


def find_manifest(store: Store, collection: str, reference: str) -> Manifest:
    """Return the newest snapshot with this number or start of its snapshot_id (8 digits or more).

    Raises
    ------
    NotFoundError
        If there is none; the message lists the numbers that exist, and says if the snapshot was removed.
    """
    numbers = require_snapshots(store, collection)
    number = int(reference) if len(reference) <= 18 and reference.isascii() and reference.isdecimal() else 0
    if number in numbers:
        return read_manifest(store, collection, number)
    if len(reference) >= 8:
        for candidate in reversed(numbers):
            manifest = read_manifest(store, collection, candidate)
            if manifest.snapshot_id.startswith(reference):
                return manifest
    if was_removed(numbers, number):
        raise NotFoundError(f"snapshot {number} of collection {collection!r} {REMOVED}. {listed(collection, numbers)}.")
    raise NotFoundError(
        f"snapshot {reference!r} of collection {collection!r}: not found. {listed(collection, numbers)}. Give one of "
        "these numbers, or at least the first eight digits of a snapshot_id."
    )


REMOVED = "was removed, by a vacuum or by `isospace forget`"
"""What became of a snapshot that was committed and is gone."""


def was_removed(numbers: list[int], number: int) -> bool:
    """Return whether a snapshot was there, by the numbers that are: a number is given only after those before it."""
    return 0 < number < max(numbers, default=0) and number not in numbers


def listed(collection: str, numbers: list[int]) -> str:
    """Return the snapshots of a collection in words, the latest of them if there are many."""
    shown = ", ".join(map(str, numbers[-_LISTED:])) or "none"
    older = len(numbers) - _LISTED
    return f"Snapshots of {collection}: {shown}{f', and {older} older' if older > 0 else ''}"
