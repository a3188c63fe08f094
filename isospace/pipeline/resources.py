"""Resources that the stages of a process share, loaded when first needed: encoders, worker pools, spaces."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from isospace.encoding.engine import Engine, engine_for
from isospace.encoding.loading import read_tokenizer
from isospace.encoding.registry.model_source import find_source
from isospace.encoding.registry.record import EncoderRecord, read_encoder_record
from isospace.encoding.registry.register import prepare_encoder, recorded_identity, registered_encoder
from isospace.errors import MismatchError
from isospace.pipeline.config import PipelineConfig, WorkersSpec, engine_of
from isospace.pipeline.run import Run
from isospace.storage.store import open_store

if TYPE_CHECKING:
    from isospace.encoding.encoder import SentenceEncoder
    from isospace.ingest.chunking import TokenCounter
    from isospace.pipeline.encode.workers.pool import Pool
    from isospace.pipeline.encode.workers.process import Work
    from isospace.transform.space import Space

_LOG = logging.getLogger(__name__)
_LOCK = threading.RLock()
_RECORDS: dict[tuple[str, str], EncoderRecord] = {}
_ENCODERS: dict[tuple[str, str, Engine], SentenceEncoder] = {}
_COUNTERS: dict[tuple[str, str], TokenCounter] = {}
_POOLS: dict[tuple[str, Work, WorkersSpec], Pool] = {}
_SPACES: dict[tuple[str, str], Space] = {}


def identify_encoder(config: PipelineConfig, on_step: Callable[[str], object] = _LOG.debug) -> EncoderRecord:
    """Return the identity of a config's encoder; the model is loaded only if the store does not have all of it.

    The model's files are compared every time: a model that has changed since an earlier run is another encoder.
    """
    store, spec, engine = open_store(config.runtime.store), config.recipe.encoder, driver_engine(config)
    if (record := registered_encoder(store, spec, engine)) is not None:
        return record
    with _LOCK:
        known = recorded_identity(store, find_source(spec, store).key)
        cached = _ENCODERS.get(_key(config, known.encoder_id)) if known is not None else None
        # A model without a graph for the preferred backend runs on another one, and is whole without that graph.
        if cached is not None and registered_encoder(store, spec, replace(engine, backend=cached.backend.name)):
            return cached.record
        encoder = prepare_encoder(store, spec, engine, on_step)
        _ENCODERS[_key(config, encoder.record.encoder_id)] = encoder
        return encoder.record


def encoder_of(config: PipelineConfig) -> SentenceEncoder:
    """Return the encoder of a config as its files are now; it is loaded at the first call."""
    return _load(config, identify_encoder(config).encoder_id)


def adopt_encoder(config: PipelineConfig, encoder: SentenceEncoder) -> None:
    """Use an already opened encoder for the runs of a config in this process."""
    with _LOCK:
        _ENCODERS[_key(config, encoder.record.encoder_id)] = encoder


def run_record(run: Run) -> EncoderRecord:
    """Return the identity of a run's encoder, as recorded in the store."""
    key = (run.config.runtime.store, run.encoder_id)
    with _LOCK:
        if key not in _RECORDS:
            _RECORDS[key] = read_encoder_record(run.store, run.encoder_id)
        return _RECORDS[key]


def run_encoder(run: Run) -> SentenceEncoder:
    """Return the encoder of a run; it is loaded at the first call.

    Raises
    ------
    MismatchError
        If the model's files have changed since the run started.
    """
    return _load(run.config, run.encoder_id)


def _load(config: PipelineConfig, encoder_id: str) -> SentenceEncoder:
    key = _key(config, encoder_id)
    with _LOCK:
        if key not in _ENCODERS:
            encoder = prepare_encoder(open_store(config.runtime.store), config.recipe.encoder, driver_engine(config))
            if encoder.record.encoder_id != encoder_id:
                raise MismatchError(
                    f"recipe.encoder.model = {config.recipe.encoder.model!r}: its files changed during the run, from "
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
    with _LOCK:
        if key not in _COUNTERS:
            _COUNTERS[key] = token_counter(read_tokenizer(run.store, run.encoder_id), run_record(run))
        return _COUNTERS[key]


def run_pool(run: Run) -> Pool:
    """Return the workers of a run; they are started at the first call."""
    from isospace.pipeline.encode.workers.pool import open_pool
    from isospace.pipeline.encode.workers.process import Work

    encoder = run_encoder(run)
    runtime = run.config.runtime
    # Local workers use the backend of this process: `auto` may have had to replace one that cannot run the model.
    # On a cluster, other machines may have other backends, so that each worker decides.
    configured = engine_of(runtime, trust_remote_code=run.config.recipe.encoder.trust_remote_code)
    engine = engine_for(encoder.record, configured)
    if runtime.workers.kind != "ray":
        engine = replace(engine, backend=encoder.backend.name)
    work = Work(runtime.store, run.encoder_id, engine, encoder.record.precision)
    key = (run.run_id, work, runtime.workers)
    with _LOCK:
        if key not in _POOLS:
            _POOLS[key] = open_pool(runtime.workers, work, lambda: encoder)
        return _POOLS[key]


def close_pools(run: Run) -> None:
    """Stop the workers of a run."""
    with _LOCK:
        for key in [key for key in _POOLS if key[0] == run.run_id]:
            _POOLS.pop(key).close()


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
    engine = engine_of(config.runtime, trust_remote_code=config.recipe.encoder.trust_remote_code)
    if config.runtime.workers.kind == "ray" and engine.device != "cpu":
        return replace(engine, backend="auto", device="cpu", compute="float32", compile=False, flatten=None)
    return engine
