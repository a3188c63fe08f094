"""Embed a corpus: from its source to a committed, searchable snapshot.

python -m flows.embed_corpus CONFIG [--set KEY=VALUE ...]
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
    name="embed-corpus",
    flow_run_name=named("embed"),
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
)
def embed_corpus(config: PipelineConfig) -> RunReport:
    """Bring a collection up to date with its source, and its alias to the new snapshot."""
    return run_on_top(config, "embed", line.start, embed)


def embed(run: Run) -> RunReport:
    """Go the line from the source to the alias, as far as the budget goes."""
    found = line.scan(run)
    parts = line.chunk.map(unmapped(run), list(found.parts)).result()
    planned, report = line.plan(run, found, parts)
    hired = line.hire(run) if planned.shards else 0
    encoded = line.encode_shards(run, planned, hired)
    found, parts, left = line.keep_finished(run, found, parts, planned, encoded)
    if left and run.rebuild:
        return summary.stop_here(run, found, report, encoded, left)
    paths = all_chunk_paths(run, found.kept, parts)
    space_id = line.seal(run, paths)
    jobs = line.prepare_segments(run, parts)
    segments = line.segment.map(unmapped(run), unmapped(space_id), jobs).result()
    checked = line.check(run, space_id, parts, segments, paths)
    committed = line.commit(run, found, space_id, parts, segments)
    line.prepare_search(run, committed)
    verdict = line.gate(run, committed)
    promoted = line.promote(run, committed, verdict)
    result = summary.summarize(run, found, report, encoded, left, checked, segments, committed, verdict, promoted)
    require_passed(verdict)
    return result


if __name__ == "__main__":
    from flows.command import main

    main(embed_corpus)
