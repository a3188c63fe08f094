"""Embed a corpus: from its source to a committed, searchable snapshot.

python -m flows.embed_corpus CONFIG [--set KEY=VALUE ...]
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
from isospace.run import Run
from isospace.shards import Encoded
from tasks import line
from tasks.errors import is_worth_retrying, quiet_known_errors
from tasks.progress import follow
from tasks.runtime import close_pools

quiet_known_errors()
_COMMIT_ATTEMPTS = 3


@flow(
    name="embed-corpus",
    flow_run_name="embed {config.runtime.collection}",
    task_runner=ThreadPoolTaskRunner(max_workers=2),  # type: ignore[arg-type]
)
def embed_corpus(config: PipelineConfig) -> RunReport:
    """Bring a collection up to date with its source, and its alias to the new snapshot."""
    for attempt in range(_COMMIT_ATTEMPTS):
        run = line.start(config)
        try:
            return _embed(run)
        except ConflictError:
            # Another run committed in between: plan again on top of it; what was encoded is kept.
            if attempt + 1 == _COMMIT_ATTEMPTS:
                raise
        finally:
            close_pools(run)
            shutil.rmtree(run.scratch, ignore_errors=True)
    raise AssertionError("unreachable")


def _embed(run: Run) -> RunReport:
    encode = line.encode.with_options(
        retries=run.config.runtime.retries, retry_delay_seconds=[1, 5, 25], retry_condition_fn=is_worth_retrying
    )
    found = line.scan(run)
    parts = line.chunk.map(unmapped(run), list(found.parts)).result()
    planned, report = line.plan(run, found, parts)
    # As many shards under way as there are workers, and one more that is being read meanwhile.
    hired = line.hire(run) if planned.shards else 0
    with ThreadPoolTaskRunner[Encoded](max_workers=hired + 1) as workers:
        shards = {"run": unmapped(run), "shard": list(planned.shards)}
        encoded = follow(planned, workers.map(encode, shards))
    paths = all_chunk_paths(run, found.kept, parts)
    space_id = line.seal(run, paths)
    jobs = line.prepare_segments(run, parts)
    segments = line.segment.map(unmapped(run), unmapped(space_id), jobs).result()
    checked = line.check(run, space_id, parts, segments, paths)
    committed = line.commit(run, found, space_id, parts, segments)
    line.prepare_search(run, committed)
    verdict = line.gate(run, committed)
    promoted = line.promote(run, committed, verdict)
    result = line.summarize(run, found, report, encoded, checked, segments, committed, verdict, promoted)
    require_passed(verdict)
    return result


if __name__ == "__main__":
    from flows.command import main

    main(embed_corpus)
