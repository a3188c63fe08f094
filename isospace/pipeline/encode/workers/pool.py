"""Pools of workers: shards are handed to them by reference, and nothing above knows where they run.

In this process for one device, one process per device on one machine, or Ray actors. A worker loads the model once. One
that dies, or stops answering, costs the shard it had: the shard raises WorkerError and is retried by whichever worker
is free, while the lost one is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from isospace.encoding.backends.base import usable_cpus
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine, resolve_engine, usable_gpus
from isospace.errors import ConfigError
from isospace.pipeline.encode.shards import Encoded, Shard, encode_shard
from isospace.pipeline.encode.workers.process import Work
from isospace.pipeline.encode.workers.process_pool import open_processes
from isospace.pipeline.encode.workers.worker import place_of
from isospace.pipeline.run import Run

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec


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
            return open_processes(spec, work, engines)


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
