"""A run on top of what others commit: turn kept, lease held, planned again after a conflict, tidied up whatever happens."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator

from prefect.logging import get_run_logger

from isospace.errors import ConflictError
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import Run
from isospace.pipeline.run_report import RunReport
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store
from tasks.resources import close_pools

_ATTEMPTS = 3


def run_on_top(
    config: PipelineConfig, what: str, begin: Callable[[PipelineConfig], Run], work: Callable[[Run], RunReport]
) -> RunReport:
    """Begin a run and do its work; if another run commits in between, plan again on top of it: what is encoded is kept."""
    with writing(config.runtime.store, config.runtime.collection, what):
        for attempt in range(_ATTEMPTS):
            run = begin(config)
            try:
                return work(run)
            except ConflictError:
                if attempt + 1 == _ATTEMPTS:
                    raise
            finally:
                close_pools(run)
                shutil.rmtree(run.scratch, ignore_errors=True)
    raise AssertionError("unreachable")


@contextlib.contextmanager
def writing(store: str, collection: str, what: str) -> Iterator[None]:
    """Hold the right to write to a collection; whoever comes second waits, and its log says for whom.

    Not one of Prefect's limits: a killed run would hold its slot for minutes, and a run without a server, or with
    another one, would not know of it.
    """
    with run_lease(open_store(store), collection, what, tell=get_run_logger().info):
        yield
