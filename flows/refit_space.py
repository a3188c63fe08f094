"""Fit a new space from stored raw vectors, and commit a snapshot in it; the source and its texts are not touched.

python -m flows.refit_space CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

import shutil

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from isospace.config import PipelineConfig
from isospace.errors import ConflictError
from isospace.gate.verdicts import require_passed
from isospace.parts import all_chunk_paths
from isospace.report import RunReport
from tasks import line
from tasks.errors import quiet_known_errors

quiet_known_errors()
_COMMIT_ATTEMPTS = 3


@flow(
    name="refit-space",
    flow_run_name="refit {config.runtime.collection}",
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
)
def refit_space(config: PipelineConfig) -> RunReport:
    """Transform a collection's raw vectors as the recipe says now, and move its alias to the new snapshot."""
    for attempt in range(_COMMIT_ATTEMPTS):
        run = line.start_again(config)
        try:
            found, parts = line.stored(run)
            paths = all_chunk_paths(run, found.kept, parts)
            space_id = line.seal(run, paths)
            jobs = line.prepare_segments(run, parts)
            segments = line.segment.map(unmapped(run), unmapped(space_id), jobs).result()
            checked = line.check(run, space_id, parts, segments, paths)
            committed = line.commit(run, found, space_id, parts, segments)
            line.prepare_search(run, committed)
            verdict = line.gate(run, committed)
            promoted = line.promote(run, committed, verdict)
            report = line.plan_of_refit(run, found, parts)
            result = line.summarize(run, found, report, [], checked, segments, committed, verdict, promoted)
            require_passed(verdict)
            return result
        except ConflictError:
            if attempt + 1 == _COMMIT_ATTEMPTS:
                raise
        finally:
            shutil.rmtree(run.scratch, ignore_errors=True)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    from flows.command import main

    main(refit_space)
