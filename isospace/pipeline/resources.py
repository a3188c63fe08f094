"""Resources that the stages of a process share, loaded when first needed: encoders, worker pools, spaces."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from isospace.encoding.backends.base import usable_cpus
from isospace.encoding.engine import Engine, engine_for
from isospace.encoding.loading import read_tokenizer
from isospace.encoding.registry.model_source import find_source
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record
from isospace.encoding.registry.register import prepare_encoder, recorded_identity, registered_encoder
from isospace.encoding.registry.router import query_spec
from isospace.encoding.role_encoders import RoleEncoders, naming_query_encoder
from isospace.encoding.spec import AnyEncoderSpec, ServedEncoderSpec
from isospace.errors import MismatchError
from isospace.pipeline.config import PipelineConfig, WorkersSpec, engine_of
from isospace.pipeline.parallel.local import LocalParts
from isospace.pipeline.run import Run
from isospace.storage.store import open_store

if TYPE_CHECKING:
    from isospace.encoding.backends.base import BackendName
    from isospace.encoding.encoder import Encoder, LoadedEncoder
    from isospace.encoding.served.encoder import ServedEncoder
    from isospace.ingest.chunking import TokenCounter
    from isospace.pipeline.encode.workers.pool import Pool
    from isospace.pipeline.encode.workers.process import Work
    from isospace.pipeline.parallel.local import PartWorkers
    from isospace.transform.affine import Role
    from isospace.transform.space import Space

_LOG = logging.getLogger(__name__)
# Of a served encoder: enough for the client to find out how many requests at a time are best.
SHARDS_IN_FLIGHT = 8
# Loading a model takes seconds, and parts are chunked meanwhile: what they need has a lock of its own.
_LOCK, _PART_LOCK = threading.RLock(), threading.RLock()
_RECORDS: dict[tuple[str, str], EncoderRecord] = {}
_ENCODERS: dict[tuple[str, str, Engine], LoadedEncoder] = {}
_COUNTERS: dict[tuple[str, str], TokenCounter] = {}
_POOLS: dict[tuple[str, Work, WorkersSpec], Pool] = {}
_PARTS: dict[str, PartWorkers] = {}
_SPACES: dict[tuple[str, str], Space] = {}


def identify_encoder(config: PipelineConfig, on_step: Callable[[str], object] = _LOG.debug) -> EncoderRecord:
    """Return the identity of a config's encoder; the model is loaded only if the store does not have all of it.

    The model's files are compared every time: a model that has changed since an earlier run is another encoder.
    """
    return _identify(config, config.recipe.encoder, "document", on_step)


def identify_query_encoder(
    config: PipelineConfig, document: EncoderRecord, on_step: Callable[[str], object] = _LOG.debug
) -> EncoderRecord | None:
    """Return the identity of the encoder of queries, as `identify_encoder` does; None if it is that of documents."""
    store = open_store(config.runtime.store)
    spec = query_spec(config.recipe.encoder, config.recipe.query_encoder, store)
    if spec is None:
        return None
    with naming_query_encoder(config.recipe.query_encoder is not None):
        record = _identify(config, spec, "query", on_step)
    return None if record.encoder_id == document.encoder_id else record


def _identify(
    config: PipelineConfig, spec: AnyEncoderSpec, role: Role, on_step: Callable[[str], object]
) -> EncoderRecord:
    store, engine = open_store(config.runtime.store), _engine(config, spec)
    if isinstance(spec, ServedEncoderSpec):
        # The provider is asked before every run whether it is still the same; the client is kept for the run.
        encoder = prepare_encoder(store, spec, engine, on_step)
        adopt_encoder(config, encoder)
        return encoder.record
    if (record := registered_encoder(store, spec, engine, role)) is not None:
        return record
    with _LOCK:
        known = recorded_identity(store, find_source(spec, store, role).key)
        cached = _ENCODERS.get(_key(config, known.encoder_id)) if known is not None else None
        # A model without a graph for the preferred backend runs on another one, and is whole without that graph.
        if cached is not None and registered_encoder(store, spec, on_backend(engine, cached), role):
            return cached.record
        encoder = prepare_encoder(store, spec, engine, on_step, role=role)
        _ENCODERS[_key(config, encoder.record.encoder_id)] = encoder
        return encoder.record


def on_backend(engine: Engine, encoder: LoadedEncoder) -> Engine:
    """Return an engine with the backend that an encoder runs on: `auto` may have had to replace one."""
    return replace(engine, backend=cast("BackendName", encoder.backend.name))


def encoder_of(config: PipelineConfig) -> LoadedEncoder:
    """Return the documents' encoder of a config as its files are now; it is loaded at the first call."""
    return _load(config, identify_encoder(config).encoder_id, "document")


