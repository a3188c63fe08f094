"""A snapshot that is searched in its store: what a view reads of a local copy, by ranges of published files."""

from __future__ import annotations

import contextlib
import functools
import shutil
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.snapshot import Manifest
from isospace.errors import IntegrityError, MismatchError, NotFoundError, QueryError
from isospace.ingest.metadata_types import MetadataType
from isospace.search.context import COLUMNS, read_context
from isospace.search.lexical_record import LexicalRecord, read_lexical_record
from isospace.search.local.copy import count_erasures, count_live, ranges_in_order, rows_in_order, wanted_parts
from isospace.search.local.group import group_folders
from isospace.search.local.typed_documents import DocumentTypes
from isospace.search.options import Neighbors
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.blocks import unpack_tables
from isospace.search.remote.group import RemoteGroup, open_group
from isospace.search.remote.postings import RemotePostings
from isospace.search.remote.record import read_published, remote_record_path
from isospace.search.vector.kernels import Codes
from isospace.search.vector.topk import Rows
from isospace.storage.store import Store
from isospace.transform.representations import code_layout, finest_of
from isospace.transform.space import Space

_DECODED = 256
_NOTE = "erasures"


class RemoteCodes:
    """The codes of rows, which are read from the blocks that hold them."""

    def __init__(self, groups: Sequence[RemoteGroup], reader: BlockReader) -> None:
        self._groups, self._reader = tuple(groups), reader
        self._firsts = np.cumsum([0, *map(len, self._groups)], dtype=np.int64)
        self.dtype, self.shape = groups[0].dtype, (int(self._firsts[-1]), groups[0].width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, chosen: slice | Rows) -> npt.NDArray[Any]:
        """Return the (n, width) codes of rows."""
        if isinstance(chosen, slice):
            chosen = np.arange(*chosen.indices(len(self)), dtype=np.int64)
        taken = np.empty((len(chosen), self.shape[1]), self.dtype)
        homes = np.searchsorted(self._firsts, chosen, side="right") - 1
        for number in np.unique(homes):
            group, here = self._groups[number], np.flatnonzero(homes == number)
            rows = chosen[here] - self._firsts[number]
            blocks = group.blocks[rows]
            wanted = np.unique(blocks)
            read = self._reader.read([(group.file("codes"), int(block)) for block in wanted])
            for block, data in zip(wanted, read, strict=True):
                own = group.code_block(int(block), data)
                places = blocks == block
                taken[here[places]] = own.codes[np.searchsorted(own.rows, rows[places])]
        return taken


@dataclass(frozen=True, slots=True)
class _Documents:
    """The documents of a group, and a folder for their typed columns."""

    folder: Path
    documents: pa.Table


