"""Encode one shard: read its texts, encode them, and write their raw vectors.

A shard is a reference to rows of a plan; it holds no texts.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from isospace.collection.billing import note_billed
from isospace.collection.origins import Origin, origin_of
from isospace.collection.raw_vectors import write_vectors
from isospace.collection.vector_files import vector_part_path
from isospace.encoding.bits import computed_by
from isospace.encoding.encoder import LoadedEncoder, SentenceEncoder
from isospace.errors import IntegrityError, MismatchError, ProviderError
from isospace.ingest.token_counter import TokenIds
from isospace.pipeline.encode.mixed_bits import require_class
from isospace.pipeline.encode.paid_answers import PaidAnswers
from isospace.pipeline.encode.refusals import without_quotes
from isospace.pipeline.run import Run
from isospace.pipeline.token_files import kept_tokens
from isospace.storage.parquet import read_parquet, read_rows
from isospace.transform.vectors import Float32

if TYPE_CHECKING:
    from isospace.encoding.served.encoder import ServedEncoder


@dataclass(frozen=True, slots=True)
class Shard:
    """What one task encodes.

    Attributes
    ----------
    plan
        Path of the plan that lists its rows.
    number
        Its number in the plan.
    first
        Its first row in the plan.
    shard_id
        SHA-256 of its chunk hashes; names the file of raw vectors that it writes.
    chunks, tokens
        Its size.
    classes
        The classes of bits that the run may add vectors of, if `runtime.mixed_bits` refuses others.
    """

    plan: str
    number: int
    first: int
    shard_id: str
    chunks: int
    tokens: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """What a run has to encode.

    Attributes
    ----------
    shards
        The shards that are not encoded yet.
    chunks
        Number of chunks in the new parts.
    distinct
        Number of different texts among them.
    reused
        Number of different texts that already have a raw vector.
    to_encode, tokens
        Number of texts to encode, and of their tokens.
    stored
        What computed the vectors that the snapshot will take from the store, one for each class of bits.
    """

    shards: tuple[Shard, ...]
    chunks: int
    distinct: int
    reused: int
    to_encode: int
    tokens: int
    stored: tuple[Origin, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class ShardTexts:
    """What a shard consists of.

    Attributes
    ----------
    hashes, texts
        The chunk hashes, and the texts with their prefixes.
    ids
        The token IDs of each text as a document; None where the encoder has to make them.
    """

    hashes: list[bytes]
    texts: list[str]
    ids: list[TokenIds | None]


@dataclass(frozen=True, slots=True)
class EncodedShard:
    """The outcome of encoding one shard.

    Attributes
    ----------
    seconds
        Time spent encoding, without waiting.
    worker
        Name of the worker that encoded it.
    loaded
        Whether the worker had to load the model first.
    halvings
        How often the device ran out of memory and the batch size was halved.
    refused
        Texts that a provider refuses: the chunk hash of each, and the reason.
    billed_tokens
        Tokens that a provider billed, also for attempts of this run that failed.
    resent_texts
        Texts that were sent again after a failure, and may have been billed twice.
    limited
        Answers of a provider that said a limit was exceeded.
    """

    chunks: int
    tokens: int
    seconds: float
    worker: str = "in process"
    loaded: bool = False
    halvings: int = 0
    refused: tuple[tuple[bytes, str], ...] = ()
    billed_tokens: int = 0
    resent_texts: int = 0
    limited: int = 0


def encode_shard(run: Run, shard: Shard, encoder: LoadedEncoder) -> EncodedShard:
    """Encode one shard and write its raw vectors, unless they already exist.

    Raises
    ------
    IntegrityError
        If the plan does not match the chunks that it refers to.
    MismatchError
        If the encoder is not that of the run: its vectors would be stored under the identity of another one. Also if
        `runtime.mixed_bits` is `refuse`, and this process computes other bits than the run's vectors have.
    """
    store = run.store
    _require_own(run, encoder)
    if store.exists(vector_part_path(run.encoder_id, shard.shard_id)):
        return EncodedShard(0, 0, 0.0)
    found = read_shard(run, shard, encoder.tokenizer.digest if isinstance(encoder, SentenceEncoder) else None)
    hashes, texts = found.hashes, found.texts
    with encoder.lock:
        provenance = computed_by(encoder)
        require_class(run.config.runtime.mixed_bits, origin_of(provenance), shard.classes)
        before = encoder.backend.halvings
        started = time.perf_counter()
        vectors = _encode(encoder, found)
        seconds = time.perf_counter() - started
        halvings = encoder.backend.halvings - before
    write_vectors(store, run.encoder_id, shard.shard_id, hashes, vectors, provenance=provenance, announced=True)
    return EncodedShard(len(texts), shard.tokens, seconds, halvings=halvings)


def encode_served_shard(run: Run, shard: Shard, encoder: ServedEncoder) -> EncodedShard:
    """Have a provider encode one shard, and write its raw vectors, unless they already exist.

    Texts that the provider refuses get no vector. Each answer is kept when it arrives: if the run is killed, or the
    provider fails, the next attempt sends only the texts without one.

    Raises
    ------
    ProviderUnavailableError
        If the provider cannot be reached in time.
    EncoderError
        If it answers with something else than vectors.
    """
    _require_own(run, encoder)
    if run.store.exists(vector_part_path(run.encoder_id, shard.shard_id)):
        return EncodedShard(0, 0, 0.0)
    hashes, texts = shard_texts(run, shard)
    with PaidAnswers(run.store, run.paths.paid(shard.shard_id), run.encoder_id, hashes) as answers:
        found = answers.kept()
        asked = [row for row, key in enumerate(hashes) if key not in found]
        # Of the texts that an earlier attempt sent and has no answer to, nobody knows which were billed.
        sent = answers.sent()
        again = sum(hashes[row] in sent for row in asked)
        started = time.perf_counter()
        key = f"{run.run_id}-{shard.shard_id}"
        try:
            answer = encoder.ask(
                [texts[row] for row in asked],
                "document",
                on_rows=lambda rows: answers.keep(rows, asked),
                on_send=lambda rows: answers.note_sent(rows, asked),
            )
        except ProviderError as error:
            note_billed(run.store, run.collection, key, error.answer.billed_tokens if error.answer is not None else 0)
            raise
        billed = note_billed(run.store, run.collection, key, answer.billed_tokens)
        seconds = time.perf_counter() - started
        refused = {asked[row]: without_quotes(reason, texts[asked[row]]) for row, reason in answer.refused.items()}
        found |= {hashes[asked[row]]: answer.vectors[row] for row in range(len(asked)) if row not in answer.refused}
        kept = [key for row, key in enumerate(hashes) if row not in refused]
        if kept:
            vectors = np.stack([found[key] for key in kept])
            # Without the refused texts it has another name, so that the plan still misses them.
            name = shard.shard_id if len(kept) == len(texts) else _shard_id(kept)
            announced = name == shard.shard_id
            write_vectors(
                run.store, run.encoder_id, name, kept, vectors, provenance=computed_by(encoder), announced=announced
            )
        answers.forget()
    return EncodedShard(
        len(kept),
        shard.tokens,
        seconds,
        worker=encoder.record_model,
        refused=tuple((hashes[row], reason) for row, reason in refused.items()),
        billed_tokens=billed,
        resent_texts=answer.resent_texts + again,
        limited=answer.limited,
    )


def _require_own(run: Run, encoder: LoadedEncoder) -> None:
    if encoder.record.encoder_id != run.encoder_id:
        raise MismatchError(
            f"the encoder is {encoder.record.encoder_id[:16]}…, and the run encodes with {run.encoder_id[:16]}…. Run "
            "the same command again."
        )


def _shard_id(hashes: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk_hash in hashes:
        digest.update(chunk_hash)
    return digest.hexdigest()


def encoder_origin(encoder: LoadedEncoder) -> Origin:
    """Return what computes an encoder's raw vectors in this process."""
    with encoder.lock:
        return origin_of(computed_by(encoder))


