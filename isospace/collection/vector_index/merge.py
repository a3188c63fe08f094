"""Make levels of the index: from files of raw vectors, and from smaller levels, with bounded memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from isospace.collection.origins import Origin
from isospace.collection.vector_files import name_of_part, part_origin
from isospace.collection.vector_index.level import (
    ENTRY,
    Entries,
    Level,
    LevelReader,
    sorted_entries,
    write_level,
)
from isospace.storage import paths as layout
from isospace.storage.local_store import LocalStore
from isospace.storage.parquet import from_fixed_binary, read_parquet
from isospace.storage.store import Store

# Entries that are sorted in memory at a time, 36 bytes each.
_ENTRIES_IN_MEMORY = 1 << 20
# Files of an object store that are read at a time.
_REQUESTS = 16
# Levels are of the same size if their numbers of entries are between the same powers of this number; so many of one
# size are merged.
_FAN = 4
_SMALLEST = 4_096
# A run merges no more entries than this, or so many times what it adds; more wait until there are too many levels.
_MERGED, _MERGED_SHARE = 4_000_000, 8
# A lookup asks every level.
_MOST_LEVELS = 24


@dataclass(frozen=True, slots=True)
class Written:
    """A level in a local file, which is not in the store yet."""

    path: Path
    level: Level

    def reader(self) -> LevelReader:
        """Return a reader of the file."""
        folder = self.path.parent
        return LevelReader(LocalStore(str(folder), folder), self.path.name, self.level)


def level_of_files(store: Store, encoder_id: str, paths: Sequence[str], scratch: Path) -> Written | None:
    """Write a level with the chunk hashes of files of raw vectors; None without files.

    Raises
    ------
    IntegrityError
        If a file is damaged.
    NotFoundError
        If a file was deleted meanwhile.
    """
    made = [_sorted_level(some, encoder_id, scratch) for some in _batches(store, paths)]
    if len(made) < 2:
        return made[0] if made else None
    merged = merged_level([one.reader() for one in made], scratch)
    for one in made:
        one.path.unlink()
    return merged


def merged_level(readers: Sequence[LevelReader], scratch: Path) -> Written:
    """Write a level with the entries of several; an entry that is in more than one counts once."""
    listed = [reader.files(np.arange(reader.level.files)) for reader in readers]
    names = sorted({name for some, _ in listed for name in some})
    places = {name: place for place, name in enumerate(names)}
    numbers = [np.array([places[name] for name in some], np.uint32) for some, _ in listed]
    classes = _distinct(origin for reader in readers for origin in reader.level.origins)
    origins = [0] * len(names)
    for reader, (some, kinds) in zip(readers, listed, strict=True):
        for name, kind in zip(some, kinds.tolist(), strict=True):
            origins[places[name]] = classes.index(reader.level.origins[kind])
    path = _new_file(scratch)
    return Written(path, write_level(path, _ranges(readers, numbers), names, origins, classes))


def levels_to_merge(entries: Sequence[int], added: int) -> list[int]:
    """Choose levels that a run merges into one.

    Parameters
    ----------
    entries
        The number of entries of each level.
    added
        How many of them the run has added.

    Returns
    -------
    list
        Positions of levels; empty if none are to be merged.
    """
    order = sorted(range(len(entries)), key=lambda place: (entries[place], place))
    sizes = [_size(entries[place]) for place in order]
    most = max(_MERGED, _MERGED_SHARE * added)
    chosen: list[int] = []
    for size in sorted(set(sizes)):
        smaller = order[: sum(one <= size for one in sizes)]
        if sizes.count(size) >= _FAN and sum(entries[place] for place in smaller) <= most:
            chosen = smaller
    if not chosen and len(entries) > _MOST_LEVELS:
        chosen = order[: len(entries) // 2]
    return sorted(chosen)


def publish_level(store: Store, encoder_id: str, written: Written) -> Level:
    """Move a level to the store."""
    path = layout.vector_index_level(encoder_id, written.level.sha256)
    if not store.create_file(path, written.path) and store.digest(path) != written.level.sha256:
        # The file of that name was damaged.
        store.write_file(path, written.path)
    written.path.unlink()
    return written.level


def _size(entries: int) -> int:
    size = 0
    while entries >= _SMALLEST:
        entries, size = entries // _FAN, size + 1
    return size


def _ranges(readers: Sequence[LevelReader], numbers: Sequence[np.ndarray]) -> Iterator[Entries]:
    """Yield the entries of all levels, a range of keys at a time, which are spread evenly: they are of SHA-256."""
    steps = max(sum(reader.level.entries for reader in readers) // _ENTRIES_IN_MEMORY, 1)
    bounds = [(step << 64) // steps for step in range(steps + 1)]
    for low, high in pairwise(bounds):
        parts = []
        for reader, mapped in zip(readers, numbers, strict=True):
            part = reader.entries(low, high).copy()
            part["file"] = mapped[part["file"]]
            parts.append(part)
        yield sorted_entries(np.concatenate([np.empty(0, ENTRY), *parts]))


def _batches(store: Store, paths: Sequence[str]) -> Iterator[list[tuple[str, Entries, Origin]]]:
    batch: list[tuple[str, Entries, Origin]] = []
    rows = 0
    for path, entries, origin in _read(store, paths):
        batch.append((path, entries, origin))
        rows += len(entries)
        if rows >= _ENTRIES_IN_MEMORY:
            yield batch
            batch, rows = [], 0
    if batch:
        yield batch


def _read(store: Store, paths: Sequence[str]) -> Iterator[tuple[str, Entries, Origin]]:
    def read(path: str) -> tuple[str, Entries, Origin]:
        table = read_parquet(store, path, columns=["chunk_hash"])
        entries = np.zeros(table.num_rows, ENTRY)
        entries["hash"] = from_fixed_binary(table["chunk_hash"], np.dtype("u1"))
        return path, entries, part_origin(table, path)

    if store.root is not None:
        yield from map(read, paths)
        return
    with ThreadPoolExecutor(_REQUESTS) as pool:
        for first in range(0, len(paths), 4 * _REQUESTS):
            yield from pool.map(read, paths[first : first + 4 * _REQUESTS])


def _sorted_level(files: Sequence[tuple[str, Entries, Origin]], encoder_id: str, scratch: Path) -> Written:
    named = sorted((name_of_part(path, encoder_id), entries, origin) for path, entries, origin in files)
    classes = _distinct(origin for _, _, origin in named)
    for number, (_, entries, _) in enumerate(named):
        entries["file"] = number
    entries = sorted_entries(np.concatenate([entries for _, entries, _ in named]))
    path = _new_file(scratch)
    names = [name for name, _, _ in named]
    return Written(path, write_level(path, [entries], names, [classes.index(o) for _, _, o in named], classes))


def _distinct(origins: Iterable[Origin]) -> list[Origin]:
    return sorted(set(origins), key=lambda origin: origin.model_dump_json())


def _new_file(scratch: Path) -> Path:
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch / f"level-{secrets.token_hex(8)}.bin"