class RemoteCopy:
    """What a view reads of a snapshot; the methods are those of `isospace.search.local.copy.LocalCopy`.

    Attributes
    ----------
    codes
        The representation that scores are computed from, by its name.
    ranges, live, lexical
        As for a local copy.
    """

    sparse = None
    lists = None

    def __init__(
        self,
        groups: Sequence[RemoteGroup],
        reader: BlockReader,
        codes: Codes,
        ranges: tuple[tuple[int, int], ...],
        lexical: tuple[LexicalRecord, tuple[RemotePostings, ...]] | None,
        declared: dict[str, MetadataType],
    ) -> None:
        self.groups, self.reader, self.ranges, self.lexical = tuple(groups), reader, ranges, lexical
        self.codes, self.live = {codes.name: codes}, codes.live
        self._declared = declared
        self._firsts = np.cumsum([0, *map(len, self.groups)], dtype=np.int64)
        self._decoded: OrderedDict[tuple[int, int], list[pa.Table]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return count_live(self.ranges, self.live)

    @functools.cached_property
    def rows(self) -> Rows:
        """int64 live rows in the order of the snapshot's parts."""
        return rows_in_order(self.ranges, self.live)

    @functools.cached_property
    def owners(self) -> npt.NDArray[np.int32]:
        """(n,) int32 row of `documents` of each chunk; fetched on first use."""
        first, owners = 0, [np.zeros(0, np.int32)]
        for group in self.groups:
            owners.append(group.owners + np.int32(first))
            first += group.count_documents
        return np.concatenate(owners)

    @functools.cached_property
    def documents(self) -> pa.Table:
        """The documents with a typed column for each metadata field; all are fetched on first use, without the JSON."""
        sources = [_Documents(self.reader.cache.folder / group.folder, group.documents()) for group in self.groups]
        dead = [
            np.zeros(0, np.int64) if group.present is None else np.flatnonzero(~group.present).astype(np.int64)
            for group in self.groups
        ]
        types = DocumentTypes(sources, dead, self._declared)
        return types.documents(types.values).drop_columns(["metadata"])

    @property
    def live_documents(self) -> pa.Table:
        """Refused: it needs a local copy."""
        raise _needs_copy("the documents of all chunks are")

    @property
    def chunks(self) -> pa.Table:
        """Refused: it needs a local copy."""
        raise _needs_copy("the texts of all chunks are")

    def chunk_rows(self, rows: Iterable[int], columns: Sequence[str]) -> list[dict[str, Any]]:
        """Return columns of the chunks of rows, in the order given."""
        return [chunks.select(list(columns)).slice(place, 1).to_pylist()[0] for chunks, _, place in self._texts(rows)]

    def owner_rows(self, rows: Iterable[int]) -> list[dict[str, Any]]:
        """Return doc_id, uri, title, and metadata of the document of each row."""
        found = []
        for chunks, documents, place in self._texts(rows):
            owner = chunks["document"][place].as_py()
            number = documents["number"].to_pylist().index(owner)
            found.append(documents.drop_columns(["number"]).slice(number, 1).to_pylist()[0])
        return found

    def context(self, row: int, neighbors: Neighbors) -> dict[str, Any]:
        """Return what `isospace.search.context.context_of` returns."""
        number = int(np.searchsorted(self._firsts, row, side="right")) - 1
        before = int(self._firsts[number])

        def read(first: int, end: int) -> list[dict[str, Any]]:
            return self.chunk_rows(range(before + first, before + end), COLUMNS)

        return read_context(read, len(self.groups[number]), row - before, neighbors)

    def rows_of(self, chunk_ids: Sequence[str]) -> Rows:
        """Return the int64 rows, also dead ones, of chunks with some IDs, ascending."""
        alike: list[tuple[int, str]] = []
        for first, group in zip(self._firsts.tolist(), self.groups, strict=False):
            for name, rows in group.rows_by_hash(chunk_ids).items():
                alike += [(first + row, name) for row in rows]
        names = self.chunk_rows((row for row, _ in alike), ["chunk_id"])
        found = {row for (row, name), own in zip(alike, names, strict=True) if own["chunk_id"] == name}
        return np.array(sorted(found), np.int64)

    def _texts(self, rows: Iterable[int]) -> list[tuple[pa.Table, pa.Table, int]]:
        """Return for each row the chunks of its block, their documents, and its place in the block."""
        listed = np.array(list(rows), np.int64)
        homes = np.searchsorted(self._firsts, listed, side="right") - 1
        inner = listed - self._firsts[homes]
        blocks = [(int(home), self.groups[home].text_blocks([row])[0]) for home, row in zip(homes, inner, strict=True)]
        tables = self._tables(blocks)
        return [
            (*tables[block], int(row) - self.groups[block[0]].first_text(block[1]))
            for block, row in zip(blocks, inner, strict=True)
        ]

    def _tables(self, blocks: Sequence[tuple[int, int]]) -> dict[tuple[int, int], tuple[pa.Table, pa.Table]]:
        with self._lock:
            found = {block: self._decoded[block] for block in set(blocks) if block in self._decoded}
        missing = sorted(set(blocks) - found.keys())
        if missing:
            read = self.reader.read([(self.groups[group].file("chunks"), block) for group, block in missing])
            found |= {block: unpack_tables(data) for block, data in zip(missing, read, strict=True)}
            with self._lock:
                self._decoded |= {block: found[block] for block in missing}
                while len(self._decoded) > _DECODED:
                    self._decoded.popitem(last=False)
        return {block: (tables[0], tables[1]) for block, tables in found.items()}


def open_remote(store: Store, manifest: Manifest, space: Space, reader: BlockReader) -> RemoteCopy:
    """Open what is published of a snapshot; only records and indexes of groups are read.

    Raises
    ------
    NotFoundError
        If nothing is published of it.
    IntegrityError
        If a published file is missing or was changed.
    MismatchError
        If a group was published of other parts than those of the snapshot.
    """
    published = read_published(store, manifest)
    if published is None:
        raise NotFoundError(
            f"{remote_record_path(manifest)}: not in the store {store.url}, so snapshot {manifest.sequence} cannot be "
            "searched without a local copy. Set recipe.search.remote=true and run the pipeline, run isospace publish, "
            "or open the index with a local copy."
        )
    spec = finest_of(space.record.spec.representations, space.record.dimension)
    squares = space.transform.normalization == "none"
    layout = code_layout(spec, space.record.dimension)
    groups = [open_group(reader, used, manifest.collection, layout, squares=squares) for used in published.groups]
    for group in groups:
        if group.published.representation != spec.name:
            raise MismatchError(
                f"{group.published.name}: holds {group.published.representation}, but snapshot {manifest.sequence} is "
                f"scored by {spec.name}. Run isospace publish."
            )
    live = _stacked([group.live for group in groups], [len(group) for group in groups])
    whole = np.ones(sum(map(len, groups)), bool) if live is None else live
    places = ranges_in_order([group.known for group in groups], wanted_parts(store, manifest), whole)
    array = cast("npt.NDArray[Any]", RemoteCodes(groups, reader))
    # The squares of rows are in the blocks; here, only whether there are any matters.
    lengths = np.ones(1, np.float32) if squares else None
    codes = Codes(spec.name, space.transform.quantizers.by_name[spec.name], array, lengths, live)
    record = read_lexical_record(store, manifest)
    lexical = None
    if record is not None and published.words == record.words:
        lexical = record, tuple(RemotePostings(group) for group in groups)
    copy = RemoteCopy(groups, reader, codes, tuple(places.values()), lexical, manifest.declared_types)
    if len(copy) != manifest.chunks or sum(int(group.counts.sum()) for group in groups) != manifest.chunks:
        raise IntegrityError(
            f"snapshot {manifest.sequence}: its published groups hold {len(copy)} live chunks, its manifest says "
            f"{manifest.chunks}. Delete {remote_record_path(manifest)}, and run isospace publish."
        )
    erasures = count_erasures(store, manifest.collection)
    drop_outdated(reader.cache.folder, manifest.collection, {group.folder: group for group in groups}, erasures)
    return copy


def drop_outdated(base: Path, collection: str, used: Collection[str], erasures: int) -> None:
    """Remove cached blocks that may hold erased documents: of groups not in use, from before the last erasure."""
    for path in list(group_folders(base, collection)):
        with contextlib.suppress(OSError):
            if path.name in used:
                (path / _NOTE).write_text(str(erasures))
                continue
        if _noted(path) < erasures:
            shutil.rmtree(path, ignore_errors=True)


def _noted(folder: Path) -> int:
    try:
        return int((folder / _NOTE).read_text())
    except (OSError, ValueError):
        return 0


def _stacked(masks: Sequence[npt.NDArray[np.bool_] | None], sizes: Sequence[int]) -> npt.NDArray[np.bool_] | None:
    if all(mask is None or mask.all() for mask in masks):
        return None
    return np.concatenate(
        [np.ones(size, bool) if mask is None else mask for mask, size in zip(masks, sizes, strict=True)]
    )


def _needs_copy(what: str) -> QueryError:
    return QueryError(f'{what} not read from the store one by one. Open the index with a local copy (local="copy").')
