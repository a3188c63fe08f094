"""What the tasks of one process share: the encoder, loaded once, the pool of workers, and spaces."""

from __future__ import annotations

import threading
from dataclasses import replace

from isospace.encoding.embedder import load_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.pipeline.config import PipelineConfig, WorkersSpec, engine_of
from isospace.pipeline.encode.workers.pool import Pool, open_pool
from isospace.pipeline.encode.workers.process import Work
from isospace.pipeline.run import Run
from isospace.storage.store import open_store
from isospace.transform.space import Space

_LOCK = threading.Lock()
_ENCODERS: dict[tuple[str, EncoderSpec, Engine], SentenceEncoder] = {}
_POOLS: dict[tuple[str, Work, WorkersSpec], Pool] = {}
_SPACES: dict[tuple[str, str], Space] = {}


def encoder_of(store_url: str, spec: EncoderSpec, engine: Engine) -> SentenceEncoder:
    """Return the encoder of a recipe, loading it the first time."""
    key = (store_url, spec, engine)
    with _LOCK:
        if key not in _ENCODERS:
            _ENCODERS[key] = prepare_encoder(open_store(store_url), spec, engine)
        return _ENCODERS[key]


def adopt_encoder(config: PipelineConfig, encoder: SentenceEncoder) -> None:
    """Use an encoder that was opened from the store for a config's runs in this process."""
    with _LOCK:
        _ENCODERS[config.runtime.store, config.recipe.encoder, driver_engine(config)] = encoder


def run_encoder(run: Run) -> SentenceEncoder:
    """Return the encoder of a run, in this process."""
    return encoder_of(run.config.runtime.store, run.config.recipe.encoder, driver_engine(run.config))


def run_pool(run: Run) -> Pool:
    """Return the workers of a run, starting them the first time."""
    encoder = run_encoder(run)
    runtime = run.config.runtime
    # What runs here runs there: `auto` may have had to leave a backend that the model does not go with.
    # The machines of a cluster are others: what they have decides there.
    asked = engine_of(runtime, trust_remote_code=run.config.recipe.encoder.trust_remote_code)
    engine = asked if runtime.workers.kind == "ray" else replace(asked, backend=encoder.backend.name)
    work = Work(runtime.store, run.encoder_id, engine, encoder.record.precision)
    key = (run.run_id, work, runtime.workers)
    with _LOCK:
        if key not in _POOLS:
            _POOLS[key] = open_pool(runtime.workers, work, lambda: encoder)
        return _POOLS[key]


def close_pools(run: Run) -> None:
    """End the workers of a run."""
    with _LOCK:
        for key in [key for key in _POOLS if key[0] == run.run_id]:
            _POOLS.pop(key).close()


def run_space(run: Run, space_id: str) -> Space:
    """Return a verified space of the run's store."""
    key = (run.config.runtime.store, space_id)
    with _LOCK:
        if key not in _SPACES:
            _SPACES[key] = load_space(run.store, space_id)
        return _SPACES[key]


def driver_engine(config: PipelineConfig) -> Engine:
    """Return what runs the encoder in this process, which may be a head node without the cluster's GPUs."""
    engine = engine_of(config.runtime, trust_remote_code=config.recipe.encoder.trust_remote_code)
    if config.runtime.workers.kind == "ray" and engine.device != "cpu":
        return replace(engine, backend="auto", device="cpu", compute="float32", compile=False, flatten=None)
    return engine
