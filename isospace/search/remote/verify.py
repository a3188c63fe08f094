"""Verify what is published of a snapshot."""

from __future__ import annotations

import safetensors.numpy

from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError, NotFoundError
from isospace.search.remote.blocks import BlockFile
from isospace.search.remote.layout import INDEX
from isospace.search.remote.record import PublishedGroup, read_group_record, read_published, remote_record_path
from isospace.storage.file_ref import FileRef
from isospace.storage.store import Store


def verify_published(store: Store, manifest: Manifest) -> None:
    """Compare every published file of a snapshot with its records.

    Raises
    ------
    IntegrityError
        If one is missing or was changed, or if the recipe asks for them and the snapshot has no record. For a changed
        file, the message names the first block that differs.
    """
    published = read_published(store, manifest)
    if published is None:
        if manifest.recipe.get("search", {}).get("remote"):
            raise IntegrityError(
                f"{remote_record_path(manifest)}: is missing, but the recipe asks for searches without a local copy. "
                "Run the pipeline again, or isospace publish."
            )
        return
    for used in published.groups:
        group = read_group_record(store, used)
        # The index first: it tells where the blocks of the others are.
        for name in sorted(group.objects, key=lambda one: one != INDEX):
            if not _is_intact(store, group.objects[name]):
                raise _damage(store, group, name)


def _is_intact(store: Store, ref: FileRef) -> bool:
    try:
        return store.digest(ref.path) == ref.sha256
    except NotFoundError:
        return False


def _damage(store: Store, group: PublishedGroup, name: str) -> IntegrityError:
    """Return the error for a damaged object; it names the first block that differs, if the others can be told apart."""
    ref = group.objects[name]
    if name != INDEX and store.exists(ref.path) and store.size(ref.path) == ref.size:
        arrays = safetensors.numpy.load(store.read(group.objects[INDEX].path))
        file = BlockFile(ref, group.name, arrays[f"{name}.ends"], arrays[f"{name}.checks"])
        for number in range(len(file)):
            start, end = file.span(number)
            if not file.is_intact(number, store.read_range(ref.path, start, end - start)):
                return file.damaged(number)
    return IntegrityError(
        f"{ref.path}: is missing or was changed. Delete it, and run the pipeline again, or isospace publish; until "
        "then, open the index with a local copy."
    )
