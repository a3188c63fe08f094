"""Pools of workers: shards are handed to them by reference, and nothing above knows where they run.

In process for one device, one process a device on one machine, or Ray actors. A worker loads the model
once. One that dies, or answers no more, costs the shard it had: the shard raises WorkerError and is tried
again, by whichever worker is free, while the lost one is replaced.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import TYPE_CHECKING, Protocol

from isospace.encoding.backends.base import usable_cpus
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine, resolve_engine, usable_gpus
from isospace.errors import ConfigError, NoWorkersError, WorkerError
from isospace.pipeline.encode.shards import Encoded, Shard, encode_shard
from isospace.pipeline.encode.workers.process import Work, WorkerProcess
from isospace.pipeline.run import Run
from isospace.storage.store import open_store

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec

_LOG = logging.getLogger(__name__)
_DEVICE_LOST = 75
_NONE_LEFT = "none of the {count} workers could be replaced after it was lost; what was encoded is kept."


class Pool(Protocol):
    """Somebody who encodes shards."""

    @property
    def size(self) -> int:
        """Shards that are encoded at once."""

    @property
    def place(self) -> str:
        """Backend and devices; rates are remembered by it."""

    def encode(self, run: Run, shard: Shard) -> Encoded:
        """Encode one shard; wait for a free worker first. WorkerError if the worker was lost over it."""

    def close(self) -> None:
        """End the workers."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """No worker but the process itself."""

    encoder: SentenceEncoder
    size: int = 1

    @property
    def place(self) -> str:
        """Backend and device."""
        return f"{self.encoder.backend.name} {self.encoder.backend.device} x 1"

    def encode(self, run: Run, shard: Shard) -> Encoded:
        """Encode one shard."""
        return encode_shard(run, shard, self.encoder)

    def close(self) -> None:
        """Do nothing: the encoder is its owner's."""


@dataclass(frozen=True, slots=True)
class Processes:
    """One process a device.

    Attributes
    ----------
    workers
        All of them.
    start_seconds, shard_seconds
        How long loading and a shard may take.
    free
        Those that have nothing to do; None once none is left.
    retired
        Those that could not be replaced.
    """

    workers: tuple[WorkerProcess, ...]
    start_seconds: float
    shard_seconds: float
    free: Queue[WorkerProcess | None] = field(default_factory=Queue)
    retired: list[WorkerProcess] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.workers)

    @property
    def place(self) -> str:
        """Backend and devices."""
        return place_of([worker.work.engine for worker in self.workers])

    def encode(self, run: Run, shard: Shard) -> Encoded:
        """Hand one shard to a free worker."""
        worker = self.free.get()
        if worker is None:
            self.free.put(None)
            raise NoWorkersError(_NONE_LEFT.format(count=len(self.workers)))
        try:
            # One that died while it had nothing to do loads first.
            seconds = self.shard_seconds if worker.is_ready else self.start_seconds + self.shard_seconds
            encoded: Encoded = worker.call(encode_in_worker, worker.work, run, shard, seconds=seconds)
        except WorkerError:
            self._replace(worker)
            raise
        except BaseException:
            self.free.put(worker)
            raise
        self.free.put(worker)
        return encoded

    def _replace(self, worker: WorkerProcess) -> None:
        """Give a worker back once a new process has loaded: one that cannot must not be handed every retry."""
        try:
            worker.call(load_in_worker, worker.work, seconds=self.start_seconds)
        except Exception as error:
            _LOG.warning("worker %s is left out from now on: %s", worker.name, error)
            self.retired.append(worker)
            if len(self.retired) == len(self.workers):
                self.free.put(None)
            return
        self.free.put(worker)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for worker in self.workers:
            worker.end()