def _encode(encoder: LoadedEncoder, texts: ShardTexts) -> Float32:
    if isinstance(encoder, SentenceEncoder):
        return encoder.encode(texts.texts, "document", ids=texts.ids)
    return encoder.encode(texts.texts, "document")


def shard_texts(run: Run, shard: Shard) -> tuple[list[bytes], list[str]]:
    """Return the chunk hashes and the texts of a shard; IntegrityError if they do not belong together."""
    found = read_shard(run, shard)
    return found.hashes, found.texts


def read_shard(run: Run, shard: Shard, tokenizer: str | None = None) -> ShardTexts:
    """Return what a shard consists of.

    Parameters
    ----------
    tokenizer
        SHA-256 of the file of the tokenizer whose IDs are wanted; None if none are.

    Raises
    ------
    IntegrityError
        If chunk hashes and texts do not belong together.
    """
    rows = read_rows(run.work_store, shard.plan, shard.first, shard.chunks).to_pylist()
    hashes: list[bytes] = []
    texts: list[str] = []
    ids: list[TokenIds | None] = []
    for part, group in groupby(rows, key=lambda row: row["part"]):
        members = list(group)
        numbers, keys = [member["row"] for member in members], [member["chunk_hash"] for member in members]
        chunks = read_parquet(run.work_store, run.paths.chunks(part), columns=["prefix", "text"]).take(numbers)
        texts += [
            prefix + text for prefix, text in zip(chunks["prefix"].to_pylist(), chunks["text"].to_pylist(), strict=True)
        ]
        hashes += keys
        ids += [None] * len(keys) if tokenizer is None else kept_tokens(run, part, tokenizer, numbers, keys)
    if any(hashlib.sha256(text.encode()).digest() != key for text, key in zip(texts, hashes, strict=True)):
        raise IntegrityError(
            f"{shard.plan}: its chunk hashes do not match the chunks of the parts that it refers to. Delete it and run "
            "the same command again."
        )
    return ShardTexts(hashes, texts, ids)
