"""Plan the encode stage: find the chunks without raw vectors, and group them into encoding shards.

The first plan fixes the shards, so that a killed run continues with the same batches, and ends with the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isospace.collection.vector_files import present_parts
from isospace.collection.vector_homes import Homes, home_origins, load_homes
from isospace.collection.vector_index.pending import announce
from isospace.errors import IntegrityError, NotFoundError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.encode.mixed_bits import stored_beside
from isospace.pipeline.encode.shards import EncodePlan, Shard
from isospace.pipeline.run import Run
from isospace.storage.hashing import fingerprint
from isospace.storage.parquet import create_parquet, from_fixed_binary, read_groups
from isospace.storage.scratch_duckdb import append_rows, load_columns, scratch_database
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Rows of a plan to hold in memory at a time.
_PLAN_ROWS = 16_384

_SHARDS_WITH_MISSING_TEXTS = "SELECT DISTINCT shard FROM planned SEMI JOIN missing USING (chunk_hash)"
_PLAN_COLUMNS = {"shard": "INTEGER", "chunk_hash": "BLOB", "n_tokens": "INTEGER"}

_PLAN_SCHEMA = pa.schema(
    [
        ("shard", pa.int32()),
        ("part", pa.string()),
        ("row", pa.int32()),
        ("chunk_hash", pa.binary(32)),
        ("n_tokens", pa.int32()),
    ]
)


def plan_shards(
    run: Run, parts: Sequence[ChunkPart], *, limit: int, kept: Sequence[str] = (), planned: Sequence[str] = ()
) -> EncodePlan:
    """Find the texts without raw vectors, and group them into shards.

    Parameters
    ----------
    run
        The run.
    parts
        Its new parts.
    limit
        The encoder's token limit; longer texts are counted with that many tokens.
    kept
        Names of the base's parts that stay.
    planned
        Paths of plans for other parts, whose shards are encoded anyway; their texts are left out.
    """
    runtime = run.config.runtime
    work = run.work_store
    with scratch_database(run.scratch, memory_mb=runtime.memory_mb) as connection:
        load_columns(
            connection, "chunks", work, [p.chunks.path for p in parts], {"chunk_hash": "BLOB", "n_tokens": "INTEGER"}
        )
        connection.execute(
            f"""
            CREATE TABLE texts AS
            SELECT chunk_hash, arg_min(part, (part, row)) AS part, arg_min(row, (part, row)) AS row,
                   least(any_value(n_tokens), {limit}) AS n_tokens
            FROM chunks GROUP BY chunk_hash
            """
        )
        if planned:
            load_columns(connection, "elsewhere", work, planned, {"chunk_hash": "BLOB"})
        path = _plan_path(run, parts)
        homes = _load_missing(connection, run, is_elsewhere=bool(planned))
        earlier = _earlier(connection, run, path)
        if unnoticed := _unnoticed(connection, earlier):
            homes = _load_missing(connection, run, unnoticed, is_elsewhere=bool(planned))
        (occurrences,) = connection.execute("SELECT count(*) FROM chunks").fetchone() or (0,)
        (distinct,) = connection.execute("SELECT count(*) FROM texts").fetchone() or (0,)
        (missing,) = connection.execute("SELECT count(*) FROM missing").fetchone() or (0,)
        reused = home_origins(connection, homes)
        shards = _resume_or_cut(connection, run, parts, path, earlier) if missing else ()
    return EncodePlan(
        shards=shards,
        chunks=occurrences,
        distinct=distinct,
        reused=distinct - missing,
        to_encode=sum(shard.chunks for shard in shards),
        tokens=sum(shard.tokens for shard in shards),
        stored=stored_beside(run.base, kept, reused),
    )


def _load_missing(
    connection: DuckDBPyConnection, run: Run, names: Sequence[str] = (), *, is_elsewhere: bool = False
) -> Homes:
    """Fill the table `missing` with the texts that have no raw vector; `names` are parts that exist.

    If other plans have texts, these are in the table `elsewhere`, and not missing.
    """
    writer = run.index_writer
    homes = load_homes(
        connection,
        run.store,
        run.encoder_id,
        "texts",
        run.scratch,
        writer=writer,
        names=names,
        # A listing costs less than texts that are paid for again.
        are_stored=run.config.recipe.encoder.kind == "served",
    )
    connection.execute("CREATE OR REPLACE TABLE missing AS SELECT * FROM texts ANTI JOIN vectors USING (chunk_hash)")
    if is_elsewhere:
        connection.execute("DELETE FROM missing WHERE chunk_hash IN (SELECT chunk_hash FROM elsewhere)")
    return homes


@dataclass(frozen=True, slots=True)
class _EarlierPlan:
    """The shards of an earlier plan, which is in the table `planned`, and the names of those that are finished."""

    shards: tuple[Shard, ...]
    finished: frozenset[str]


def _earlier(connection: DuckDBPyConnection, run: Run, path: str) -> _EarlierPlan | None:
    """Return the earlier plan with all missing texts; None if there is no such plan, or nothing is missing."""
    if connection.execute("SELECT count(*) FROM missing").fetchall() == [(0,)]:
        return None
    if not _covers(connection, run.work_store, path):
        return None
    shards = tuple(_shards(run.work_store, path))
    names = [shard.shard_id for shard in shards]
    return _EarlierPlan(shards, frozenset(present_parts(run.store, run.encoder_id, names, among=len(names))))


def _unnoticed(connection: DuckDBPyConnection, earlier: _EarlierPlan | None) -> list[str]:
    """Return the finished shards of an earlier plan that the index does not have.

    An earlier version of isospace wrote them, or what announced them was lost.
    """
    if earlier is None:
        return []
    numbers = {number for (number,) in connection.execute(_SHARDS_WITH_MISSING_TEXTS).fetchall()}
    return [s.shard_id for s in earlier.shards if s.number in numbers and s.shard_id in earlier.finished]


def _plan_path(run: Run, parts: Sequence[ChunkPart]) -> str:
    plan_id = fingerprint(
        {
            "encoder_id": run.encoder_id,
            "chunking_id": run.chunking_id,
            "parts": [part.name for part in parts],
            "shard_tokens": run.config.runtime.shard_tokens,
        }
    )
    return run.paths.plan(plan_id)


def _resume_or_cut(
    connection: DuckDBPyConnection, run: Run, parts: Sequence[ChunkPart], path: str, earlier: _EarlierPlan | None
) -> tuple[Shard, ...]:
    """Return the unfinished shards of an earlier plan or of a new one, after announcing what they will write."""
    work = run.work_store
    if earlier is not None:
        shards = tuple(shard for shard in earlier.shards if shard.shard_id not in earlier.finished)
    else:
        work.delete(path)
        create_parquet(work, path, _PLAN_SCHEMA, _cut(connection, run, parts), run.scratch, dictionary=["part"])
        shards = tuple(_shards(work, path))
    if run.index_writer is not None:
        names = [shard.shard_id for shard in shards]
        announce(run.store, run.encoder_id, names, collection=run.collection, run_id=run.run_id)
    return shards


def _covers(connection: DuckDBPyConnection, store: Store, path: str) -> bool:
    """Return whether an earlier plan has every missing text in one of its shards."""
    fields = ", ".join(f"{name} {kind}" for name, kind in _PLAN_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE planned (part INTEGER, row INTEGER, {fields})")
    try:
        for table in read_groups(store, path, list(_PLAN_COLUMNS)):
            append_rows(connection, "planned", 0, table)
    except (NotFoundError, IntegrityError):
        return False
    query = "SELECT count(*) FROM missing ANTI JOIN planned USING (chunk_hash)"
    # To the end of the result: DuckDB refuses the next relation of a connection with an unfinished one.
    [(uncovered,)] = connection.execute(query).fetchall()
    return bool(uncovered == 0)


def _cut(connection: DuckDBPyConnection, run: Run, parts: Sequence[ChunkPart]) -> Iterator[pa.Table]:
    """Yield the missing texts by part and length, with the number of their shard; a shard ends at its token budget."""
    budget = run.config.runtime.shard_tokens
    names = pa.array([part.name for part in parts], pa.string())
    query = "SELECT part, row, chunk_hash, n_tokens FROM missing ORDER BY part, n_tokens, chunk_hash"
    shard, spent = 0, 0
    for rows in connection.sql(query).to_arrow_reader(_PLAN_ROWS):
        numbers = []
        for tokens in rows["n_tokens"].to_pylist():
            if spent and spent + tokens > budget:
                shard, spent = shard + 1, 0
            spent += tokens
            numbers.append(shard)
        hashes = rows["chunk_hash"].cast(pa.binary(32))
        columns = [pa.array(numbers, pa.int32()), names.take(rows["part"]), rows["row"], hashes, rows["n_tokens"]]
        yield pa.table(columns, schema=_PLAN_SCHEMA)


def _shards(store: Store, path: str) -> Iterator[Shard]:
    """Yield the shards of a plan, whose rows are ordered by shard."""
    number, first, chunks, tokens, digest = 0, 0, 0, 0, hashlib.sha256()
    for table in read_groups(store, path, ["shard", "chunk_hash", "n_tokens"]):
        shards, lengths = table["shard"].to_numpy(), table["n_tokens"].to_numpy()
        hashes = from_fixed_binary(table["chunk_hash"], np.dtype("u1"))
        edges = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        for begin, end in pairwise(edges):
            if begin == end:
                continue
            if chunks and shards[begin] != number:
                yield Shard(path, number, first, digest.hexdigest(), chunks, tokens)
                first, chunks, tokens, digest = first + chunks, 0, 0, hashlib.sha256()
            number = int(shards[begin])
            chunks, tokens = chunks + end - begin, tokens + int(lengths[begin:end].sum())
            digest.update(hashes[begin:end].tobytes())
    if chunks:
        yield Shard(path, number, first, digest.hexdigest(), chunks, tokens)
