"""Encoding a shard: its texts are those of the plan, as documents, by the encoder of the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import SimpleNamespace

import numpy as np
import pytest

from isospace.collection.raw_vectors import find_vectors, read_vectors
from isospace.collection.vector_files import vector_parts
from isospace.errors import IntegrityError, MismatchError
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import encode_shard
from isospace.pipeline.run import Run
from tests.helpers.runs import ENCODER_ID, bare_run, text_hash, write_chunk_part
from tests.helpers.small_space import DIMENSION, LetterEncoder, record

TEXTS = ["the gene", "of the cell", "a protein"]


@dataclass(frozen=True)
class Encoder(LetterEncoder):
    """An encoder with what a shard needs beside its vectors."""

    record: object = field(default_factory=lambda: SimpleNamespace(encoder_id=ENCODER_ID, max_tokens=400))
    backend: object = field(
        default_factory=lambda: SimpleNamespace(
            halvings=0,
            is_batch_invariant=True,
            engine=lambda: {"engine": "letters", "processor": "any", "precision": "float32"},
        )
    )
    lock: object = field(default_factory=Lock)
    known: dict[str, str] = field(default_factory=dict)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return bare_run(tmp_path)


def test_texts_are_encoded_with_their_prefix_as_documents(run: Run) -> None:
    encoder = Encoder()
    part = write_chunk_part(run, "a", TEXTS, prefix="title: ")
    (shard,) = plan_shards(run, [part], limit=100).shards
    assert encode_shard(run, shard, encoder).chunks == 3
    prefixed = [f"title: {text}" for text in TEXTS]
    found = find_vectors(run.store, ENCODER_ID, vector_parts(run.store, ENCODER_ID), map(text_hash, prefixed))
    for text in prefixed:
        assert found[text_hash(text)].tolist() == encoder.encode([text], "document")[0].tolist()
        assert found[text_hash(text)].tolist() != encoder.encode([text], "query")[0].tolist()
    # Once written, a shard is not encoded again.
    assert encode_shard(run, shard, encoder).chunks == 0


@pytest.mark.parametrize("changed", [["the gene", "of the cell", "a proteins"], TEXTS[::-1], ["x", "y", "z"]])
def test_chunks_that_are_not_those_of_the_plan_are_not_encoded(run: Run, changed: list[str]) -> None:
    part = write_chunk_part(run, "a", TEXTS)
    (shard,) = plan_shards(run, [part], limit=100).shards
    run.store.delete(part.chunks.path)
    write_chunk_part(run, "a", changed)
    with pytest.raises(IntegrityError, match="its chunk hashes do not match the chunks"):
        encode_shard(run, shard, Encoder())
    assert vector_parts(run.store, ENCODER_ID) == []


def test_another_encoder_than_that_of_the_run_writes_nothing(run: Run) -> None:
    (shard,) = plan_shards(run, [write_chunk_part(run, "a", TEXTS)], limit=100).shards
    with pytest.raises(MismatchError, match=r"the encoder is .*, and the run encodes with eeee"):
        encode_shard(run, shard, Encoder(record=record()))
    assert vector_parts(run.store, ENCODER_ID) == []


def test_the_name_of_a_shard_is_the_digest_of_its_texts(run: Run) -> None:
    (shard,) = plan_shards(run, [write_chunk_part(run, "a", TEXTS)], limit=100).shards
    encode_shard(run, shard, Encoder())
    hashes, vectors = read_vectors(run.store, vector_parts(run.store, ENCODER_ID)[0], ENCODER_ID)
    assert hashlib.sha256(b"".join(hashes)).hexdigest() == shard.shard_id
    assert vectors.shape == (3, DIMENSION)
    assert np.isfinite(vectors).all()
