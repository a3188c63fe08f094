"""Find everything that a store holds of some documents."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from isospace.collection.absent import require_collection
from isospace.collection.snapshot import read_manifest, sequences
from isospace.collection.tombstones import forgotten_documents
from isospace.errors import NotFoundError
from isospace.storage.parquet import read_parquet
from isospace.storage.paths import CollectionPaths, Kind
from isospace.storage.store import Store

# A mistyped file of IDs may hold thousands.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Holding:
    """The data that a store holds of some documents.

    Attributes
    ----------
    doc_ids
        IDs of the documents that the store holds.
    documents, chunks, segments
        Paths of the parts that hold them, whether or not a snapshot names the parts.
    snapshots
        Numbers of the snapshots that name one of these parts.
    hashes
        Hashes of their chunks, in all versions.
    others
        Paths of the other parts. No file ever changes, so none of them needs to be read again.
    """

    collection: str
    doc_ids: frozenset[str]
    documents: tuple[str, ...]
    chunks: tuple[str, ...]
    segments: tuple[str, ...]
    snapshots: tuple[int, ...]
    hashes: frozenset[bytes]
    others: frozenset[str]


def find_documents(store: Store, collection: str, doc_ids: Collection[str], *, but: Collection[str] = ()) -> Holding:
    """Find every part that holds one of the documents, by reading all parts of the collection.

    `but` are paths of parts that are known to hold none of them.

    Raises
    ------
    NotFoundError
        If there is no such collection.
    """
    numbers = sequences(store, collection)
    paths = CollectionPaths(collection)
    # A first run that was stopped leaves parts without a snapshot.
    if not numbers:
        require_collection(store, collection)
    wanted = frozenset(doc_ids)
    hashes = set[bytes]()
    documents, chunks, found_ids = [], [], set[str]()
    kinds: tuple[Kind, ...] = ("documents", "chunks", "segments")
    parts = {kind: [s.path for s in store.walk(paths.folder(kind)) if s.path not in but] for kind in kinds}
    for path in parts["documents"]:
        rows = _rows(store, path, wanted, ["doc_id"])
        if rows:
            documents.append(path)
            found_ids |= {row["doc_id"] for row in rows}
    for path in parts["chunks"]:
        rows = _rows(store, path, wanted, ["doc_id", "chunk_hash"])
        if rows:
            chunks.append(path)
            found_ids |= {row["doc_id"] for row in rows}
            hashes |= {row["chunk_hash"] for row in rows}
    segments = [path for path in parts["segments"] if _rows(store, path, wanted, ["doc_id"])]
    holding = {*documents, *chunks, *segments}
    holders = [
        number for number in numbers if holding & {ref.path for ref in read_manifest(store, collection, number).files()}
    ]
    return Holding(
        collection,
        frozenset(found_ids),
        tuple(documents),
        tuple(chunks),
        tuple(segments),
        tuple(holders),
        frozenset(hashes),
        frozenset({path for paths_of_kind in parts.values() for path in paths_of_kind} - holding),
    )


def require_known(store: Store, collection: str, doc_ids: Collection[str], *, unknown_ok: bool = False) -> Holding:
    """Return what the store holds of documents, all of which it holds or has forgotten before.

    Raises
    ------
    NotFoundError
        If it knows nothing of one of them, and `unknown_ok` is not set; or if there is no such collection.
    """
    held = find_documents(store, collection, doc_ids)
    unknown = unknown_documents(store, held, doc_ids)
    if unknown and not unknown_ok:
        raise unknown_error(collection, unknown, doc_ids, "nothing was erased")
    return held


def unknown_documents(store: Store, held: Holding, doc_ids: Collection[str]) -> list[str]:
    """Return the IDs, sorted, of documents that a collection neither holds nor has forgotten before."""
    # An erasure that was killed may have removed some documents already.
    return sorted(set(doc_ids) - held.doc_ids - forgotten_documents(store, held.collection))


def unknown_error(collection: str, unknown: Sequence[str], doc_ids: Collection[str], outcome: str) -> NotFoundError:
    """Return the error that names unknown IDs; `outcome` says what was done in spite of them."""
    shown = ", ".join(map(repr, unknown[:_SHOWN])) + (", …" if len(unknown) > _SHOWN else "")
    are = f"are unknown: {shown}" if len(unknown) > 1 else "are unknown"
    return NotFoundError(
        f"{unknown[0]!r} is not a document of collection {collection!r} ({len(unknown)} of {len(set(doc_ids))} IDs "
        f"{are}); {outcome}. Correct the ID, or add --unknown-ok to keep such documents out of later runs."
    )


def _rows(store: Store, path: str, wanted: frozenset[str], columns: list[str]) -> list[dict[str, Any]]:
    ids = read_parquet(store, path, columns=["doc_id"])["doc_id"].to_pylist()
    places = [place for place, doc_id in enumerate(ids) if doc_id in wanted]
    return read_parquet(store, path, columns=columns).take(places).to_pylist() if places else []