def open_pool(spec: WorkersSpec, work: Work, encoder: Callable[[], SentenceEncoder]) -> Pool:
    """Start the workers that a configuration asks for.

    Parameters
    ----------
    spec
        `runtime.workers`.
    work
        What they load.
    encoder
        Returns the encoder of this process, for a pool in process.

    Raises
    ------
    ConfigError
        If the workers asked for do not go together with the devices.
    EncoderError
        If a worker cannot load the model, or a cluster lacks what is asked of it.
    WorkerError
        If a worker dies or answers no more while it loads.
    """
    kind = spec.kind
    engines = worker_engines(work.engine, spec, work.precision) if kind != "ray" else []
    if kind == "auto":
        kind = "in_process" if len(engines) == 1 else "processes"
    match kind:
        case "in_process":
            if (spec.count or 1) > 1:
                raise ConfigError(
                    f"runtime.workers.count = {spec.count} with kind in_process; expected 1. Use kind processes."
                )
            return InProcess(encoder())
        case "ray":
            from isospace.pipeline.encode.workers.ray_pool import open_ray

            return open_ray(spec, work)
        case _:
            return _open_processes(spec, work, engines)


def worker_engines(engine: Engine, spec: WorkersSpec, precision: str = "float32") -> list[Engine]:
    """Return the engine of each worker on this machine.

    GPUs are dealt out one a worker, again and again if there are more workers. Workers on the CPU share its processors.
    """
    resolved = resolve_engine(engine, precision)
    if resolved.device == "cpu":
        count = spec.count or 1
        threads = resolved.threads or (None if count == 1 else max(usable_cpus() // count, 1))
        return [replace(resolved, threads=threads)] * count
    if engine.device not in ("auto", "cuda"):
        return [resolved] * (spec.count or 1)
    devices = max(usable_gpus(), 1)
    return [replace(resolved, device=f"cuda:{n % devices}") for n in range(spec.count or devices)]


def planned_place(engine: Engine, spec: WorkersSpec, precision: str) -> str:
    """Name the place that workers would run at, without starting any; rates are remembered by it."""
    if spec.kind == "ray":
        return place_of([resolve_engine(engine, precision)] * (spec.count or 1))
    return place_of(worker_engines(engine, spec, precision))


def place_of(engines: Sequence[Engine]) -> str:
    """Name backend and devices."""
    devices = sorted({engine.device for engine in engines})
    return f"{engines[0].backend} {', '.join(devices)} x {len(engines)}"


_LOADED: dict[Work, SentenceEncoder] = {}


def load_in_worker(work: Work) -> bool:
    """Load the encoder of this process, and compare it with the reference; tell whether it was not loaded yet."""
    from isospace.encoding.embedder import open_encoder
    from isospace.encoding.registry.reference_vectors import check_reference

    if work in _LOADED:
        return False
    store = open_store(work.store)
    encoder = open_encoder(store, work.encoder_id, work.engine)
    check_reference(store, encoder)
    _LOADED[work] = encoder
    return True


def encode_in_worker(work: Work, run: Run, shard: Shard) -> Encoded:
    """Encode a shard in this process."""
    loaded = load_in_worker(work)
    try:
        encoded = encode_shard(run, shard, _LOADED[work])
    except RuntimeError as error:
        if "CUDA error" not in str(error):
            raise
        # The device is gone for this process, for every later shard too: only a new process gets it back.
        _LOG.exception("the worker ends: its device failed")
        os._exit(_DEVICE_LOST)
    return replace(encoded, worker=f"process {os.getpid()} on {socket.gethostname()}", loaded=loaded)


def _open_processes(spec: WorkersSpec, work: Work, engines: Sequence[Engine]) -> Processes:
    workers = tuple(WorkerProcess(number, replace(work, engine=engine)) for number, engine in enumerate(engines))
    pool = Processes(workers, spec.start_seconds, spec.shard_seconds)
    try:
        # All at once: loading takes seconds, on many devices one after the other minutes.
        with ThreadPoolExecutor(len(workers)) as threads:
            started = [
                threads.submit(worker.call, load_in_worker, worker.work, seconds=spec.start_seconds)
                for worker in workers
            ]
        for worker, future in zip(workers, started, strict=True):
            future.result()
            pool.free.put(worker)
    except BaseException:
        pool.close()
        raise
    return pool
