"""Encode one shard: read its texts, encode them, write its part of raw vectors.

A shard is a reference: a plan's name and a number.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from itertools import groupby

from isospace.collection.raw_vectors import vector_part_path, write_vectors
from isospace.encoding.encoder import SentenceEncoder
from isospace.errors import IntegrityError
from isospace.pipeline.run import Run
from isospace.storage.parquet import read_parquet, read_rows


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


def _shard_texts(run: Run, shard: Shard) -> tuple[list[bytes], list[str]]:
    rows = read_rows(run.work_store, shard.plan, shard.first, shard.chunks).to_pylist()
    hashes: list[bytes] = []
    texts: list[str] = []
    for part, group in groupby(rows, key=lambda row: row["part"]):
        members = list(group)
        path = run.paths.chunks(part)
        chunks = read_parquet(run.work_store, path, columns=["prefix", "text"]).take([m["row"] for m in members])
        texts += [
            prefix + text for prefix, text in zip(chunks["prefix"].to_pylist(), chunks["text"].to_pylist(), strict=True)
        ]
        hashes += [member["chunk_hash"] for member in members]
    if any(hashlib.sha256(text.encode()).digest() != key for text, key in zip(texts, hashes, strict=True)):
        raise IntegrityError(
            f"{shard.plan}: lists chunks that are not those of the parts it names. Delete it and run the same "
            "command again."
        )
    return hashes, texts
