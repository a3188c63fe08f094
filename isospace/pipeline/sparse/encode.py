"""Plan and encode the sparse vectors of a run: as the dense ones, by shards that are fixed by the first plan."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from isospace.collection.sparse_vectors import write_sparse_vectors
from isospace.collection.vector_files import vector_part_path
from isospace.encoding.engine import Engine
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.encoding.sparse.model import SparseEncoder
from isospace.encoding.sparse.record import SparseEncoderRecord, read_sparse_record
from isospace.encoding.sparse.register import identify_sparse, open_sparse_encoder, register_sparse
from isospace.errors import ConfigError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import EncodePlan, Shard, shard_texts
from isospace.pipeline.run import Run
from isospace.storage.paths import sparse_encoder_document
from isospace.storage.store import open_store
from isospace.transform.sparse_space import check_sparse_probes

_LOCK = threading.Lock()
_ENCODERS: dict[tuple[str, str, Engine], SparseEncoder] = {}


@dataclass(frozen=True, slots=True)
class EncodedSparse:
    """The outcome of encoding one shard.

    Attributes
    ----------
    entries
        Number of weights that are not zero.
    cut
        Number of texts that are longer than the model's limit.
    """

    texts: int
    entries: int
    cut: int
    seconds: float


def sparse_record(
    config: PipelineConfig, on_step: Callable[[str], object], *, dry: bool = False
) -> SparseEncoderRecord | None:
    """Return the identity of a recipe's sparse encoder, registered in the store unless `dry`; None if it has none."""
    if config.recipe.sparse is None:
        return None
    store = open_store(config.runtime.store)
    if dry:
        return identify_sparse(store, config.recipe.sparse)
    return register_sparse(store, config.recipe.sparse, on_step)


def run_sparse_encoder(run: Run) -> SparseEncoder:
    """Return the sparse encoder of a run; it is loaded at the first call."""
    engine = engine_of(run.config.runtime)
    key = (run.config.runtime.store, _encoder_id(run), engine)
    with _LOCK:
        if key not in _ENCODERS:
            _ENCODERS[key] = open_sparse_encoder(run.store, key[1], engine)
        return _ENCODERS[key]


def plan_sparse(run: Run, parts: Sequence[ChunkPart]) -> EncodePlan:
    """Find the texts without sparse vectors, and group them into shards."""
    # A dry run writes nothing, so that the store may not know its encoder.
    is_known = run.store.exists(sparse_encoder_document(_encoder_id(run)))
    limit = read_sparse_record(run.store, _encoder_id(run)).max_tokens if is_known else 2**31 - 1
    return plan_shards(as_sparse(run), parts, limit=limit)


def require_same_sparse(run: Run) -> None:
    """Compare the loaded encoder with the sealed sparse space, before the first shard.

    Raises
    ------
    MismatchError
        If a probe comes out differently; names the stage.
    """
    if run.sparse_space_id is not None:
        check_sparse_probes(load_sparse_space(run.store, run.sparse_space_id), run_sparse_encoder(run))


def encode_sparse(run: Run, shard: Shard) -> EncodedSparse:
    """Encode one shard, and write its raw sparse vectors, unless they already exist."""
    encoder_id = _encoder_id(run)
    if run.store.exists(vector_part_path(encoder_id, shard.shard_id)):
        return EncodedSparse(0, 0, 0, 0.0)
    hashes, texts = shard_texts(run, shard)
    encoder = run_sparse_encoder(run)
    started = time.perf_counter()
    vectors = encoder.encode(texts, "document")
    seconds = time.perf_counter() - started
    write_sparse_vectors(
        run.store, encoder_id, shard.shard_id, hashes, vectors, provenance=encoder.provenance, announced=True
    )
    return EncodedSparse(len(texts), len(vectors.terms), encoder.count_cut(texts, "document"), seconds)


def as_sparse(run: Run) -> Run:
    """Return a run whose encoder is its sparse one, for what only depends on the hashes of texts."""
    return replace(run, encoder_id=_encoder_id(run))


def _encoder_id(run: Run) -> str:
    if run.sparse_encoder_id is None:
        raise ConfigError("recipe.sparse is empty, so that the run has no sparse encoder.")
    return run.sparse_encoder_id
