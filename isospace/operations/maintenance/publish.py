"""Publish a snapshot that exists for searches without a local copy."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from isospace.collection.alias import resolve
from isospace.collection.snapshot import Manifest
from isospace.collection.tombstones import count_tombstones, require_no_newer_tombstone
from isospace.encoding.embedder import load_space
from isospace.errors import IsospaceError
from isospace.pipeline.forgotten_files import erase_leftovers
from isospace.search.remote.publish import Publication, publish_snapshot
from isospace.storage.leases import run_lease
from isospace.storage.store import Store


def publish(store: Store, collection: str, snapshot: str | int = "production") -> tuple[Manifest, Publication | None]:
    """Write what is missing for searches of a snapshot in the store; None if nothing is.

    It takes the lease of a run, so that no command removes files meanwhile.

    Raises
    ------
    NotFoundError
        If there is no such snapshot.
    IntegrityError
        If a file of the snapshot is missing or differs from what was committed.
    """
    with run_lease(store, collection, "publish"), TemporaryDirectory(prefix="isospace-publish-") as scratch:
        manifest, tombstones = resolve(store, collection, snapshot), count_tombstones(store, collection)
        try:
            done = publish_snapshot(store, manifest, load_space(store, manifest.space_id), Path(scratch))
            require_no_newer_tombstone(store, collection, tombstones)
        except IsospaceError:
            if count_tombstones(store, collection) > tombstones:
                erase_leftovers(store, collection, after=tombstones)
            raise
    return manifest, done
