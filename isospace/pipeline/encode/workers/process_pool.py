"""Worker processes, one per device on this machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Queue
from typing import TYPE_CHECKING

from isospace.collection.origins import Origin
from isospace.encoding.engine import Engine
from isospace.errors import NoWorkersError, WorkerError
from isospace.pipeline.encode.shards import EncodedShard, Shard
from isospace.pipeline.encode.workers.process import Work, WorkerProcess
from isospace.pipeline.encode.workers.worker import encode_in_worker, load_in_worker, origin_in_worker, place_of
from isospace.pipeline.main_guard import require_main_guard
from isospace.pipeline.run import Run

if TYPE_CHECKING:
    from isospace.pipeline.config import WorkersSpec

_LOG = logging.getLogger(__name__)


_NONE_LEFT = "all {count} workers were lost, and none could be replaced; finished shards are kept."


@dataclass(frozen=True, slots=True)
class Processes:
    """One process per device.

    Attributes
    ----------
    start_seconds, shard_seconds
        How long loading the model, and encoding a shard, may take.
    free
        Workers without a shard; None once no worker is left.
    origins
        What computes vectors in each worker.
    retired
        Workers that could not be replaced.
    """

    workers: tuple[WorkerProcess, ...]
    start_seconds: float
    shard_seconds: float
    origins: tuple[Origin, ...] = ()
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

    def encode(self, run: Run, shard: Shard) -> EncodedShard:
        """Encode one shard on a free worker."""
        worker = self.free.get()
        if worker is None:
            self.free.put(None)
            raise NoWorkersError(_NONE_LEFT.format(count=len(self.workers)))
        try:
            # A worker that died while idle has to load the model first.
            seconds = self.shard_seconds if worker.is_ready else self.start_seconds + self.shard_seconds
            encoded: EncodedShard = worker.call(encode_in_worker, worker.work, run, shard, seconds=seconds)
        except WorkerError:
            self._replace(worker)
            raise
        except BaseException:
            self.free.put(worker)
            raise
        self.free.put(worker)
        return encoded

    def _replace(self, worker: WorkerProcess) -> None:
        """Free a worker once its new process has loaded the model; retire it if it cannot, to fail no retries."""
        try:
            worker.call(load_in_worker, worker.work, seconds=self.start_seconds)
        except Exception as error:
            _LOG.warning("worker %s is not used any more: %s", worker.name, error)
            self.retired.append(worker)
            if len(self.retired) == len(self.workers):
                self.free.put(None)
            return
        self.free.put(worker)

    def close(self) -> None:
        """Kill the workers, whatever they are doing."""
        for worker in self.workers:
            worker.end()


def open_processes(spec: WorkersSpec, work: Work, engines: Sequence[Engine]) -> Processes:
    """Start one process per engine; each loads the encoder and checks it against its reference vectors.

    Raises
    ------
    ConfigError
        If every process would run the script that is running now.
    WorkerError
        If one dies or does not answer in time.
    """
    require_main_guard()
    workers = tuple(WorkerProcess(number, replace(work, engine=engine)) for number, engine in enumerate(engines))
    pool = Processes(workers, spec.start_seconds, spec.shard_seconds)
    try:
        # In parallel: loading takes seconds, so that many devices in sequence would take minutes.
        with ThreadPoolExecutor(len(workers)) as threads:
            started = [
                threads.submit(worker.call, origin_in_worker, worker.work, seconds=spec.start_seconds)
                for worker in workers
            ]
        origins = tuple(future.result() for future in started)
    except BaseException:
        pool.close()
        raise
    for worker in workers:
        pool.free.put(worker)
    return replace(pool, origins=origins)
