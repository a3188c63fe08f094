"""Plan and encode: the anti-join of chunks against raw vectors, cut into shards.

A shard is a reference: a plan's name and a number. Shards are fixed when a plan is first made, so that a
run that was killed goes on with the very batches it had, and ends with the very bits.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from isospace.collection.raw_vectors import load_vector_hashes, vector_part_path, vector_parts, write_vectors
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import IntegrityError, NotFoundError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.run import Run
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint, seal, unseal
from isospace.storage.parquet import create_parquet, from_fixed_binary, read_groups, read_parquet, read_rows
from isospace.storage.scratch_duckdb import append_rows, load_columns, scratch_database
from isospace.storage.store import Store

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

# Rows of a plan that are in memory at a time.
_PLAN_ROWS = 16_384
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


@dataclass(frozen=True, slots=True)
class Shard:
    """What one task encodes.

    Attributes
    ----------
    plan
        Path of the plan that lists its rows.
    number
        Which shard of it.
    first
        Its first row there.
    shard_id
        Names the part it writes: SHA-256 of its chunk hashes.
    chunks, tokens
        Its size.
    """

    plan: str
    number: int
    first: int
    shard_id: str
    chunks: int
    tokens: int


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """What a run has to encode.

    Attributes
    ----------
    shards
        Only those that are missing.
    chunks
        Occurrences in the new parts.
    distinct
        Different texts among them.
    reused
        Different texts that have a raw vector already.
    to_encode, tokens
        Texts to encode, and their tokens.
    """

    shards: tuple[Shard, ...]
    chunks: int
    distinct: int
    reused: int
    to_encode: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Encoded:
    """What encoding one shard took.

    Attributes
    ----------
    chunks, tokens, seconds
        How much, and how long it took without waiting.
    worker
        Who did it.
    loaded
        Whether the worker had to load the model for it.
    halvings
        How often a device ran out of memory and the batch was halved.
    """

    chunks: int
    tokens: int
    seconds: float
    worker: str = "in process"
    loaded: bool = False
    halvings: int = 0


def plan_shards(run: Run, parts: Sequence[ChunkPart], *, limit: int) -> EncodePlan:
    """Find the texts that no raw vector exists for, and cut them into shards.

    Parameters
    ----------
    run
        The run.
    parts
        Its new parts.
    limit
        The encoder's token limit; what is longer counts as that.

    Returns
    -------
    EncodePlan
    """
    runtime = run.config.runtime
    work = run.work_store
    with scratch_database(run.scratch, memory_mb=runtime.memory_mb) as connection:
        load_columns(
            connection, "chunks", work, [p.chunks.path for p in parts], {"chunk_hash": "BLOB", "n_tokens": "INTEGER"}
        )
        load_vector_hashes(connection, run.store, run.encoder_id)
        connection.execute(
            f"""
            CREATE TABLE texts AS
            SELECT chunk_hash, arg_min(part, (part, row)) AS part, arg_min(row, (part, row)) AS row,
                   least(any_value(n_tokens), {limit}) AS n_tokens
            FROM chunks GROUP BY chunk_hash
            """
        )
        connection.execute("CREATE TABLE missing AS SELECT * FROM texts ANTI JOIN vectors USING (chunk_hash)")
        (occurrences,) = connection.execute("SELECT count(*) FROM chunks").fetchone() or (0,)
        (distinct,) = connection.execute("SELECT count(*) FROM texts").fetchone() or (0,)
        (missing,) = connection.execute("SELECT count(*) FROM missing").fetchone() or (0,)
        shards = _resume_or_cut(connection, run, parts) if missing else ()
    return EncodePlan(
        shards=shards,
        chunks=occurrences,
        distinct=distinct,
        reused=distinct - missing,
        to_encode=sum(shard.chunks for shard in shards),
        tokens=sum(shard.tokens for shard in shards),
    )


def encode_shard(run: Run, shard: Shard, encoder: SentenceEncoder) -> Encoded:
    """Encode one shard and write its part; a part that exists already is left alone.

    Parameters
    ----------
    run
        The run.
    shard
        The reference.
    encoder
        Of `run.encoder_id`.

    Returns
    -------
    Encoded
    """
    store = run.store
    if store.exists(vector_part_path(run.encoder_id, shard.shard_id)):
        return Encoded(0, 0, 0.0)
    hashes, texts = _shard_texts(run, shard)
    with encoder.lock:
        before = encoder.backend.halvings
        started = time.perf_counter()
        vectors = encoder.encode(texts, "document")
        seconds = time.perf_counter() - started
        halvings = encoder.backend.halvings - before
    write_vectors(store, run.encoder_id, shard.shard_id, hashes, vectors, provenance=encoder.backend.engine())
    return Encoded(len(texts), shard.tokens, seconds, halvings=halvings)


def measured_rate(store: Store, encoder_id: str, place: str) -> float | None:
    """Return the tokens per second of the last run with an encoder at a place, if there was one."""
    rate = measured_rates(store, encoder_id).get(place)
    return float(rate) if rate else None


def record_rate(store: Store, encoder_id: str, place: str, encoded: Sequence[Encoded], *, workers: int = 1) -> None:
    """Remember the tokens per second of all workers together, for the estimates of later plans."""
    tokens, seconds = sum(e.tokens for e in encoded), sum(e.seconds for e in encoded) / workers
    if not tokens or not seconds:
        return
    known = measured_rates(store, encoder_id)
    store.write(layout.encoder_rate(encoder_id), seal({**known, place: round(tokens / seconds, 1)}))


def measured_rates(store: Store, encoder_id: str) -> dict[str, float]:
    """Return the tokens per second of an encoder's last runs, by the place they ran at; empty if there was none."""
    path = layout.encoder_rate(encoder_id)
    try:
        return unseal(store.read(path), name=path)
    except (NotFoundError, IntegrityError):
        # A note for estimates: one that is damaged is measured again.
        return {}


