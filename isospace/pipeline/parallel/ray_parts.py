"""Work on parts on the nodes of a Ray cluster, beside the actors that encode."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from isospace.errors import WorkerError
from isospace.pipeline.executor import Reporter
from isospace.pipeline.parallel.cluster import connected, first_line, require_package
from isospace.pipeline.parallel.told import Outcome, outcome

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec

T = TypeVar("T")
# How often Ray runs a task again whose node or process was lost, before the stage tries once more.
_RUNS_AGAIN = 3
# Of a processor: actors that encode on CPUs leave a tenth each for tasks that work on parts.
_CPU_SHARE = 0.001


@dataclass(frozen=True, slots=True)
class RayParts:
    """Works on parts in tasks of a cluster.

    Attributes
    ----------
    ray
        The module.
    size
        Number of parts that are worked on at the same time.
    processors
        What Ray reserves for one of them.
    memory
        Bytes of the largest node: a task that asks for more would wait forever.
    seconds
        How long one of them may take.
    owned
        Whether the connection to the cluster was opened for this.
    room
        Holds back what exceeds `size`: actors start behind no queue of tasks.
    """

    ray: Any
    size: int
    processors: float
    memory: int
    seconds: float
    owned: bool
    room: threading.BoundedSemaphore

    def call(
        self, function: Callable[..., T], reporter: Reporter, *arguments: Any, need: int, holds_lock: bool = False
    ) -> T:
        """Call a function on a node that has room; see `PartWorkers`."""
        task = self.ray.remote(outcome).options(
            num_cpus=self.processors,
            memory=min(need, self.memory),
            max_retries=_RUNS_AGAIN,
            # Ray's default fills one node after another.
            scheduling_strategy="SPREAD",
        )
        level = logging.getLogger("isospace").getEffectiveLevel()
        with self.room:
            told = self._outcome(task.remote(function, arguments, level))
        result: T = told.retell(reporter)
        return result

    def _outcome(self, reference: Any) -> Outcome:
        """Wait for a task."""
        try:
            told: Outcome = self.ray.get(reference, timeout=self.seconds)
        except self.ray.exceptions.GetTimeoutError as error:
            self.ray.cancel(reference, force=True)
            raise WorkerError(
                f"a part was not finished on the Ray cluster within {self.seconds:.0f} s; it is tried again. Raise "
                "runtime.workers.shard_seconds if parts take that long."
            ) from error
        except self.ray.exceptions.RayTaskError as error:
            # What the task raised before it called the function, such as an import that failed.
            raise error.cause from None
        except self.ray.exceptions.RayError as error:
            raise WorkerError(
                f"a part was lost on the Ray cluster ({first_line(error)}); it is tried again."
            ) from error
        except BaseException:
            self.ray.cancel(reference, force=True)
            raise
        return told

    def close(self) -> None:
        """Close the connection to the cluster if it was opened for this, which ends its tasks."""
        if self.owned:
            self.ray.shutdown()


def open_ray_parts(spec: WorkersSpec, *, on_gpus: Callable[[bool], bool]) -> RayParts:
    """Connect to a cluster, and check that it can work on parts.

    Parameters
    ----------
    on_gpus
        Returns whether the actors will encode on GPUs, given whether the cluster has any; else they take processors.

    Raises
    ------
    EncoderError
        If no cluster answers, or its workers lack this version of isospace.
    """
    ray, owned = connected(spec)
    try:
        require_package(ray, spec.start_seconds)
        resources = ray.cluster_resources()
        gpus = on_gpus(resources.get("GPU", 0) >= 1)
        largest = max((int(node["Resources"].get("memory", 0)) for node in ray.nodes() if node["Alive"]), default=0)
        seconds = spec.start_seconds + spec.shard_seconds
        size = max(int(resources.get("CPU", 1)), 1)
        room = threading.BoundedSemaphore(size)
        return RayParts(ray, size, 1.0 if gpus else _CPU_SHARE, largest, seconds, owned, room)
    except BaseException:
        if owned:
            ray.shutdown()
        raise
