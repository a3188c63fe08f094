"""An opened group of published objects: its index is in memory, everything else is read by blocks."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import safetensors
import safetensors.numpy

from isospace.errors import IntegrityError
from isospace.search.local.choice import KnownGroup
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.blocks import BlockFile, unpack_array, unpack_tables
from isospace.search.remote.layout import INDEX, PLAIN_ROWS, hash_of
from isospace.search.remote.record import PublishedGroup, UsedGroup, read_group_record, unpack_bits
from isospace.search.vector.topk import Rows

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class CodeBlock:
    """The codes of a cell in one group.

    Attributes
    ----------
    rows
        (n,) int64 rows of the group, ascending.
    codes
        (n, width).
    squares
        (n,) float32 squared lengths; None for unit vectors.
    """

    rows: Rows
    codes: npt.NDArray[Any]
    squares: npt.NDArray[np.float32] | None


@dataclass(frozen=True, eq=False)
class RemoteGroup:
    """A published group as a snapshot uses it.

    Attributes
    ----------
    known
        Its parts, in the order of its rows.
    folder
        Folder of its blocks in the disk cache.
    live
        (n,) False for dead rows; None if all are live.
    present
        (d,) False for documents that the snapshot does not have; None if it has all.
    counts
        (b,) int64: live rows of each block of codes.
    width, dtype
        Of the codes.
    has_squares
        Whether blocks of codes have squared lengths.
    """

    known: KnownGroup
    folder: str
    reader: BlockReader
    published: PublishedGroup
    index: dict[str, npt.NDArray[Any]]
    live: Bools | None
    present: Bools | None
    counts: npt.NDArray[np.int64]
    width: int
    dtype: np.dtype[Any]
    has_squares: bool

    def __len__(self) -> int:
        return self.known.chunks

    @functools.cached_property
    def count_documents(self) -> int:
        """Number of its documents, dead ones included."""
        return sum(part.documents for part in self.known.parts)

    def file(self, name: str) -> BlockFile:
        """Return one of its objects."""
        return self._files[name]

    @functools.cached_property
    def _files(self) -> dict[str, BlockFile]:
        return {
            name: BlockFile(ref, self.folder, self.index[f"{name}.ends"], self.index[f"{name}.checks"])
            for name, ref in self.published.objects.items()
            if name != INDEX
        }

    @functools.cached_property
    def places(self) -> npt.NDArray[np.int64] | None:
        """(c,) block of codes of each cell; None without cells."""
        if "codes.cells" not in self.index:
            return None
        places = np.empty(len(self.index["codes.cells"]), np.int64)
        places[self.index["codes.cells"]] = np.arange(len(places))
        return places

    @functools.cached_property
    def owners(self) -> npt.NDArray[np.int32]:
        """(n,) int32 document of each row; fetched on first use."""
        (data,) = self.reader.read([(self.file("rows"), 0)])
        return np.cumsum(unpack_array(data, np.int32), dtype=np.int32)

    @functools.cached_property
    def blocks(self) -> npt.NDArray[np.int64]:
        """(n,) block of codes of each row; fetched on first use."""
        if self.places is None:
            return np.arange(len(self), dtype=np.int64) // PLAIN_ROWS
        (data,) = self.reader.read([(self.file("rows"), 1)])
        blocks: npt.NDArray[np.int64] = self.places[unpack_array(data, np.uint16)]
        return blocks

    def code_block(self, number: int, data: bytes) -> CodeBlock:
        """Return a block of codes, given its bytes."""
        count = int(self.index["codes.rows"][number])
        rows = np.frombuffer(data, "<i4", count).astype(np.int64)
        squares = np.frombuffer(data, "<f4", count, 4 * count) if self.has_squares else None
        codes = np.frombuffer(data, self.dtype, count * self.width, (8 if self.has_squares else 4) * count)
        return CodeBlock(rows, codes.reshape(count, self.width), squares)

    def text_blocks(self, rows: Iterable[int]) -> list[int]:
        """Return the block of texts of each row."""
        wanted = np.array(list(rows), np.int64)
        found: list[int] = (np.searchsorted(self.index["chunks.firsts"], wanted, "right") - 1).tolist()
        return found

    def first_text(self, block: int) -> int:
        """Return the first row of a block of texts."""
        return int(self.index["chunks.firsts"][block])

    def documents(self) -> pa.Table:
        """Return all documents; the whole object is read."""
        file = self.file("documents")
        tables = [unpack_tables(data)[0] for data in self.reader.read([(file, n) for n in range(len(file))])]
        empty = pa.schema([(name, pa.large_string()) for name in ("doc_id", "uri", "title", "metadata")]).empty_table()
        return pa.concat_tables([empty, *tables])

    def rows_by_hash(self, chunk_ids: Sequence[str]) -> dict[str, list[int]]:
        """Return the rows whose IDs have the hash of an ID; these may be other IDs."""
        if not len(self):
            return {}
        firsts, file = self.index["ids.firsts"], self.file("ids")
        hashes = np.array([hash_of(name) for name in chunk_ids], np.uint64)
        # Equal hashes may begin in the block before.
        begins = np.maximum(np.searchsorted(firsts, hashes, "left") - 1, 0)
        ends = np.searchsorted(firsts, hashes, "right")
        spans = [range(int(a), max(int(b), int(a) + 1)) for a, b in zip(begins, ends, strict=True)]
        numbers = sorted({number for span in spans for number in span})
        read = dict(zip(numbers, self.reader.read([(file, number) for number in numbers]), strict=True))
        found: dict[str, list[int]] = {}
        for name, wanted, span in zip(chunk_ids, hashes, spans, strict=True):
            for number in span:
                data = read[number]
                count = len(data) // 12
                own = np.frombuffer(data, "<u8", count) == wanted
                found.setdefault(name, []).extend(np.frombuffer(data, "<i4", count, 8 * count)[own].tolist())
        return found


def open_group(
    reader: BlockReader, used: UsedGroup, collection: str, code: tuple[np.dtype[Any], int], *, squares: bool
) -> RemoteGroup:
    """Open a group: read its record and its index.

    Parameters
    ----------
    code
        Dtype and width of the codes.
    squares
        Whether the space has squared lengths.

    Raises
    ------
    IntegrityError
        If a file is missing or was changed.
    """
    published = read_group_record(reader.store, used)
    folder = f"{collection}-{published.name}"
    ref = published.objects[INDEX]
    data = reader.whole(ref, folder)
    try:
        index = safetensors.numpy.load(data)
    except safetensors.SafetensorError as error:
        raise IntegrityError(f"{ref.path}: cannot be read ({error}). Run isospace publish again.") from error
    path, known = used.record.path, published.known
    live = _bits(used.live, known.chunks, path)
    present = _bits(used.documents, sum(part.documents for part in known.parts), path)
    counts = np.asarray(index["codes.rows"], np.int64)
    if used.counts:
        counts = np.frombuffer(unpack_bits(used.counts, path), "<i4").astype(np.int64)
    dtype, width = code
    return RemoteGroup(known, folder, reader, published, index, live, present, counts, width, dtype, squares)


def _bits(text: str, count: int, path: str) -> Bools | None:
    if not text:
        return None
    return np.unpackbits(np.frombuffer(unpack_bits(text, path), np.uint8), count=count).astype(bool)
