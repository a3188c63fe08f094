"""Parquet files in a store: written once with checksums, read back verified."""

from __future__ import annotations

import io
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.file_ref import FileRef as FileRef
from isospace.storage.hashing import sha256
from isospace.storage.range_reader import RangedFile
from isospace.storage.store import Store

_ROW_GROUP_ROWS = 16_384
# Reading a larger object in ranges is faster, although it takes more requests.
_WHOLE_OBJECT_BYTES = 4 << 20
# Below, threads gain nothing.
_LARGE_ROWS = 10_000


def write_parquet(
    store: Store,
    path: str,
    table: pa.Table,
    *,
    metadata: Mapping[str, str] | None = None,
    dictionary: Sequence[str] = (),
    replace: bool = False,
    arrow_schema: bool = True,
    group_rows: int = _ROW_GROUP_ROWS,
) -> FileRef:
    """Write a table to a path that is derived from its inputs; an existing file stays.

    Parameters
    ----------
    metadata
        Key-value metadata of the file.
    dictionary
        Columns to dictionary-encode, which have few distinct values.
    replace
        Overwrite an existing file.
    arrow_schema
        Whether Arrow's schema is stored too. It repeats the metadata, and no reader notices if the copy is damaged;
        columns of numbers and fixed-size binary do not need it.
    group_rows
        Most rows of a row group; a reader may decode single groups.

    Returns
    -------
    FileRef
        Describes the file that is now in the store, whether or not this call wrote it.
    """
    entries = {**(table.schema.metadata or {}), **{key: value.encode() for key, value in (metadata or {}).items()}}
    buffer = io.BytesIO()
    table = table.replace_schema_metadata(entries if arrow_schema else None)
    with pq.ParquetWriter(
        buffer,
        table.schema,
        compression="zstd",
        use_dictionary=list(dictionary) or False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=arrow_schema,
    ) as writer:
        if not arrow_schema:
            writer.add_key_value_metadata(entries)
        writer.write_table(table, row_group_size=group_rows)
    data = buffer.getvalue()
    if replace:
        store.write(path, data)
    if replace or store.create_if_absent(path, data) or _replace_damaged(store, path, data):
        return FileRef(path=path, size=len(data), sha256=sha256(data), rows=table.num_rows)
    return describe_parquet(store, path)


def create_parquet(
    store: Store,
    path: str,
    schema: pa.Schema,
    tables: Iterable[pa.Table],
    scratch: Path,
    *,
    dictionary: Sequence[str] = (),
) -> None:
    """Write tables as one file without holding it in memory; an existing file stays.

    Parameters
    ----------
    scratch
        An existing local folder for a temporary file.
    dictionary
        Columns to dictionary-encode, which have few distinct values.
    """
    local = scratch / f"{secrets.token_hex(8)}.parquet"
    try:
        with pq.ParquetWriter(
            local,
            schema,
            compression="zstd",
            use_dictionary=list(dictionary) or False,
            write_statistics=False,
            write_page_checksum=True,
        ) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=_ROW_GROUP_ROWS)
        store.create_file(path, local)
    finally:
        local.unlink(missing_ok=True)


def describe_parquet(store: Store, path: str) -> FileRef:
    """Return the reference of a Parquet file in the store."""
    data = store.read(path)
    return FileRef(
        path=path, size=len(data), sha256=sha256(data), rows=_open(pa.BufferReader(data), path).metadata.num_rows
    )


