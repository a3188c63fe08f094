"""Pools of workers: they take references to shards, and hide where the encoding runs.

A pool is this process for a single device, one process per device on one machine, or Ray actors. A worker loads the
model once. If it dies or stops answering, its shard raises WorkerError and is retried by the next free worker, while
the lost one is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from isospace.collection.origins import Origin
from isospace.encoding.backends.base import usable_cpus
from isospace.encoding.encoder import LoadedEncoder
from isospace.encoding.engine import Engine, resolve_engine, usable_gpus
from isospace.errors import ConfigError
from isospace.pipeline.encode.shards import EncodedShard, Shard, encode_shard, encoder_origin
from isospace.pipeline.encode.workers.process import Work
from isospace.pipeline.encode.workers.process_pool import open_processes
from isospace.pipeline.encode.workers.worker import place_of
from isospace.pipeline.run import Run

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec


class Pool(Protocol):
    """Workers that encode shards."""

    @property
    def size(self) -> int:
        """Number of shards that are encoded at the same time."""

    @property
    def place(self) -> str:
        """Backend and devices, by which encoding rates are recorded."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What computes vectors in each worker."""

    def encode(self, run: Run, shard: Shard) -> EncodedShard:
        """Wait for a free worker and encode one shard; raise WorkerError if the worker is lost meanwhile."""

    def close(self) -> None:
        """Stop the workers."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """Encodes in this process, without workers."""

    encoder: LoadedEncoder
    size: int = 1

    @property
    def place(self) -> str:
        """Backend and device."""
        return f"{self.encoder.backend.name} {self.encoder.backend.device} x 1"

    @property
    def origins(self) -> tuple[Origin, ...]:
        """What computes vectors in this process."""
        return (encoder_origin(self.encoder),)

    def encode(self, run: Run, shard: Shard) -> EncodedShard:
        """Encode one shard."""
        return encode_shard(run, shard, self.encoder)

    def close(self) -> None:
        """Do nothing: the encoder belongs to the caller."""


def open_pool(spec: WorkersSpec, work: Work, encoder: Callable[[], LoadedEncoder]) -> Pool:
    """Start the workers of a configuration.

    Parameters
    ----------
    spec
        `runtime.workers`.
    work
        The encoder that each worker loads.
    encoder
        Returns the encoder of this process, for a pool in process.

    Raises
    ------
    ConfigError
        If the kind and the number of workers contradict each other.
    EncoderError
        If a worker cannot load the model, or a cluster lacks resources or packages.
    WorkerError
        If a worker dies or stops answering while it loads the model.
    """
    kind = spec.kind
    engines = worker_engines(work.engine, spec, work.precision) if kind != "ray" else []
    if kind == "auto":
        kind = "in_process" if len(engines) == 1 else "processes"
    match kind:
        case "in_process":
            if (spec.count or 1) > 1:
                raise ConfigError(
                    f"runtime.workers.count = {spec.count} with kind in_process; expected 1. Set "
                    "runtime.workers.kind=processes."
                )
            return InProcess(encoder())
        case "ray":
            from isospace.pipeline.encode.workers.ray_pool import open_ray

            return open_ray(spec, work)
        case _:
            return open_processes(spec, work, engines)


def worker_engines(engine: Engine, spec: WorkersSpec, precision: str = "float32") -> list[Engine]:
    """Return the engine of each worker on this machine.

    Workers take GPUs in turn, and share them if there are more workers than GPUs. Workers on the CPU share its cores.
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
    """Return the backend and devices that workers would use, without starting any."""
    if spec.kind == "ray":
        return place_of([resolve_engine(engine, precision, elsewhere=True)] * (spec.count or 1))
    return place_of(worker_engines(engine, spec, precision))
