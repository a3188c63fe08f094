"""The local copy of a snapshot: its codes and texts as memory-mapped files.

It consists of groups of parts (`isospace.search.local.group`), which snapshots share: a snapshot in which one percent
has changed needs a new group for that percent. Rows that the snapshot does not have, since documents were deleted after
a group was written, are dead: `live` tells, and nothing finds them.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.live_rows import LivePart
from isospace.collection.shard import Shard
from isospace.collection.snapshot import Manifest, deleted_documents
from isospace.errors import IntegrityError, StoreError
from isospace.search.approximate.lists import CellLists
from isospace.search.context import context_of
from isospace.search.lexical_files import live_postings
from isospace.search.lexical_record import LexicalRecord, read_lexical_record
from isospace.search.local.build import DOCUMENT_COLUMNS, has_lists
from isospace.search.local.choice import KnownGroup, WantedPart, choose, dead_documents
from isospace.search.local.files import Verify, cannot_write
from isospace.search.local.group import (
    GroupKind,
    LocalGroup,
    group_folders,
    group_kind,
    known_groups,
    make_group,
    open_group,
)
from isospace.search.local.openings import note, openings, remove_unused
from isospace.search.local.typed_documents import DocumentTypes
from isospace.search.options import Neighbors
from isospace.search.postings import Postings
from isospace.search.vector.kernels import Codes
from isospace.search.vector.stacked import stack
from isospace.search.vector.topk import Rows
from isospace.search.words import missing_for_words
from isospace.storage.cache import cache_folder
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import Store
from isospace.transform.space import Space

REMOTE = "remote"
"""Folder of the cache for blocks of snapshots that are searched in their store."""
_LEFT_AFTER_SECONDS = 86_400
_ATTEMPTS = 4


@dataclass(frozen=True, eq=False)
class LocalCopy:
    """A snapshot on this machine's disk.

    Attributes
    ----------
    codes
        Each representation of the n rows, by name.
    chunks
        n rows: chunk_id, document (row of `documents`), start, end, prefix, text, heading_path, section_start,
        section_end.
    documents
        One row per document: doc_id, uri, title, metadata (JSON), and a typed column for each metadata field. Those of
        dead rows are among them.
    ranges
        First row and end of each part, in the order of the snapshot.
    live
        (n,) False for dead rows; None if there are none.
    lexical
        Record of the BM25 index, and the postings of each group; None if the snapshot has none.
    sparse
        Arrays of the inverted index of sparse vectors of each group; None if the snapshot has none.
    lists
        The inverted lists of each group; None without cells.
    parts
        The name of the part of each range.
    types
        What decides the types of `documents`. Those of a shard have no typed columns: they depend on other shards.
    """

    codes: dict[str, Codes]
    chunks: pa.Table
    documents: pa.Table
    ranges: tuple[tuple[int, int], ...]
    live: npt.NDArray[np.bool_] | None = None
    lexical: tuple[LexicalRecord, tuple[Postings, ...]] | None = None
    sparse: tuple[dict[str, npt.NDArray[Any]], ...] | None = None
    lists: tuple[CellLists, ...] | None = None
    parts: tuple[str, ...] = ()
    types: DocumentTypes | None = None

    def __len__(self) -> int:
        return count_live(self.ranges, self.live)

    @functools.cached_property
    def rows(self) -> Rows:
        """int64 live rows in the order of the snapshot's parts: whatever the groups are, it is the same."""
        return rows_in_order(self.ranges, self.live)

    @functools.cached_property
    def owners(self) -> npt.NDArray[np.int32]:
        """(n,) int32 row of `documents` of each chunk."""
        return numbers(self.chunks["document"])

    @functools.cached_property
    def live_documents(self) -> pa.Table:
        """The documents that have a live row."""
        if self.live is None:
            return self.documents
        is_live = np.zeros(self.documents.num_rows, bool)
        is_live[self.owners[self.live]] = True
        return self.documents.filter(pa.array(is_live))

    def chunk_rows(self, rows: Iterable[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return columns of the chunks of rows, in the order given."""
        return pick(self.chunks.select(list(columns)), rows)

    def owner_rows(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        """Return doc_id, uri, title, and metadata of the document of each row."""
        # Not by `owners`, which would read the documents of all chunks.
        owners = (chunk["document"] for chunk in self.chunk_rows(rows, ["document"]))
        return pick(self.documents.select(list(DOCUMENT_COLUMNS)), owners)

    def context(self, row: int, neighbors: Neighbors) -> dict[str, Any]:
        """Return what `isospace.search.context.context_of` returns."""
        return context_of(self.chunks, row, neighbors)

    def rows_of(self, chunk_ids: Sequence[str]) -> Rows:
        """Return the int64 rows, also dead ones, of chunks with some IDs, ascending."""
        # Takes longer to import than most queries take.
        from pyarrow import compute

        column = self.chunks["chunk_id"]
        wanted = pa.array(chunk_ids, column.type)
        found: Rows = np.flatnonzero(compute.is_in(column, value_set=wanted).to_numpy()).astype(np.int64)
        return found


def count_live(ranges: Sequence[tuple[int, int]], live: npt.NDArray[np.bool_] | None) -> int:
    """Return how many rows of ranges are live."""
    if live is None:
        return sum(end - first for first, end in ranges)
    return sum(int(np.count_nonzero(live[first:end])) for first, end in ranges)


def rows_in_order(ranges: Sequence[tuple[int, int]], live: npt.NDArray[np.bool_] | None) -> Rows:
    """Return the int64 live rows of ranges, one range after the other."""
    rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(*one, dtype=np.int64) for one in ranges)])
    return rows if live is None else rows[live[rows]]


def pick(table: pa.Table, rows: Iterable[int]) -> list[dict[str, Any]]:
    """Return rows of a table in the order given; Arrow's `take` would first copy all texts of the table."""
    return [table.slice(int(row), 1).to_pylist()[0] for row in rows]


def take_rows(table: pa.Table, rows: Rows) -> pa.Table:
    """Return rows of a table in the order given; Arrow's `take` would first copy all texts of the table."""
    if not len(rows):
        return table.slice(0, 0)
    ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)]
    return pa.concat_tables(
        [table.slice(int(rows[start]), end - start) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    )


def numbers(column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """Return a column of numbers without nulls; Arrow's own conversion imports pandas."""
    parts = [chunk.to_numpy() for chunk in column.chunks]
    return parts[0] if len(parts) == 1 else np.concatenate([*parts, np.zeros(0, column.type.to_pandas_dtype())])


def open_copy(
    store: Store, manifest: Manifest, space: Space, *, verify: Verify = "content", shard: Shard | None = None
) -> LocalCopy:
    """Open the local copy of a snapshot, or of the parts that a shard has; write first what of it is missing.

    With `verify="content"` the SHA-256 of every file is checked, with `"size"` only its size.

    Raises
    ------
    IntegrityError
        If a file of the snapshot is missing or differs from what was committed.
    MismatchError
        If a segment belongs to another space than the manifest says.
    StoreError
        If the copy cannot be written.
    """
    base = cache_folder() / "snapshots"
    record = read_lexical_record(store, manifest)
    # Words of an index of the first format are found here, which needs libraries that other searches do without.
    has_words = record is not None and (record.index is None or missing_for_words(record.spec) is None)
    kind = group_kind(manifest, record.words if record and has_words else None, lists=has_lists(space))
    wanted = wanted_parts(store, manifest, shard)
    postings = functools.partial(live_postings, store, manifest, record) if record and has_words else None
    # Counted before anything is read: of what an erasure meanwhile removes, this group may hold more.
    erasures = count_erasures(store, manifest.collection)
    for _ in range(_ATTEMPTS):
        groups = _open_groups(store, manifest, space, base, kind, wanted, verify, postings, erasures, shard)
        if groups is not None:
            break
    else:
        raise StoreError(
            f"{base}: files of {manifest.collection} were removed while they were opened. Open the index again, or "
            "set ISOSPACE_CACHE to a folder that nothing else uses."
        )
    copy = _assemble(groups, manifest, wanted, space, record, shard)
    # What the parts of one shard should hold, the manifest does not say: who asks all shards compares their sum.
    if shard is None and len(copy) != manifest.chunks:
        raise IntegrityError(
            f"snapshot {manifest.sequence}: its parts hold {len(copy)} live chunks, its manifest says "
            f"{manifest.chunks}. Restore it."
        )
    return copy


def drop_copies(collection: str) -> None:
    """Remove all local copies and cached blocks of a collection on this machine; a process keeps what it has mapped."""
    for kind in ("snapshots", REMOTE):
        for path in list(group_folders(cache_folder() / kind, collection)):
            shutil.rmtree(path, ignore_errors=True)
    for path in list(openings(collection)):
        path.unlink(missing_ok=True)


def wanted_parts(store: Store, manifest: Manifest, shard: Shard | None = None) -> dict[str, WantedPart]:
    """Return the parts of a snapshot, or of a shard of it, by name, in its order, with their deleted documents."""
    deleted = deleted_documents(store, manifest.deletions)
    return {
        part.name: WantedPart(part, frozenset(deleted.get(part.name, ())))
        for part in manifest.parts
        if shard is None or shard.has(part.name)
    }


def _open_groups(
    store: Store,
    manifest: Manifest,
    space: Space,
    base: Path,
    kind: GroupKind,
    wanted: Mapping[str, WantedPart],
    verify: Verify,
    postings: Callable[[Sequence[LivePart]], Postings] | None,
    erasures: int,
    shard: Shard | None,
) -> list[LocalGroup] | None:
    """Open the groups of a snapshot, largest first; None if one was damaged, or removed meanwhile: then it is gone."""
    choice = choose(list(known_groups(base, kind)), wanted, erasures=erasures)
    known = list(choice.groups)
    try:
        opened = {group.name: open_group(base, group, space, verify) for group in known}
    except OSError as error:
        raise StoreError(f"{base}: cannot read the local copy of the snapshot ({error.strerror or error}).") from error
    if bad := [name for name, group in opened.items() if group is None]:
        for name in bad:
            shutil.rmtree(base / name, ignore_errors=True)
        return None
    if choice.parts or not known:
        parts = [LivePart(wanted[name].record, wanted[name].deleted) for name in choice.parts]
        try:
            base.mkdir(parents=True, exist_ok=True)
            # Before it is written, so that no other process removes it as one that nobody uses.
            made_name = kind.name([(wanted[name].files, wanted[name].deleted) for name in choice.parts])
            note(manifest, [*opened, made_name], shard)
            for path in _leftovers(base):
                shutil.rmtree(path, ignore_errors=True)
            made = make_group(store, manifest, space, parts, base, kind, verify, postings, erasures=erasures)
        except FileNotFoundError:
            # Another process has removed it: it did not know yet that this one needs it.
            return None
        except OSError as error:
            raise cannot_write(base, error) from error
        known.append(made)
        opened[made.name] = open_group(base, made, space, verify)
        if opened[made.name] is None:
            return None
    groups = [group for group in opened.values() if group is not None]
    # In a read-only cache nothing is recorded, and nothing removed.
    with contextlib.suppress(OSError):
        names = [group.known.name for group in groups]
        note(manifest, names, shard)
        remove_unused(base, manifest.collection, names, erasures)
    return sorted(groups, key=lambda group: (-len(group), group.known.name))


def _assemble(
    groups: Sequence[LocalGroup],
    manifest: Manifest,
    wanted: Mapping[str, WantedPart],
    space: Space,
    record: LexicalRecord | None,
    shard: Shard | None,
) -> LocalCopy:
    dead = [_dead_documents(group, wanted) for group in groups]
    chunks, live, known = [], [], 0
    for group, rows in zip(groups, dead, strict=True):
        is_live = np.ones(group.documents.num_rows, bool)
        is_live[rows] = False
        live.append(is_live[numbers(group.chunks["document"])] if len(rows) else np.ones(len(group), bool))
        table = group.chunks
        if known:
            owners = pa.array(numbers(table["document"]) + np.int32(known))
            table = table.set_column(table.column_names.index("document"), "document", owners)
        chunks.append(table)
        known += group.documents.num_rows
    whole = np.concatenate(live)
    mask = None if whole.all() else whole
    lengths = [group.squares for group in groups if group.squares is not None]
    squares = stack(lengths) if lengths else None
    codes = {
        name: Codes(name, quantizer, stack([group.arrays[name] for group in groups]), squares, mask)
        for name, quantizer in space.transform.quantizers.by_name.items()
    }
    types = DocumentTypes(groups, dead, manifest.declared_types)
    documents = (
        types.documents(types.values) if shard is None else pa.concat_tables([group.documents for group in groups])
    )
    places = ranges_in_order([group.known for group in groups], wanted, whole)
    postings = tuple(group.postings for group in groups if group.postings is not None)
    sparse = tuple(group.sparse for group in groups if group.sparse is not None)
    return LocalCopy(
        codes,
        pa.concat_tables(chunks),
        documents,
        tuple(places.values()),
        mask,
        None if record is None else (record, postings),
        sparse or None,
        tuple(group.lists for group in groups if group.lists is not None) or None,
        tuple(places),
        types,
    )


def ranges_in_order(
    groups: Sequence[KnownGroup], wanted: Mapping[str, WantedPart], live: npt.NDArray[np.bool_]
) -> dict[str, tuple[int, int]]:
    """Return first row and end of each part that has live rows, by name, in the order of the snapshot."""
    places, first = {}, 0
    for group in groups:
        for part in group.parts:
            # What a group holds of a part that another one holds too is dead.
            if live[first : first + part.chunks].any():
                places[part.name] = (first, first + part.chunks)
            first += part.chunks
    return {name: places[name] for name in wanted if name in places}


def _dead_documents(group: LocalGroup, wanted: Mapping[str, WantedPart]) -> Rows:
    rows, first = [], 0
    ids = group.documents["doc_id"]
    for part in group.known.parts:
        other = wanted.get(part.name)
        # Most parts are as they were: their IDs are not read.
        is_same = other is not None and other.files == part.files and other.deleted == part.deleted
        if not is_same:
            own = ids.slice(first, part.documents).to_pylist()
            rows += [first + row for row in dead_documents(part, wanted, own)]
        first += part.documents
    return np.array(rows, np.int64)


def count_erasures(store: Store, collection: str) -> int:
    """Return how many erasures of a collection have been ordered."""
    folder = CollectionPaths(collection).folder("forgotten")
    return sum(stat.path.count("/") == folder.count("/") + 1 for stat in store.walk(folder))


def _leftovers(base: Path) -> Iterator[Path]:
    """Yield the folders of processes that died while they wrote a group."""
    for path in base.glob(".making-*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _LEFT_AFTER_SECONDS:
                yield path
