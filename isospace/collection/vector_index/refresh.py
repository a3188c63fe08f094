"""Bring the index of an encoder's raw vectors up to date, or make one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from isospace.collection.vector_files import name_of_part, present_parts, vector_part_path, vector_parts
from isospace.collection.vector_index.level import Level, LevelReader
from isospace.collection.vector_index.manifests import old_index_files, read_index, write_index
from isospace.collection.vector_index.merge import (
    Written,
    level_of_files,
    levels_to_merge,
    merged_level,
    publish_level,
)
from isospace.collection.vector_index.pending import Announced, announce, announced
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage import paths as layout
from isospace.storage.store import Store

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Writer:
    """The run that brings an index up to date; without names, nothing about other runs is known."""

    collection: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """The levels to look in.

    Attributes
    ----------
    store, encoder_id
        Where the raw vectors are.
    readers
        The levels.
    """

    store: Store
    encoder_id: str
    readers: tuple[LevelReader, ...]

    @property
    def files(self) -> int:
        """About how many files of raw vectors there are."""
        return sum(reader.level.files for reader in self.readers)


def refresh_index(
    store: Store, encoder_id: str, scratch: Path, *, writer: Writer | None, names: Sequence[str] = ()
) -> VectorIndex:
    """Take in the raw vectors that were written since the last time, and return the index.

    Without an index, or with a damaged one, the hashes of all raw vectors are read, and the index is made.

    Parameters
    ----------
    scratch
        A local folder for levels that are being made, and for those of a caller that may not write.
    writer
        Who may write to the store; None to leave the store as it is.
    names
        Parts to take in if they exist, beside those that were announced.

    Raises
    ------
    IntegrityError
        If a file of raw vectors that is new, or any if there is no index, is damaged.
    """
    levels: Sequence[Level] = ()
    try:
        manifest = read_index(store, encoder_id)
        levels = () if manifest is None else manifest.levels
        known = _readers(store, encoder_id, levels)
    except (IntegrityError, NotFoundError) as error:
        return rebuild_index(store, encoder_id, scratch, levels, error, writer=writer)
    lists = announced(store, encoder_id)
    if manifest is None:
        paths = vector_parts(store, encoder_id)
    else:
        asked = sorted({*names, *(name for one in lists for name in one.names)})
        present = present_parts(store, encoder_id, asked, among=sum(level.files for level in levels))
        paths = [vector_part_path(encoder_id, name) for name in sorted(present)]
    made = level_of_files(store, encoder_id, paths, scratch)
    if writer is None:
        return VectorIndex(store, encoder_id, (*known, *([] if made is None else [made.reader()])))
    if made is not None or manifest is None:
        known = _readers(store, encoder_id, _written(store, encoder_id, scratch, known, made))
    # Only now: if this process is killed before, the next one finds the lists.
    _drop_lists(store, encoder_id, lists, paths, writer)
    return VectorIndex(store, encoder_id, tuple(known))


def rebuild_index(
    store: Store,
    encoder_id: str,
    scratch: Path,
    lost: Sequence[Level],
    error: Exception,
    *,
    writer: Writer | None,
) -> VectorIndex:
    """Make the index from the hashes of all raw vectors, in place of the levels `lost`; `error` says what is wrong."""
    _LOG.warning("the index of raw vectors is damaged, and is made again from all of them: %s", error)
    lists = announced(store, encoder_id)
    paths = vector_parts(store, encoder_id)
    made = level_of_files(store, encoder_id, paths, scratch)
    if writer is None:
        return VectorIndex(store, encoder_id, () if made is None else (made.reader(),))
    added = [] if made is None else [publish_level(store, encoder_id, made)]

    def change(levels: tuple[Level, ...]) -> Sequence[Level]:
        # Another process may have made it again, or added to it.
        return _once([*(level for level in levels if level not in lost), *added])

    manifest = write_index(store, encoder_id, change)
    _drop_lists(store, encoder_id, lists, paths, writer)
    return VectorIndex(store, encoder_id, tuple(_readers(store, encoder_id, manifest.levels)))


def unindexed_parts(index: VectorIndex) -> list[str]:
    """Return the names of parts that exist and are in no level, by a listing of the whole folder.

    They were announced by nobody, or what announced them was lost: an earlier version of isospace wrote them, a run
    was suspended for longer than its lease, or the index was made again beside one.
    """
    known = {name for reader in index.readers for name in reader.files(np.arange(reader.level.files))[0]}
    parts = (name_of_part(path, index.encoder_id) for path in vector_parts(index.store, index.encoder_id))
    return [name for name in parts if name not in known]


def _written(
    store: Store, encoder_id: str, scratch: Path, known: Sequence[LevelReader], made: Written | None
) -> Sequence[Level]:
    """Publish a new level, merge levels if there are too many, and append a manifest; return its levels."""
    added = [] if made is None else [publish_level(store, encoder_id, made)]
    levels = _once([*(reader.level for reader in known), *added])
    old = [levels[n] for n in levels_to_merge([level.entries for level in levels], sum(a.entries for a in added))]
    merged: list[Level] = []
    if old:
        merged = [publish_level(store, encoder_id, merged_level(_readers(store, encoder_id, old), scratch))]

    def change(levels: tuple[Level, ...]) -> Sequence[Level]:
        now = _once([*levels, *added])
        # If another process has merged one of them too, its entries would be in two levels: all stays as it is.
        return _once([*(level for level in now if level not in old), *merged]) if set(old) <= set(now) else now

    manifest = write_index(store, encoder_id, change)
    for stat in old_index_files(store, encoder_id):
        store.delete(stat.path)
    return manifest.levels


def _once(levels: Iterable[Level]) -> list[Level]:
    return list({level.sha256: level for level in levels}.values())


def _readers(store: Store, encoder_id: str, levels: Sequence[Level]) -> list[LevelReader]:
    return [LevelReader(store, layout.vector_index_level(encoder_id, level.sha256), level) for level in levels]


def _drop_lists(
    store: Store, encoder_id: str, lists: Sequence[Announced], paths: Sequence[str], writer: Writer
) -> None:
    """Drop lists whose parts are all in the index or will never exist; shorten others."""
    present = set(paths)
    for one in lists:
        rest = [name for name in one.names if vector_part_path(encoder_id, name) not in present]
        if rest and not one.is_over(writer.collection, writer.run_id):
            if len(rest) == len(one.names):
                continue
            announce(store, encoder_id, rest, collection=one.collection, run_id=one.run_id)
        store.delete(one.path)
