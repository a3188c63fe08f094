"""The snapshots of a store's collections, and the aliases that name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from isospace.collection.absent import absent_collection
from isospace.collection.alias import AliasState, alias_states
from isospace.collection.origins import StoredPromise, snapshot_classes, stored_promise
from isospace.collection.snapshot import Manifest, read_manifest, sequences
from isospace.errors import NotFoundError
from isospace.storage.paths import list_collections
from isospace.storage.store import Store


@dataclass(frozen=True, slots=True)
class SnapshotStatus:
    """One snapshot of a collection."""

    collection: str
    snapshot: int
    snapshot_id: str
    space_id: str
    model: str
    """The encoder of its documents, as the recipe names it."""
    documents: int
    chunks: int
    parts: int
    committed_at: str
    aliases: tuple[str, ...]
    promise: StoredPromise
    """What its vectors allow to promise: `bitwise` only if one engine with reproducible bits computed them all."""
    engines: tuple[str, ...]
    """What computed its vectors, one for each class of bits."""
    held: tuple[str, ...] = ()
    """For each alias that is held here: why, by whom, since when, and how to release it."""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


def list_snapshots(store: Store, collection: str | None = None) -> list[SnapshotStatus]:
    """Return the snapshots of one collection, or of all, in the order of their numbers.

    Raises
    ------
    NotFoundError
        If the store holds no collection, or the collection no snapshot.
    """
    there = list_collections(store)
    if collection is None and not there:
        raise NotFoundError(f"{store.url}: holds no collection. Embed one with `isospace run CONFIG`.")
    found = [status for name in ([collection] if collection else there) for status in _of_collection(store, name)]
    if collection and not found:
        raise absent_collection(store, collection, "no snapshot")
    return found


def _of_collection(store: Store, collection: str) -> list[SnapshotStatus]:
    named: dict[int, list[AliasState]] = {}
    for state in alias_states(store, collection).values():
        named.setdefault(state.current.snapshot, []).append(state)
    manifests = (read_manifest(store, collection, number) for number in sequences(store, collection))
    return [_status(store, manifest, named.get(manifest.sequence, [])) for manifest in manifests]


def _status(store: Store, manifest: Manifest, named: Sequence[AliasState]) -> SnapshotStatus:
    messages = (state.held_message(store, manifest.collection) for state in named)
    return SnapshotStatus(
        collection=manifest.collection,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id=manifest.space_id,
        model=str(manifest.recipe.get("encoder", {}).get("model", "")),
        documents=manifest.documents,
        chunks=manifest.chunks,
        parts=len(manifest.parts),
        committed_at=str(manifest.provenance.get("committed_at", "")),
        aliases=tuple(state.current.alias for state in named),
        promise=stored_promise(manifest.origins),
        engines=tuple(origin.describe() for origin in snapshot_classes(manifest.origins)),
        held=tuple(message for message in messages if message),
    )
