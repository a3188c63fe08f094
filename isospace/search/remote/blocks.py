"""Objects of blocks: a file whose parts are read by ranges, each with a checksum of its own.

Readers know the end and the checksum of every block from the group's index, which is read whole. So whatever range a
query reads, it is verified before it is used.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.errors import IntegrityError
from isospace.storage.file_ref import FileRef

_CODEC = "zstd"
_HEAD = 8


@dataclass(frozen=True, eq=False)
class BlockFile:
    """An object of a published group.

    Attributes
    ----------
    ref
        Path, size, and SHA-256.
    folder
        Folder of the disk cache: the name of the group.
    ends
        (b,) int64: where each block ends.
    checks
        (b,) uint32: CRC-32 of each block.
    """

    ref: FileRef
    folder: str
    ends: npt.NDArray[np.int64]
    checks: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.ends)

    def span(self, number: int) -> tuple[int, int]:
        """Return where a block starts and ends."""
        return (int(self.ends[number - 1]) if number else 0), int(self.ends[number])

    def key(self, number: int) -> tuple[str, str]:
        """Return folder and name of a block in the disk cache; the name follows from the content of the object."""
        return self.folder, f"{self.ref.sha256[:32]}-{number}"

    def is_intact(self, number: int, data: bytes) -> bool:
        """Return whether data are those of a block."""
        start, end = self.span(number)
        return len(data) == end - start and zlib.crc32(data) == int(self.checks[number])

    def damaged(self, number: int) -> IntegrityError:
        """Return the error for a block of the store that is not intact."""
        start, end = self.span(number)
        return IntegrityError(
            f"{self.ref.path}: block {number} (bytes {start} to {end}) differs from what was published: its checksum "
            f"is not {int(self.checks[number]):08x}. Delete this file, and run the pipeline again, or isospace "
            "publish; until then, open the index with a local copy."
        )


@dataclass(eq=False)
class BlockWriter:
    """Writes an object block by block, and notes ends and checksums."""

    path: Path
    ends: list[int] = field(default_factory=list)
    checks: list[int] = field(default_factory=list)
    stream: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.stream = self.path.open("wb")

    def __enter__(self) -> BlockWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def add(self, *parts: bytes | memoryview) -> None:
        """Append a block that consists of some parts."""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self.stream.write(data)
        self.ends.append((self.ends[-1] if self.ends else 0) + len(data))
        self.checks.append(zlib.crc32(data))

    def arrays(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays of the index that describe the object."""
        return {f"{name}.ends": np.array(self.ends, np.int64), f"{name}.checks": np.array(self.checks, np.uint32)}


def pack(data: bytes | memoryview) -> bytes:
    """Compress data; their length comes first."""
    raw = memoryview(data).cast("B") if len(data) else memoryview(b"")
    return raw.nbytes.to_bytes(_HEAD, "little") + (pa.compress(raw, codec=_CODEC, asbytes=True) if raw.nbytes else b"")


def unpack(data: bytes) -> bytes:
    """Return what `pack` was given."""
    size = int.from_bytes(data[:_HEAD], "little")
    if not size:
        return b""
    unpacked: bytes = pa.decompress(memoryview(data)[_HEAD:], size, codec=_CODEC, asbytes=True)
    return unpacked


def pack_array(array: npt.NDArray[Any]) -> bytes:
    """Compress an array; dtype and shape are not kept."""
    return pack(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())


def unpack_array(data: bytes, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return the one-dimensional array that `pack_array` was given."""
    return np.frombuffer(unpack(data), np.dtype(dtype).newbyteorder("<"))


def pack_tables(tables: Sequence[pa.Table]) -> bytes:
    """Compress tables, one after the other."""
    streams = []
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        streams.append(sink.getvalue())
    return pack(b"".join(len(one).to_bytes(_HEAD, "little") + one.to_pybytes() for one in streams))


def unpack_tables(data: bytes) -> list[pa.Table]:
    """Return the tables that `pack_tables` was given."""
    raw, place, tables = unpack(data), 0, []
    while place < len(raw):
        size = int.from_bytes(raw[place : place + _HEAD], "little")
        stream = pa.py_buffer(memoryview(raw)[place + _HEAD : place + _HEAD + size])
        tables.append(pa.ipc.open_stream(stream).read_all())
        place += _HEAD + size
    return tables