def read_parquet(store: Store, path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table and verify its page checksums.

    Raises
    ------
    NotFoundError
        If the file is missing.
    IntegrityError
        If it is damaged or lacks a column.
    """
    if columns is None:
        return parse_parquet(store.read(path), path)
    # For a few columns of a large file, read only the bytes of these columns.
    with _source(store, path) as source:
        return _read_columns(source, path, columns)


def read_rows(store: Store, path: str, first: int, count: int) -> pa.Table:
    """Read some rows of a table; of a large file, only the row groups that contain them.

    Raises
    ------
    NotFoundError
        If the file is missing.
    IntegrityError
        If it is damaged.
    """
    with _source(store, path) as source:
        file = _open(source, path)
        ends = np.cumsum([file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)])
        begin, end = np.searchsorted(ends, [first, first + count - 1], side="right")
        try:
            table = file.read_row_groups(list(range(begin, min(end + 1, len(ends)))))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
    return table.slice(first - (int(ends[begin - 1]) if begin else 0), count)


def read_groups(store: Store, path: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield columns of a table one row group at a time, so that only one group is in memory.

    Raises
    ------
    NotFoundError
        If the file is missing.
    IntegrityError
        If it is damaged or lacks a column.
    """
    with _source(store, path, mapped=False) as source:
        file = _open(source, path)
        for number in range(file.num_row_groups):
            try:
                table = file.read_row_group(number, columns=list(columns))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error
            yield _with_columns(table, path, columns).select(list(columns))


def read_groups_with(
    store: Store, path: str, column: str, columns: Sequence[str], wanted: Callable[[pa.ChunkedArray], bool]
) -> tuple[pa.Table, bool]:
    """Read the row groups of a table whose values in one column are wanted.

    Parameters
    ----------
    column
        The column that decides.
    columns
        The columns to read, with `column`.
    wanted
        Given the values of a row group, whether to read it.

    Returns
    -------
    tuple
        Rows of these groups, with the metadata of the file; and whether they are all rows of it.

    Raises
    ------
    NotFoundError
        If the file is missing.
    IntegrityError
        If a page that is read is damaged, or a column is missing.
    """
    with _source(store, path) as source:
        file = _open(source, path)
        try:
            groups = range(file.num_row_groups)
            # The only group of a small file is read at once.
            chosen = [n for n in groups if len(groups) == 1 or wanted(file.read_row_group(n, columns=[column])[column])]
            table = file.read_row_groups(chosen, columns=list(columns), use_threads=False)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise _damaged(path, error) from error
    return _with_columns(table, path, columns), len(chosen) == len(groups)


def parse_parquet(data: bytes, path: str, *, columns: Sequence[str] | None = None) -> pa.Table:
    """Parse the bytes of a Parquet file; `path` is for messages."""
    return _read_columns(pa.BufferReader(data), path, columns)


def _read_columns(source: pa.NativeFile, path: str, columns: Sequence[str] | None) -> pa.Table:
    try:
        opened = _open(source, path)
        # A command that ends at once, while Arrow still starts its threads, is aborted by the C++ library.
        is_large = opened.metadata.num_rows >= _LARGE_ROWS
        table = opened.read(columns=None if columns is None else list(columns), use_threads=is_large)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return table if columns is None else _with_columns(table, path, columns)


def _with_columns(table: pa.Table, path: str, columns: Sequence[str]) -> pa.Table:
    if missing := set(columns) - set(table.column_names):
        raise IntegrityError(f"{path}: lacks the columns {', '.join(sorted(missing))}. Restore the file.")
    return table


def verify_file(store: Store, ref: FileRef, *, content: bool) -> None:
    """Compare the size of a file with its reference; with `content`, also the SHA-256.

    Raises
    ------
    IntegrityError
        If the file is missing or differs.
    """
    read_verified(store, ref) if content else _verify_size(store, ref)


def read_verified(store: Store, ref: FileRef) -> bytes:
    """Return the bytes of a file; IntegrityError if size or SHA-256 differ from its reference."""
    try:
        data = store.read(ref.path)
    except NotFoundError as error:
        raise _missing(ref) from error
    if len(data) != ref.size or (digest := sha256(data)) != ref.sha256:
        actual = f"{len(data)} bytes" if len(data) != ref.size else f"SHA-256 {digest[:16]}…"
        expected = f"{ref.size} bytes" if len(data) != ref.size else f"{ref.sha256[:16]}…"
        raise IntegrityError(
            f"{ref.path}: has {actual}, its manifest says {expected}. The file was changed after the commit: restore "
            "it, or delete it and embed the collection again."
        )
    return data


def metadata_of(table: pa.Table) -> dict[str, str]:
    """Return the key-value metadata of a table, without Arrow's own entries."""
    entries = table.schema.metadata or {}
    return {key.decode(): value.decode() for key, value in entries.items() if not key.startswith(b"ARROW:")}


def fixed_binary(array: npt.NDArray[Any]) -> pa.FixedSizeBinaryArray:
    """Return the rows of a 2-d array as a fixed_size_binary column."""
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    width = little.shape[1] * little.dtype.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(little), [None, pa.py_buffer(little.tobytes())])


def from_fixed_binary(column: pa.ChunkedArray, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return a fixed_size_binary column as a 2-d array of `dtype`."""
    array = column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks else pa.array([], column.type)
    width = column.type.byte_width // dtype.itemsize
    buffer = array.buffers()[1]
    if buffer is None:
        return np.empty((0, width), dtype)
    flat = np.frombuffer(buffer, dtype, count=len(array) * width, offset=array.offset * column.type.byte_width)
    return flat.reshape(len(array), width)


def _verify_size(store: Store, ref: FileRef) -> None:
    try:
        size = store.size(ref.path)
    except NotFoundError as error:
        raise _missing(ref) from error
    if size != ref.size:
        raise IntegrityError(f"{ref.path}: has {size} bytes, its manifest says {ref.size}. Restore the file.")


def _replace_damaged(store: Store, path: str, data: bytes) -> bool:
    """Overwrite an existing file if it is damaged; return whether the file now holds `data`."""
    existing = store.read(path)
    if existing == data:
        return True
    try:
        parse_parquet(existing, path)
    except IntegrityError:
        store.write(path, data)
        return True
    return False


def _missing(ref: FileRef) -> IntegrityError:
    return IntegrityError(
        f"{ref.path}: is missing, and a manifest names it. Restore the file. If it belongs to the latest snapshot, the "
        "next run rebuilds it."
    )


@contextmanager
def _source(store: Store, path: str, *, mapped: bool = True) -> Iterator[pa.NativeFile]:
    """Open a file for random access; read a small remote object in one request."""
    size = store.size(path)
    if store.root:
        local = str(store.root / path)
        with pa.memory_map(local) if mapped else pa.OSFile(local) as source:
            yield source
    elif size <= _WHOLE_OBJECT_BYTES:
        yield pa.BufferReader(store.read(path))
    else:
        with pa.PythonFile(RangedFile(store, path), mode="r") as source:
            yield source


def _open(source: pa.NativeFile, path: str) -> pq.ParquetFile:
    try:
        if source.read(4) != b"PAR1":
            raise _damaged(path, ValueError("it does not start like a Parquet file"))
        # Merge adjacent ranges into one request. For a source in memory, this would only make a copy.
        is_remote = isinstance(source, pa.PythonFile)
        return pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=is_remote)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: str, error: Exception) -> IntegrityError:
    reason = " ".join(str(error).split())[:160]
    return IntegrityError(
        f"{path}: damaged Parquet ({reason}). Restore the file, or delete it and run the pipeline again."
    )
