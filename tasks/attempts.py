"""A run on top of what others commit: turn kept, lease held, planned again after a conflict, tidied up whatever happens."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from isospace.config import PipelineConfig
from isospace.errors import ConflictError
from isospace.report import RunReport
from isospace.run import Run
from tasks.runtime import close_pools
from tasks.writing import writing

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
