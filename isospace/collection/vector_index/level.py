"""One level of the index: a file of entries sorted by chunk hash, and the vector files that the entries name."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from isospace.collection.origins import Origin
from isospace.collection.vector_index.blocks import Blocks, Numbers, read_blocks
from isospace.errors import IntegrityError
from isospace.storage.hashing import sha256
from isospace.storage.store import Store

ENTRY = np.dtype([("hash", "u1", (32,)), ("file", "<u4")])
"""A chunk hash, and the number of a file in its level."""
Entries = npt.NDArray[np.void]
Hashes = npt.NDArray[np.uint8]

# A lookup of one hash reads a block of entries, 9 kB.
_ENTRIES_PER_BLOCK, _FILES_PER_BLOCK = 256, 128
# Blocks of entries in memory at a time, in a lookup.
_BLOCKS_AT_ONCE = 2_048


class Level(BaseModel):
    """What the manifest of the index says about one level.

    Its file has, one after the other: the entries; a record for each vector file (number of its origin, name padded
    with zeros), sorted by name; the directory, which has the first key and the CRC-32 of each block of entries, and
    the CRC-32 of each block of records. All numbers are little-endian. The key of a hash is its first 64 bits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file."""
    size: int
    entries: int = Field(ge=0)
    files: int = Field(ge=0)
    width: int = Field(ge=1)
    """Bytes of the longest name."""
    directory: str
    """SHA-256 of the directory."""
    origins: tuple[Origin, ...]

    @property
    def record(self) -> np.dtype[np.void]:
        """The type of the record of a vector file."""
        return np.dtype([("origin", "<u4"), ("name", f"S{self.width}")])


def keys_of(hashes: Hashes) -> npt.NDArray[np.uint64]:
    """Return the (n,) keys of (n, 32) hashes."""
    return np.ascontiguousarray(hashes[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def sorted_entries(entries: Entries) -> Entries:
    """Return entries by key and file, each once."""
    keys = keys_of(entries["hash"])
    ordered: Entries = entries[np.lexsort((entries["file"], keys))]
    if not len(ordered):
        return ordered
    first, second = ordered[:-1], ordered[1:]
    again = (first["file"] == second["file"]) & (first["hash"] == second["hash"]).all(axis=1)
    once: Entries = ordered[np.concatenate([[True], ~again])]
    return once


def write_level(
    path: Path, batches: Iterable[Entries], names: Sequence[str], origins: Sequence[int], classes: Sequence[Origin]
) -> Level:
    """Write a level to a local file.

    Parameters
    ----------
    batches
        Entries, sorted by key within and across batches.
    names
        The names of the vector files, sorted; entries name them by position.
    origins
        For each, the position of its origin in `classes`.
    """
    width = max([1, *(len(_encoded(name)) for name in names)])
    records = np.zeros(len(names), [("origin", "<u4"), ("name", f"S{width}")])
    records["origin"], records["name"] = origins, [_encoded(name) for name in names]
    total, size, count = hashlib.sha256(), 0, 0
    firsts: list[int] = []
    sums: list[int] = []
    with path.open("wb") as stream:
        for block in _in_blocks(batches):
            data = block.tobytes()
            firsts.append(int(keys_of(block["hash"][:1])[0]))
            sums.append(zlib.crc32(data))
            count += len(block)
            stream.write(data)
            total.update(data)
        step = records.itemsize * _FILES_PER_BLOCK
        written = records.tobytes()
        file_sums = [zlib.crc32(written[start : start + step]) for start in range(0, len(written), step)]
        directory = np.array(firsts, "<u8").tobytes() + np.array([*sums, *file_sums], "<u4").tobytes()
        for data in (written, directory):
            stream.write(data)
            total.update(data)
        size = stream.tell()
    return Level(
        sha256=total.hexdigest(),
        size=size,
        entries=count,
        files=len(names),
        width=width,
        directory=sha256(directory),
        origins=tuple(classes),
    )


@dataclass(slots=True)
class LevelReader:
    """A level that is read block by block; the directory is read first, and kept."""

    store: Store
    path: str
    level: Level
    firsts: npt.NDArray[np.uint64] = field(init=False)
    _entries: Blocks = field(init=False)
    _records: Blocks = field(init=False)

    def __post_init__(self) -> None:
        level, record = self.level, self.level.record.itemsize
        blocks, file_blocks = -(-level.entries // _ENTRIES_PER_BLOCK), -(-level.files // _FILES_PER_BLOCK)
        after = ENTRY.itemsize * level.entries
        start, length = after + record * level.files, 12 * blocks + 4 * file_blocks
        if start + length != level.size or self.store.size(self.path) != level.size:
            raise IntegrityError(
                f"{self.path}: has {self.store.size(self.path)} bytes, its manifest says {level.size}. Delete it, and "
                "the next run makes another."
            )
        data = self.store.read_range(self.path, start, length) if length else b""
        if sha256(data) != level.directory:
            raise IntegrityError(
                f"{self.path}: its directory has SHA-256 {sha256(data)[:16]}…, expected {level.directory[:16]}…. "
                "Delete it, and the next run makes another."
            )
        self.firsts = np.frombuffer(data, "<u8", blocks).astype(np.uint64)
        sums = np.frombuffer(data, "<u4", blocks + file_blocks, offset=8 * blocks)
        self._entries = Blocks(self.path, 0, ENTRY.itemsize, _ENTRIES_PER_BLOCK, level.entries, sums[:blocks])
        self._records = Blocks(self.path, after, record, _FILES_PER_BLOCK, level.files, sums[blocks:])

    def find(self, hashes: Hashes) -> tuple[Numbers, Numbers]:
        """Find hashes.

        Parameters
        ----------
        hashes
            (n, 32), sorted by key.

        Returns
        -------
        tuple
            For each entry that is found, the position of its hash and the number of its file.
        """
        keys = keys_of(hashes)
        # Equal keys may begin in the block before the one whose first key they are.
        low = np.maximum(np.searchsorted(self.firsts, keys, "left") - 1, 0)
        high = np.searchsorted(self.firsts, keys, "right")
        found: list[tuple[Numbers, Numbers]] = []
        for start, stop in _portions(low, high):
            numbers = _union(low[start:stop], high[start:stop])
            entries = self._read(numbers)
            places, files = _matches(entries, hashes[start:stop], keys[start:stop])
            found.append((places + start, files))
        empty = np.empty(0, np.int64)
        return (
            np.concatenate([empty, *(places for places, _ in found)]),
            np.concatenate([empty, *(files for _, files in found)]),
        )

    def entries(self, low: int, high: int) -> Entries:
        """Return the entries with keys from `low` up to `high`, exclusive."""
        first = max(int(np.searchsorted(self.firsts, np.uint64(low), "left")) - 1, 0)
        # The bound of the last range is beyond 64 bits.
        last = len(self.firsts) if high >= 1 << 64 else int(np.searchsorted(self.firsts, np.uint64(high), "left"))
        entries = self._read(np.arange(first, last))
        keys = keys_of(entries["hash"])
        inside = keys >= np.uint64(low)
        return entries[inside if high >= 1 << 64 else inside & (keys < np.uint64(high))]

    def files(self, numbers: Numbers) -> tuple[list[str], Numbers]:
        """Return the names of files, given by ascending number, and the numbers of their origins."""
        blocks = np.unique(numbers // _FILES_PER_BLOCK)
        records = np.frombuffer(read_blocks(self.store, self._records, blocks), self.level.record)
        rows = np.searchsorted(blocks, numbers // _FILES_PER_BLOCK) * _FILES_PER_BLOCK + numbers % _FILES_PER_BLOCK
        chosen = records[rows]
        return [name.decode(errors="surrogateescape") for name in chosen["name"].tolist()], chosen["origin"].astype(
            np.int64
        )

    def _read(self, numbers: Numbers) -> Entries:
        return np.frombuffer(read_blocks(self.store, self._entries, numbers), ENTRY)


def _in_blocks(batches: Iterable[Entries]) -> Iterator[Entries]:
    rest = np.empty(0, ENTRY)
    for batch in batches:
        joined = np.concatenate([rest, batch])
        whole = len(joined) - len(joined) % _ENTRIES_PER_BLOCK
        yield from (joined[start : start + _ENTRIES_PER_BLOCK] for start in range(0, whole, _ENTRIES_PER_BLOCK))
        rest = joined[whole:]
    if len(rest):
        yield rest


def _portions(low: Numbers, high: Numbers) -> Iterator[tuple[int, int]]:
    """Divide the blocks from `low` to `high` of each hash into portions that are in memory together."""
    if not len(low):
        return
    # How many blocks are read up to each hash, at most.
    needed = np.cumsum(high - np.maximum(low, np.concatenate([[0], high[:-1]])).clip(None, high))
    start = 0
    while start < len(low):
        before = needed[start - 1] if start else 0
        stop = max(int(np.searchsorted(needed, before + _BLOCKS_AT_ONCE, "right")), start + 1)
        yield start, stop
        start = stop


def _union(low: Numbers, high: Numbers) -> Numbers:
    """Return the numbers in any of the ranges, ascending."""
    longest = int((high - low).max(initial=0))
    numbers = [low[low + step < high] + step for step in range(longest)]
    return np.unique(np.concatenate([np.empty(0, np.int64), *numbers]))


def _matches(entries: Entries, hashes: Hashes, keys: npt.NDArray[np.uint64]) -> tuple[Numbers, Numbers]:
    known = keys_of(entries["hash"])
    first, last = np.searchsorted(known, keys, "left"), np.searchsorted(known, keys, "right")
    places, rows = [], []
    # Nearly every hash is in one file, and in two if two runs encoded it at the same time.
    for step in range(int((last - first).max(initial=0))):
        candidates = np.flatnonzero(first + step < last)
        row = first[candidates] + step
        same = (entries["hash"][row] == hashes[candidates]).all(axis=1)
        places.append(candidates[same])
        rows.append(row[same])
    empty = np.empty(0, np.int64)
    found = np.concatenate([empty, *places]).astype(np.int64)
    return found, entries["file"][np.concatenate([empty, *rows]).astype(np.int64)].astype(np.int64)


def _encoded(name: str) -> bytes:
    # A file system may have names that are not UTF-8.
    return name.encode(errors="surrogateescape")
