"""Functions that run inside a worker, in a process or a Ray actor."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import replace

from isospace.collection.origins import Origin
from isospace.encoding.bits import note_cosine
from isospace.encoding.encoder import LoadedEncoder
from isospace.encoding.engine import Engine
from isospace.pipeline.encode.shards import EncodedShard, Shard, encode_shard, encoder_origin
from isospace.pipeline.encode.workers.process import Work
from isospace.pipeline.run import Run
from isospace.storage.store import open_store

_LOG = logging.getLogger(__name__)
# Exit code of a worker whose device failed.
_DEVICE_LOST = 75


def place_of(engines: Sequence[Engine]) -> str:
    """Return the backend and the devices of workers in words."""
    devices = sorted({engine.device for engine in engines})
    return f"{engines[0].backend} {', '.join(devices)} x {len(engines)}"


_LOADED: dict[Work, LoadedEncoder] = {}


def load_in_worker(work: Work) -> bool:
    """Load the encoder in this process and check it against its reference vectors; return False if it was loaded."""
    from isospace.encoding.loading import open_encoder
    from isospace.encoding.registry.reference_vectors import check_reference

    if work in _LOADED:
        return False
    store = open_store(work.store)
    encoder = open_encoder(store, work.encoder_id, work.engine)
    note_cosine(encoder, check_reference(store, encoder))
    _LOADED[work] = encoder
    return True


def origin_in_worker(work: Work) -> Origin:
    """Return what computes the raw vectors in this process, which has loaded the encoder."""
    load_in_worker(work)
    return encoder_origin(_LOADED[work])


def encode_in_worker(work: Work, run: Run, shard: Shard) -> EncodedShard:
    """Encode a shard in this process."""
    loaded = load_in_worker(work)
    try:
        encoded = encode_shard(run, shard, _LOADED[work])
    except RuntimeError as error:
        if "CUDA error" not in str(error):
            raise
        # After a CUDA error, every later call of this process fails too: only a new process can use the device.
        _LOG.exception("the device failed; the worker exits")
        os._exit(_DEVICE_LOST)
    return replace(encoded, worker=f"process {os.getpid()} on {socket.gethostname()}", loaded=loaded)
