"""Erase what a run wrote of documents that were forgotten while it was suspended."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import PurePosixPath

from isospace.collection.snapshot import read_manifest, sequences
from isospace.collection.tombstones import forgotten_documents
from isospace.errors import IntegrityError, NotFoundError
from isospace.search.lexical_record import lexical_files
from isospace.search.remote.record import published_files
from isospace.search.sql_database import serving_files
from isospace.storage.numbered_log import entry_paths
from isospace.storage.parquet import read_parquet
from isospace.storage.paths import CollectionPaths, Kind
from isospace.storage.store import Store

_PARTS: tuple[Kind, ...] = ("segments", "documents", "chunks")
_SEARCH_FILES: tuple[Kind, ...] = ("serving", "lexical", "remote")


def erase_leftovers(store: Store, collection: str, *, after: int) -> None:
    """Remove files of no snapshot that hold forgotten documents, and reopen the tombstones after a number.

    A run that was suspended while documents were forgotten writes such files. The vectors of their chunks are left:
    the next `forget` of the same documents removes them, so their erasure counts as unfinished again.
    """
    paths = CollectionPaths(collection)
    forgotten = forgotten_documents(store, collection)
    named, derived = set[str](), set[str]()
    for number in sequences(store, collection):
        manifest = read_manifest(store, collection, number)
        named |= {ref.path for ref in manifest.files()}
        derived |= {*serving_files(manifest), *lexical_files(store, manifest), *published_files(store, manifest)}
    for path in [stat.path for kind in _PARTS for stat in store.walk(paths.folder(kind))]:
        if path not in named and _may_hold(store, path, forgotten):
            store.delete(path)
    for path in [stat.path for kind in _SEARCH_FILES for stat in store.walk(paths.folder(kind))]:
        if path not in derived:
            store.delete(path)
    _erase_samples(store, paths.folder("references"), forgotten)
    for folder in ("listings", "samples"):
        for stat in list(store.walk(paths.folder(folder))):
            store.delete(stat.path)
    for number, path in entry_paths(store, paths.receipts).items():
        if number > after:
            store.delete(path)


def _erase_samples(store: Store, folder: str, forgotten: Collection[str]) -> None:
    """Remove samples for audits that hold forgotten documents; the next audit draws others."""
    stats = list(store.walk(folder))
    gone = {s.path for s in stats if s.path.endswith(".parquet") and _may_hold(store, s.path, forgotten)}
    kept = {stat.path for stat in stats} - gone
    for record in [path for path in kept if path.endswith(".json")]:
        # A sample is named after the space of its record, so that none needs to be read.
        space = PurePosixPath(record).stem
        if not any(path.endswith(".parquet") and PurePosixPath(path).name.startswith(space) for path in kept):
            gone.add(record)
    for path in sorted(gone):
        store.delete(path)


def _may_hold(store: Store, path: str, doc_ids: Collection[str]) -> bool:
    try:
        return not set(doc_ids).isdisjoint(read_parquet(store, path, columns=["doc_id"])["doc_id"].to_pylist())
    except NotFoundError:
        return False
    except IntegrityError:
        # No snapshot names it, and it cannot be read.
        return True
