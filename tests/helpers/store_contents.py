"""Everything that a store's files say, unpacked: compressed columns, databases, arrays, pages."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.numpy


def unpacked(root: Path) -> Iterator[tuple[str, bytes]]:
    """Yield path and bytes of every file, as it is and as what it holds when it is read."""
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        name, data = path.relative_to(root).as_posix(), path.read_bytes()
        yield name, data
        yield from ((name, held) for held in _held(path, data))


def _held(path: Path, data: bytes) -> Iterator[bytes]:
    match path.suffix:
        case ".parquet":
            yield from (b"\x00".join(_plain(column)) for column in pq.read_table(io.BytesIO(data)).columns)
        case ".duckdb":
            with duckdb.connect(str(path), read_only=True) as connection:
                for (table,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                    rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
                    yield from (b"\x00".join(map(_bytes, row)) for row in rows)
        case ".safetensors":
            yield from (array.tobytes() for array in safetensors.numpy.load(data).values())
        case ".html" | ".svg":
            yield html.unescape(data.decode()).encode()
        case ".json":
            yield json.dumps(json.loads(data), ensure_ascii=False).encode()


def holders(root: Path, *needles: bytes) -> list[str]:
    """Return the files that say one of these, anywhere."""
    return sorted({name for name, data in unpacked(root) if any(needle in data for needle in needles)})


def _plain(column: pa.ChunkedArray) -> Iterator[bytes]:
    if pa.types.is_fixed_size_list(column.type):
        width = 4 * column.type.list_size
        for chunk in column.chunks:
            flat = chunk.flatten().to_numpy().tobytes()
            yield from (flat[start : start + width] for start in range(0, len(flat), width))
        return
    yield from map(_bytes, column.to_pylist())


def _bytes(value: object) -> bytes:
    if isinstance(value, tuple | list):
        return np.asarray(value, np.float32).tobytes() if value and isinstance(value[0], float) else str(value).encode()
    return value if isinstance(value, bytes) else str(value).encode()
