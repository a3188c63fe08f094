"""What the tasks of one process share: the loaded encoder, loaded once."""

from __future__ import annotations

import threading

from isospace.config import EncoderSpec
from isospace.encoder import SentenceEncoder
from isospace.opening import load_space, prepare_encoder
from isospace.run import Run
from isospace.space import Space
from isospace.store import open_store

_LOCK = threading.Lock()
_ENCODERS: dict[tuple[str, EncoderSpec, str, int], SentenceEncoder] = {}
_SPACES: dict[tuple[str, str], Space] = {}


def encoder_of(store_url: str, spec: EncoderSpec, device: str, batch_tokens: int) -> SentenceEncoder:
    """Return the encoder of a recipe, loading it the first time."""
    key = (store_url, spec, device, batch_tokens)
    with _LOCK:
        if key not in _ENCODERS:
            _ENCODERS[key] = prepare_encoder(open_store(store_url), spec, device=device, batch_tokens=batch_tokens)
        return _ENCODERS[key]


def run_encoder(run: Run) -> SentenceEncoder:
    """Return the encoder of a run."""
    runtime = run.config.runtime
    return encoder_of(runtime.store, run.config.recipe.encoder, runtime.device, runtime.batch_tokens)


def run_space(run: Run, space_id: str) -> Space:
    """Return a verified space of the run's store."""
    key = (run.config.runtime.store, space_id)
    with _LOCK:
        if key not in _SPACES:
            _SPACES[key] = load_space(run.store, space_id)
        return _SPACES[key]
