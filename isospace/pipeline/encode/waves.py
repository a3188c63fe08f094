"""Waves of parts: the texts of a wave are planned and encoded while the parts of later waves are chunked.

The first wave is all that a small corpus has, which is therefore planned at once. Each further wave is a fixed share of
all before it: a plan reads the hashes of all texts so far, so that waves of equal size would cost the square of the
corpus. Waves depend on the staged documents alone: a run that continues a killed one finds the same waves, and the
plans that fixed their shards.
"""

from __future__ import annotations

from collections.abc import Sequence

from isospace.collection.origins import distinct
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.run import Run
from isospace.storage.parquet import FileRef
from isospace.storage.scratch_duckdb import load_columns, scratch_database

# Of compressed documents: some 16 million characters of prose.
FIRST_BYTES = 6_000_000
_GROWTH = 0.25


def waves(documents: Sequence[FileRef], *, first: int) -> list[int]:
    """Return the number of parts of each wave, in the order of the parts.

    Parameters
    ----------
    documents
        The documents of each part.
    first
        Bytes of documents that the first wave has at least, unless there are less.
    """
    sizes: list[int] = []
    wanted, total, wave, count = float(first), 0, 0, 0
    for part in documents:
        total, wave, count = total + part.size, wave + part.size, count + 1
        if wave >= wanted:
            sizes.append(count)
            wanted, wave, count = _GROWTH * total, 0, 0
    return [*sizes, count] if count else sizes


def together(run: Run, parts: Sequence[ChunkPart], plans: Sequence[EncodePlan]) -> EncodePlan:
    """Return the plans of all waves as one: with the texts that had raw vectors, or got them, before their own wave.

    Parameters
    ----------
    parts
        The parts of all waves.
    """
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        load_columns(connection, "chunks", run.work_store, [p.chunks.path for p in parts], {"chunk_hash": "BLOB"})
        [(texts,)] = connection.execute("SELECT count(DISTINCT chunk_hash) FROM chunks").fetchall()
    to_encode = sum(plan.to_encode for plan in plans)
    return EncodePlan(
        shards=tuple(shard for plan in plans for shard in plan.shards),
        chunks=sum(plan.chunks for plan in plans),
        distinct=texts,
        reused=texts - to_encode,
        to_encode=to_encode,
        tokens=sum(plan.tokens for plan in plans),
        stored=distinct([origin for plan in plans for origin in plan.stored]),
    )
