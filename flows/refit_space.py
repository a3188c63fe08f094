"""Fit a new space from stored raw vectors, and commit a snapshot in it; the source and its texts are not touched.

python -m flows.refit_space CONFIG [--set KEY=VALUE ...]
"""

from __future__ import annotations

from prefect import flow, unmapped
from prefect.task_runners import ThreadPoolTaskRunner

from isospace.evaluation.gate.verdicts import require_passed
from isospace.pipeline.chunk import all_chunk_paths
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.run import Run
from isospace.pipeline.run_report import RunReport
from tasks import run_summary as summary
from tasks import stages as line
from tasks.errors import quiet_known_errors
from tasks.run_names import named
from tasks.runs import run_on_top

quiet_known_errors()


@flow(
    name="refit-space",
    flow_run_name=named("refit"),
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
)
def refit_space(config: PipelineConfig) -> RunReport:
    """Transform a collection's raw vectors as the recipe says now, and move its alias to the new snapshot."""
    return run_on_top(config, "refit", line.start_again, refit)


def refit(run: Run) -> RunReport:
    """Go the line from the stored vectors to the alias."""
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
    result = summary.summarize(run, found, report, [], 0, checked, segments, committed, verdict, promoted)
    require_passed(verdict)
    return result


if __name__ == "__main__":
    from flows.command import main

    main(refit_space)
