"""Erase what a run wrote of documents that were forgotten while it was suspended."""

from __future__ import annotations

from isospace.collection.snapshot import read_manifest, sequences
from isospace.collection.tombstones import forgotten_documents
from isospace.storage.numbered_log import entry_paths
from isospace.storage.parquet import read_parquet
from isospace.storage.paths import CollectionPaths, Kind
from isospace.storage.store import Store


def erase_leftovers(store: Store, collection: str, *, after: int) -> None:
    """Remove parts of no snapshot that hold forgotten documents, and reopen the tombstones after a number.

    A run that was suspended while documents were forgotten writes such parts. The vectors of their chunks are left:
    the next `forget` of the same documents removes them, so their erasure counts as unfinished again.
    """
    paths = CollectionPaths(collection)
    forgotten = forgotten_documents(store, collection)
    manifests = [read_manifest(store, collection, number) for number in sequences(store, collection)]
    named = {ref.path for manifest in manifests for ref in manifest.files()}
    kinds: tuple[Kind, ...] = ("segments", "documents", "chunks")
    for path in [stat.path for kind in kinds for stat in store.walk(paths.folder(kind))]:
        if path not in named and forgotten.intersection(
            read_parquet(store, path, columns=["doc_id"])["doc_id"].to_pylist()
        ):
            store.delete(path)
    for number, path in entry_paths(store, paths.receipts).items():
        if number > after:
            store.delete(path)