def adopt_encoder(config: PipelineConfig, encoder: LoadedEncoder) -> None:
    """Use an already opened encoder for the runs of a config in this process."""
    with _LOCK:
        _ENCODERS[_key(config, encoder.record.encoder_id)] = encoder


def run_record(run: Run) -> EncoderRecord:
    """Return the identity of a run's encoder of documents, as recorded in the store."""
    return _record(run, run.encoder_id)


def run_query_record(run: Run) -> EncoderRecord | None:
    """Return the identity of a run's encoder of queries; None if it is that of documents."""
    return None if run.query_encoder_id is None else _record(run, run.query_encoder_id)


def _record(run: Run, encoder_id: str) -> EncoderRecord:
    key = (run.config.runtime.store, encoder_id)
    with _PART_LOCK:
        if key not in _RECORDS:
            _RECORDS[key] = read_encoder_record(run.store, encoder_id)
        return _RECORDS[key]


def run_encoder(run: Run) -> Encoder:
    """Return the encoder of a run, or its encoders of both roles; they are loaded at the first call.

    Raises
    ------
    MismatchError
        If a model's files have changed since the run started.
    """
    documents = run_document_encoder(run)
    if run.query_encoder_id is None:
        return documents
    return RoleEncoders(documents, _load(run.config, run.query_encoder_id, "query"))


def run_document_encoder(run: Run) -> LoadedEncoder:
    """Return the encoder of a run's documents; it is loaded at the first call.

    Raises
    ------
    MismatchError
        If the model's files have changed since the run started.
    """
    return _load(run.config, run.encoder_id, "document")


def _load(config: PipelineConfig, encoder_id: str, role: Role) -> LoadedEncoder:
    key = _key(config, encoder_id)
    store, recipe = open_store(config.runtime.store), config.recipe
    with _LOCK:
        if key not in _ENCODERS:
            is_own = role == "query" and recipe.query_encoder is not None
            spec = recipe.query_encoder or recipe.encoder if role == "query" else recipe.encoder
            with naming_query_encoder(is_own):
                encoder = prepare_encoder(store, spec, _engine(config, spec), role=role)
            if encoder.record.encoder_id != encoder_id:
                raise MismatchError(
                    f"recipe.{'query_encoder' if is_own else 'encoder'}.model = {spec.model!r}: its files changed "
                    "during the run, from "
                    f"encoder {encoder_id[:16]}… to {encoder.record.encoder_id[:16]}…. Run the same command again."
                )
            _ENCODERS[key] = encoder
        return _ENCODERS[key]


def _key(config: PipelineConfig, encoder_id: str) -> tuple[str, str, Engine]:
    return config.runtime.store, encoder_id, driver_engine(config)


def run_counter(run: Run) -> TokenCounter:
    """Return the token counter of a run's encoder, without loading the model."""
    from isospace.encoding.encoder import token_counter

    key = (run.config.runtime.store, run.encoder_id)
    with _PART_LOCK:
        if key not in _COUNTERS:
            _COUNTERS[key] = token_counter(read_tokenizer(run.store, run.encoder_id), run_record(run))
        return _COUNTERS[key]