def _resume_or_cut(connection: DuckDBPyConnection, run: Run, parts: Sequence[ChunkPart]) -> tuple[Shard, ...]:
    plan_id = fingerprint(
        {
            "encoder_id": run.encoder_id,
            "chunking_id": run.chunking_id,
            "parts": [part.name for part in parts],
            "shard_tokens": run.config.runtime.shard_tokens,
        }
    )
    path = layout.plan_shards(run.collection, plan_id)
    work = run.work_store
    if not _covers(connection, work, path):
        work.delete(path)
        create_parquet(work, path, _PLAN_SCHEMA, _cut(connection, run, parts), run.scratch, dictionary=["part"])
    finished = set(vector_parts(run.store, run.encoder_id))
    return tuple(s for s in _shards(work, path) if vector_part_path(run.encoder_id, s.shard_id) not in finished)


def _covers(connection: DuckDBPyConnection, store: Store, path: str) -> bool:
    """Tell whether every missing text is in a shard of an earlier plan."""
    fields = ", ".join(f"{name} {kind}" for name, kind in _PLAN_COLUMNS.items())
    connection.execute(f"CREATE OR REPLACE TABLE planned (part INTEGER, row INTEGER, {fields})")
    try:
        for table in read_groups(store, path, list(_PLAN_COLUMNS)):
            append_rows(connection, "planned", 0, table)
    except (NotFoundError, IntegrityError):
        return False
    (uncovered,) = connection.execute(
        "SELECT count(*) FROM missing ANTI JOIN planned USING (chunk_hash)"
    ).fetchone() or (1,)
    return bool(uncovered == 0)


def _cut(connection: DuckDBPyConnection, run: Run, parts: Sequence[ChunkPart]) -> Iterator[pa.Table]:
    """Cut the missing texts, part by part and by length, at the shard's budget of tokens."""
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
    """Yield the shards of a plan, whose rows are in their order."""
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


def _shard_texts(run: Run, shard: Shard) -> tuple[list[bytes], list[str]]:
    rows = read_rows(run.work_store, shard.plan, shard.first, shard.chunks).to_pylist()
    hashes: list[bytes] = []
    texts: list[str] = []
    for part, group in groupby(rows, key=lambda row: row["part"]):
        members = list(group)
        path = layout.chunks_part(run.collection, part)
        chunks = read_parquet(run.work_store, path, columns=["prefix", "text"]).take([m["row"] for m in members])
        texts += [
            prefix + text for prefix, text in zip(chunks["prefix"].to_pylist(), chunks["text"].to_pylist(), strict=True)
        ]
        hashes += [member["chunk_hash"] for member in members]
    if any(hashlib.sha256(text.encode()).digest() != key for text, key in zip(texts, hashes, strict=True)):
        raise IntegrityError(
            f"{shard.plan}: lists chunks that are not those of the parts it names. Delete it and run the same command again."
        )
    return hashes, texts
