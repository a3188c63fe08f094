"""Build the search files of a replacement snapshot before an alias moves to it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import load_space
from isospace.errors import IntegrityError, MismatchError, NotFoundError
from isospace.pipeline.config import Runtime
from isospace.search.approximate.record import carry_recall
from isospace.search.lexical_files import build_lexical
from isospace.search.lexical_record import carry_absence, read_lexical_record
from isospace.search.remote.publish import publish_snapshot
from isospace.search.remote.record import published_files, remote_record_path
from isospace.search.sql_database import build_serving, is_current, serving_files
from isospace.search.sql_record import read_serving_record
from isospace.storage.store import Store
from isospace.transform.space import Space


def make_searchable(
    store: Store, old: Manifest, new: Manifest, scratch: Path, *, memory_mb: int = 512, from_scratch: bool = False
) -> None:
    """Build the serving database of a snapshot, and a lexical index if the old one has one.

    With `from_scratch`, the database is built from every part of the snapshot, not from an earlier database, whose
    file may hold deleted rows.
    """
    space = load_space(store, new.space_id)
    rows = _table_rows(store, old)
    build_serving(store, new, space, scratch, table_rows=rows, memory_mb=2 * memory_mb, from_scratch=from_scratch)
    try:
        words = read_lexical_record(store, old)
    except IntegrityError:
        # The record is damaged: the next run builds the index from the recipe.
        return
    carry_recall(store, old, new)
    if words is not None:
        build_lexical(store, new, words.spec)
    else:
        carry_absence(store, old, new)
    # With the words, which are published, too.
    _carry_published(store, old, new, space, scratch)


def _carry_published(store: Store, old: Manifest, new: Manifest, space: Space, scratch: Path) -> None:
    """Publish a snapshot for searches without a local copy, if that which it replaces is published."""
    if store.exists(remote_record_path(old)):
        publish_snapshot(store, new, space, scratch)


def purge_serving(
    store: Store, manifests: Iterable[Manifest], scratch: Path, *, memory_mb: int
) -> tuple[list[str], list[str]]:
    """Replace serving databases that may hold rows of documents that were deleted before; return what changed.

    These are the databases that were made from earlier ones, and those that differ from their record. Such a document
    may be in no other file any more, so that nothing tells which databases hold it. A database whose snapshot is
    damaged is removed.

    Returns
    -------
    tuple
        The paths of databases that were built from every part, and of files that were removed.
    """
    rewritten, removed = [], []
    for manifest in manifests:
        files = [path for path in serving_files(manifest) if store.exists(path)]
        if not files or is_current(store, manifest, from_scratch=True):
            continue
        try:
            space = load_space(store, manifest.space_id)
            rows = _table_rows(store, manifest)
            build_serving(store, manifest, space, scratch, table_rows=rows, memory_mb=2 * memory_mb, from_scratch=True)
            rewritten.append(files[0])
        except (IntegrityError, MismatchError, NotFoundError):
            for path in reversed(files):
                store.delete(path)
            removed += files
    return rewritten, removed


def purge_published(store: Store, manifests: Iterable[Manifest], scratch: Path) -> tuple[list[str], list[str]]:
    """Publish snapshots again whose published groups may hold erased documents, and remove what nothing names then.

    A group also holds the rows of parts that a snapshot no longer has. Such a part may be gone, so that nothing tells
    which documents it had. What is published of a damaged snapshot is removed.

    Returns
    -------
    tuple
        The records of snapshots that were written again, and the paths of files that were removed.
    """
    rewritten, removed, named = [], [], set[str]()
    folder = ""
    for manifest in manifests:
        folder, record = manifest.paths.folder("remote"), remote_record_path(manifest)
        try:
            space = load_space(store, manifest.space_id) if store.exists(record) else None
            if space is not None and publish_snapshot(store, manifest, space, scratch):
                rewritten.append(record)
        except (IntegrityError, MismatchError, NotFoundError):
            store.delete(record)
            removed.append(record)
        named |= set(published_files(store, manifest))
    for path in [stat.path for stat in store.walk(folder) if stat.path not in named] if folder else ():
        store.delete(path)
        removed.append(path)
    return rewritten, removed


def _table_rows(store: Store, manifest: Manifest) -> int:
    """Return a `table_rows` that keeps the layout of a snapshot's database; the default if that is unknown."""
    try:
        layout = read_serving_record(store, manifest).layout
    except (IntegrityError, NotFoundError):
        layout = None
    default: int = Runtime.model_fields["serving_table_rows"].default
    return {"table": sys.maxsize, "view": 0, None: default}[layout]