def run_pool(run: Run) -> Pool:
    """Return the workers of a run; they are started at the first call."""
    from isospace.pipeline.encode.workers.pool import open_pool
    from isospace.pipeline.encode.workers.process import Work

    encoder = run_document_encoder(run)
    runtime = run.config.runtime
    if encoder.record.served is not None:
        return _served_pool(run, cast("ServedEncoder", encoder))
    # Local workers use the backend of this process: `auto` may have had to replace one that cannot run the model.
    # On a cluster, other machines may have other backends, so that each worker decides.
    configured = engine_of(runtime, trust_remote_code=run.config.recipe.encoder.trust_remote_code)
    engine = engine_for(encoder.record, configured)
    if runtime.workers.kind != "ray":
        engine = on_backend(engine, encoder)
    work = Work(runtime.store, run.encoder_id, engine, encoder.record.precision)
    key = (run.run_id, work, runtime.workers)
    with _LOCK:
        if key not in _POOLS:
            _POOLS[key] = open_pool(runtime.workers, work, lambda: encoder)
        return _POOLS[key]


def _served_pool(run: Run, encoder: ServedEncoder) -> Pool:
    from isospace.pipeline.encode.workers.served_pool import ServedPool

    return ServedPool(encoder, size=run.config.runtime.workers.count or SHARDS_IN_FLIGHT)


def run_parts(run: Run) -> PartWorkers:
    """Return what works on the parts of a run: chunks them, transforms them, reads them back.

    Raises
    ------
    EncoderError
        If a Ray cluster is configured that does not answer, or has another version of isospace.
    """
    runtime = run.config.runtime
    with _PART_LOCK:
        if run.run_id not in _PARTS:
            _PARTS[run.run_id] = (
                _ray_parts(run)
                if runtime.workers.kind == "ray"
                else LocalParts(runtime.threads or usable_cpus(), runtime.memory_mb * 1_000_000)
            )
        return _PARTS[run.run_id]


def _ray_parts(run: Run) -> PartWorkers:
    from isospace.pipeline.encode.workers.ray_pool import worker_engine
    from isospace.pipeline.parallel.ray_parts import open_ray_parts

    record = run_record(run)

    def on_gpus(has_gpus: bool) -> bool:
        if record.served is not None:
            return False
        engine = engine_for(record, engine_of(run.config.runtime))
        return worker_engine(engine, record.precision, gpus=has_gpus).device != "cpu"

    return open_ray_parts(run.config.runtime.workers, on_gpus=on_gpus)


def close_pools(run: Run) -> None:
    """Stop the workers of a run."""
    with _LOCK:
        for key in [key for key in _POOLS if key[0] == run.run_id]:
            _POOLS.pop(key).close()
    # The last: it may have opened the connection to a cluster that both use.
    with _PART_LOCK:
        parts = _PARTS.pop(run.run_id, None)
    if parts is not None:
        parts.close()


def forget_encoders() -> None:
    """Drop the encoders that this process has loaded, so that the next run opens its own."""
    with _LOCK:
        _ENCODERS.clear()


def run_space(run: Run, space_id: str) -> Space:
    """Return a verified space of the run's store."""
    from isospace.encoding.embedder import load_space

    key = (run.config.runtime.store, space_id)
    with _LOCK:
        if key not in _SPACES:
            _SPACES[key] = load_space(run.store, space_id)
        return _SPACES[key]


def driver_engine(config: PipelineConfig) -> Engine:
    """Return the engine of the encoder in this process, which may be a head node without the cluster's GPUs."""
    return _engine(config, config.recipe.encoder)


def _engine(config: PipelineConfig, spec: AnyEncoderSpec) -> Engine:
    engine = engine_of(config.runtime, trust_remote_code=spec.trust_remote_code)
    if config.runtime.workers.kind == "ray" and engine.device != "cpu":
        return replace(engine, backend="auto", device="cpu", compute="float32", compile=False, flatten=None)
    return engine
