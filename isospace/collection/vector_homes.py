"""The home of a chunk hash: the file whose raw vector of it counts, which is the first by path."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa

from isospace.collection.origins import Origin, distinct
from isospace.collection.vector_index.finder import ABSENT, Finder
from isospace.collection.vector_index.refresh import (
    VectorIndex,
    Writer,
    rebuild_index,
    refresh_index,
    unindexed_parts,
)
from isospace.errors import IntegrityError, NotFoundError
from isospace.storage.parquet import from_fixed_binary
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_HASHES_AT_ONCE = 65_536
_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Homes:
    """The files that the table `vectors` names by number, and what computed the vectors in them."""

    paths: tuple[str, ...]
    origins: tuple[Origin, ...]


def load_homes(
    connection: DuckDBPyConnection,
    store: Store,
    encoder_id: str,
    wanted: str,
    scratch: Path,
    *,
    writer: Writer | None = None,
    names: Sequence[str] = (),
    are_stored: bool = False,
) -> Homes:
    """Fill the table `vectors` (part, chunk_hash) with the homes of the chunk hashes in the table `wanted`.

    Hashes without a raw vector are left out. What was encoded since the last time is taken into the index first.

    Parameters
    ----------
    scratch
        A local folder.
    writer
        Who may write to the store; None to leave it as it is.
    names
        Parts that may exist beside those that were announced.
    are_stored
        Whether all of the hashes should have raw vectors: if one is not found, the folder is listed for parts that the
        index lacks.

    Raises
    ------
    IntegrityError
        If a file of raw vectors that is new to the index is damaged.
    """
    index = refresh_index(store, encoder_id, scratch, writer=writer, names=names)

    def look(index: VectorIndex) -> tuple[Homes, bool]:
        homes = _load(connection, index, wanted)
        query = f"SELECT count(*) FROM {wanted} ANTI JOIN vectors USING (chunk_hash)"
        return homes, are_stored and connection.execute(query).fetchall() != [(0,)]

    return _with_unindexed(index, scratch, writer, look)


def locate(connection: DuckDBPyConnection, wanted: str, homes: Homes) -> Iterator[tuple[int, list[str]]]:
    """Yield, for each part in the table `wanted`, the homes of its chunks, sorted.

    `wanted` has the columns part and chunk_hash. `load_homes` must have filled the table `vectors`.
    """
    query = f"""
        SELECT w.part, list(DISTINCT vectors.part)
        FROM {wanted} w JOIN vectors USING (chunk_hash) GROUP BY w.part ORDER BY w.part
    """
    result = connection.execute(query)
    while rows := result.fetchmany(1000):
        yield from ((int(part), sorted(homes.paths[number] for number in numbers)) for part, numbers in rows)


def home_origins(connection: DuckDBPyConnection, homes: Homes) -> tuple[Origin, ...]:
    """Return what computed the vectors in the table `vectors`, one for each class of bits, after `load_homes`."""
    rows = connection.execute("SELECT DISTINCT part FROM vectors").fetchall()
    return distinct(homes.origins[number] for (number,) in rows)


def find_files(
    store: Store, encoder_id: str, hashes: Sequence[bytes], scratch: Path | None = None, *, writer: Writer | None = None
) -> list[str]:
    """Return the homes of chunk hashes, sorted; those without a raw vector are left out.

    Parameters are those of `load_homes`; without `scratch`, it is a temporary folder.
    """
    with tempfile.TemporaryDirectory(prefix="isospace-index-") if scratch is None else nullcontext(scratch) as folder:
        index = refresh_index(store, encoder_id, Path(folder), writer=writer)
        return _with_unindexed(index, Path(folder), writer, lambda index: _files(index, hashes))


def _with_unindexed(
    index: VectorIndex, scratch: Path, writer: Writer | None, look: Callable[[VectorIndex], tuple[_Found, bool]]
) -> _Found:
    """Look something up, and again with parts that the index lacks if `look` says that something is missing."""
    found, is_missing = _twice(index, scratch, writer, look)
    if not is_missing or not (names := unindexed_parts(index)):
        return found
    whole = refresh_index(index.store, index.encoder_id, scratch, writer=writer, names=names)
    return _twice(whole, scratch, writer, look)[0]


def _twice(index: VectorIndex, scratch: Path, writer: Writer | None, look: Callable[[VectorIndex], _Found]) -> _Found:
    """Look something up in the index, and again in another one if it cannot be read."""
    try:
        return look(index)
    except NotFoundError:
        # Another run has merged levels, and a later one has removed the old ones.
        other = refresh_index(index.store, index.encoder_id, scratch, writer=writer)
    except IntegrityError as error:
        lost = [reader.level for reader in index.readers]
        other = rebuild_index(index.store, index.encoder_id, scratch, lost, error, writer=writer)
    return look(other)


def _files(index: VectorIndex, hashes: Sequence[bytes]) -> tuple[list[str], bool]:
    finder = Finder(index)
    numbers = finder.find(np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32))
    files = sorted(finder.paths[number] for number in np.unique(numbers[numbers != ABSENT]))
    return files, bool((numbers == ABSENT).any())


def _load(connection: DuckDBPyConnection, index: VectorIndex, wanted: str) -> Homes:
    finder = Finder(index)
    connection.execute("CREATE OR REPLACE TABLE vectors (part INTEGER, chunk_hash BLOB)")
    # A cursor: DuckDB ends a result that is still being read when its connection executes something else.
    with connection.cursor() as reading:
        batches = reading.sql(f"SELECT DISTINCT chunk_hash FROM {wanted} ORDER BY chunk_hash").to_arrow_reader(
            _HASHES_AT_ONCE
        )
        for batch in batches:
            column = pa.chunked_array([batch["chunk_hash"].cast(pa.binary(32))])
            numbers = finder.find(from_fixed_binary(column, np.dtype("u1")))
            found = pa.array(numbers != ABSENT)
            rows = {"part": pa.array(numbers, pa.int32()), "chunk_hash": batch["chunk_hash"]}
            connection.register("found", pa.table(rows).filter(found))
            connection.execute("INSERT INTO vectors SELECT part, chunk_hash FROM found")
            connection.unregister("found")
    return Homes(tuple(finder.paths), tuple(finder.origins))
