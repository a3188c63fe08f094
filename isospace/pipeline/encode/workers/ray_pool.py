"""Workers as Ray actors, on an existing cluster or on a local one that is started for the run."""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import TYPE_CHECKING, Any

from isospace.collection.origins import Origin
from isospace.encoding.engine import Engine, resolve_engine
from isospace.errors import EncoderError, NoWorkersError, WorkerError
from isospace.pipeline.encode.shards import EncodedShard, Shard
from isospace.pipeline.encode.workers.process import Work
from isospace.pipeline.encode.workers.worker import encode_in_worker, load_in_worker, origin_in_worker, place_of
from isospace.pipeline.parallel.cluster import connected, first_line, require_package
from isospace.pipeline.run import Run

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec

_LOG = logging.getLogger(__name__)
# Attempts, half a second apart: Ray restarts an actor within a second or two if it can.
_RESTARTS = 20
# Of a processor: what each actor on CPUs leaves to tasks that work on parts. Two do not fit where one is meant to be.
_FOR_PARTS = 0.1


class _Actor:
    """A worker; if it dies, Ray restarts it, and it loads the model again."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def load(self) -> bool:
        return load_in_worker(self.work)

    def origin(self) -> Origin:
        return origin_in_worker(self.work)

    def encode(self, run: Run, shard: Shard) -> EncodedShard:
        return encode_in_worker(self.work, run, shard)


@dataclass(frozen=True, slots=True)
class RayPool:
    """Actors on a cluster.

    Attributes
    ----------
    ray
        The module.
    start_seconds, shard_seconds
        How long loading the model, and encoding a shard, may take.
    owned
        Whether the connection to the cluster was opened for this pool.
    origins
        What computes vectors in each actor.
    free
        Actors without a shard; None once no actor is left.
    retired
        Actors that could not be replaced.
    """

    ray: Any
    actors: tuple[Any, ...]
    work: Work
    start_seconds: float
    shard_seconds: float
    owned: bool
    origins: tuple[Origin, ...] = ()
    free: Queue[Any] = field(default_factory=Queue)
    retired: list[Any] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.actors)

    @property
    def place(self) -> str:
        """Backend and devices."""
        return place_of([self.work.engine] * len(self.actors))

    def encode(self, run: Run, shard: Shard) -> EncodedShard:
        """Encode one shard on a free actor."""
        actor = self.free.get()
        if actor is None:
            self.free.put(None)
            raise NoWorkersError(
                f"all {len(self.actors)} Ray workers were lost, and none could be replaced; finished shards are kept."
            )
        # Includes the time to load: Ray may have restarted the actor.
        seconds = self.start_seconds + self.shard_seconds
        try:
            encoded: EncodedShard = self.ray.get(actor.encode.remote(run, shard), timeout=seconds)
        except self.ray.exceptions.GetTimeoutError as error:
            self.ray.kill(actor, no_restart=False)
            self._replace(actor)
            raise WorkerError(
                f"a Ray worker did not answer within {seconds:.0f} s; it is replaced, and its shard is retried. "
                "Raise runtime.workers.shard_seconds if shards take that long."
            ) from error
        except self.ray.exceptions.RayActorError as error:
            self._replace(actor)
            raise WorkerError(
                f"a Ray worker was lost ({first_line(error)}); it is replaced, and its shard is retried."
            ) from error
        except self.ray.exceptions.RayTaskError as error:
            self.free.put(actor)
            # What the worker raised, not Ray's wrapper of it.
            raise error.cause from None
        except BaseException:
            self.free.put(actor)
            raise
        self.free.put(actor)
        return encoded

    def _replace(self, actor: Any) -> None:
        """Free an actor once it has loaded the model again; retire it if it cannot, to fail no retries."""
        for _ in range(_RESTARTS):
            try:
                self.ray.get(actor.load.remote(), timeout=self.start_seconds)
            except self.ray.exceptions.RayActorError:
                # Until the restart is complete, calls fail with the old actor.
                time.sleep(0.5)
                continue
            except self.ray.exceptions.RayError as error:
                _LOG.warning("a Ray worker is not used any more: %s", first_line(error))
                break
            self.free.put(actor)
            return
        self.retired.append(actor)
        if len(self.retired) == len(self.actors):
            self.free.put(None)

    def close(self) -> None:
        """Kill the actors, and close the connection to the cluster if it was opened for them."""
        for actor in self.actors:
            self.ray.kill(actor)
        if self.owned:
            self.ray.shutdown()


def open_ray(spec: WorkersSpec, work: Work) -> RayPool:
    """Start actors, and check that the cluster has what they need.

    Raises
    ------
    EncoderError
        If Ray is not installed, or the cluster lacks GPUs, CPUs, this version of isospace, or access to the store.
    WorkerError
        If an actor is lost while it loads the model.
    """
    ray, owned = connected(spec)
    try:
        return _start(ray, spec, work, owned=owned)
    except BaseException:
        if owned:
            ray.shutdown()
        raise


def _start(ray: Any, spec: WorkersSpec, work: Work, *, owned: bool) -> RayPool:
    resources = ray.cluster_resources()
    engine = worker_engine(work.engine, work.precision, gpus=resources.get("GPU", 0) >= 1)
    gpus = engine.device != "cpu"
    # Without a number, as many as the cluster has free; tasks that work on parts take a small share of its processors.
    count = spec.count or math.ceil(ray.available_resources().get("GPU" if gpus else "CPU", 0)) or 1
    smallest = min((int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]), default=1)
    threads = engine.threads or max(min(int(resources.get("CPU", 1)) // count, smallest), 1)
    _require_resources(resources, count, gpus=gpus)
    require_package(ray, spec.start_seconds)
    placed = replace(work, engine=replace(engine, threads=None if gpus else threads))
    # Tasks that work on parts need room beside the actors, which wait for what they write.
    options = {"num_cpus": 0 if gpus else threads - _FOR_PARTS, "num_gpus": 1 if gpus else 0, "max_restarts": -1}
    kind = ray.remote(_Actor)
    actors = tuple(kind.options(max_task_retries=0, **options).remote(placed) for _ in range(count))
    try:
        origins = tuple(ray.get([actor.origin.remote() for actor in actors], timeout=spec.start_seconds))
    except ray.exceptions.GetTimeoutError as error:
        raise WorkerError(
            f"{count} Ray workers were not ready within {spec.start_seconds:.0f} s. The cluster has "
            f"{_shown(resources)}; each needs {options['num_cpus']} CPU and {options['num_gpus']} GPU. Free some, "
            "or raise runtime.workers.start_seconds."
        ) from error
    except ray.exceptions.RayActorError as error:
        raise WorkerError(f"a Ray worker was lost while it loaded the model ({first_line(error)}).") from error
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    pool = RayPool(ray, actors, placed, spec.start_seconds, spec.shard_seconds, owned, origins)
    for actor in actors:
        pool.free.put(actor)
    return pool


def worker_engine(engine: Engine, precision: str, *, gpus: bool) -> Engine:
    """Return the engine of the actors, given whether the cluster has GPUs; an actor sees its own GPU as cuda:0."""
    on_cpu = engine.backend in ("openvino", "onnx", "static") or precision == "int8"
    if engine.device == "cpu" or (engine.device == "auto" and (on_cpu or not gpus)):
        return resolve_engine(replace(engine, device="cpu"), precision)
    return replace(engine, backend="torch", device="cuda:0")


def _require_resources(resources: dict[str, float], count: int, *, gpus: bool) -> None:
    kind = "GPU" if gpus else "CPU"
    if resources.get(kind, 0) < count:
        raise EncoderError(
            f"runtime.workers: {count} workers need {count} {kind}, and the cluster has {_shown(resources)}. Add "
            "nodes, lower runtime.workers.count, or set runtime.device=cpu."
        )


def _shown(resources: dict[str, float]) -> str:
    return ", ".join(f"{resources.get(kind, 0):.0f} {kind}" for kind in ("CPU", "GPU"))
