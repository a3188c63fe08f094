"""The order of the stages: the one definition of a run, whatever executes it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from isospace.collection.tombstones import count_tombstones
from isospace.errors import ConflictError, IsospaceError
from isospace.evaluation.gate.verdicts import require_passed
from isospace.pipeline import publish_stages, stages
from isospace.pipeline.chunk import ChunkPart, all_chunk_paths
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.shards import EncodedShard
from isospace.pipeline.executor import Executor, Stage
from isospace.pipeline.forgotten_files import erase_leftovers
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.outcome import concluding_line
from isospace.pipeline.overlap import chunk, chunk_and_encode, encode
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.resources import close_pools, run_parts
from isospace.pipeline.run import Run
from isospace.pipeline.run_report import RunReport
from isospace.pipeline.scan.diff import LIVE, Scan
from isospace.pipeline.selection import Budget, Selection
from isospace.pipeline.sparse_stages import run_sparse
from isospace.pipeline.summary import REPORT_UNFINISHED, SUMMARIZE
from isospace.pipeline.timings import TimedExecutor
from isospace.pipeline.token_files import discard_tokens
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store

_ATTEMPTS = 3


def embed_corpus(config: PipelineConfig, executor: Executor | None = None) -> RunReport:
    """Bring a collection up to date with its source, and its alias to the new snapshot.

    Parameters
    ----------
    config
        The pipeline.
    executor
        Runs the stages; by default in this process.

    Raises
    ------
    IsospaceError
        If a stage fails. No partial result is visible; the same call continues from where it stopped.
    """
    return run_exclusively(config, "embed", stages.START, _embed, executor or LocalExecutor())


def refit_space(config: PipelineConfig, executor: Executor | None = None) -> RunReport:
    """Fit a new space from a collection's raw vectors, and commit a snapshot in it; the source is not read."""
    return run_exclusively(config, "refit", stages.START_FROM_STORE, _refit, executor or LocalExecutor())


def backfill(
    config: PipelineConfig,
    executor: Executor | None = None,
    *,
    selection: Selection | None = None,
    budget: Budget | None = None,
    reason: str = "",
) -> RunReport:
    """Embed selected documents within a budget; the next run embeds what is left."""
    chosen = selected(config, selection, budget, reason)
    return run_exclusively(chosen, "backfill", stages.START, _embed, executor or LocalExecutor())


def plan_run(config: PipelineConfig, executor: Executor | None = None) -> PlanReport:
    """Plan a run without writing to the store."""
    return (executor or LocalExecutor()).run(stages.PLAN_ALONE, config)


def selected(config: PipelineConfig, selection: Selection | None, budget: Budget | None, reason: str) -> PipelineConfig:
    """Return a config with another selection, budget, and reason; empty ones keep the config's own."""
    runtime = config.runtime
    chosen = runtime.model_copy(
        update={
            "selection": runtime.selection if selection in (None, Selection()) else selection,
            "budget": runtime.budget if budget in (None, Budget()) else budget,
            "reason": reason or runtime.reason,
        }
    )
    return config.model_copy(update={"runtime": chosen})


def run_exclusively(
    config: PipelineConfig,
    what: str,
    begin: Stage[[PipelineConfig], Run],
    work: Callable[[TimedExecutor, Run], RunReport],
    executor: Executor,
) -> RunReport:
    """Hold the collection's lease, begin a run, and do its work.

    If another run commits in the meantime, this one plans again on top of it and keeps what is encoded. Prefect's
    concurrency limits would not do: a killed run would hold its slot for minutes, and a run without a server would not
    see it.
    """
    store = open_store(config.runtime.store)
    timed, told = TimedExecutor(executor), executor.reporter.info
    with run_lease(store, config.runtime.collection, what, on_wait=told, address=executor.address):
        for attempt in range(_ATTEMPTS):
            run = timed.run(begin, config)
            try:
                return work(timed, run)
            except IsospaceError as error:
                # Where documents were forgotten meanwhile, files that the run needs may be gone.
                forgotten = count_tombstones(store, run.collection) > run.tombstones
                if forgotten:
                    erase_leftovers(store, run.collection, after=run.tombstones)
                if attempt + 1 == _ATTEMPTS or not (forgotten or isinstance(error, ConflictError)):
                    raise
                executor.reporter.warning(f"{error} Planning again on top of it.")
            finally:
                close_pools(run)
                shutil.rmtree(run.scratch, ignore_errors=True)
    raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """What a run has to commit, and what it encoded.

    Attributes
    ----------
    report
        The plan.
    left
        Number of texts that the budget did not reach.
    """

    scan: Scan
    parts: list[ChunkPart]
    report: PlanReport
    encoded: list[EncodedShard] = field(default_factory=list)
    left: int = 0


def _embed(executor: TimedExecutor, run: Run) -> RunReport:
    """Run the stages from the source to the alias, as far as the budget allows."""
    scan = executor.run(stages.SCAN, run)
    found = chunk_and_encode(executor, run, scan)
    parts, report, encoded, is_trimmed = found.parts, found.report, found.encoded, not found.is_complete
    latest = encoded
    while refused := dict(text for shard in latest for text in shard.refused):
        executor.run(stages.SET_ASIDE, run, parts, refused)
        scan, parts = _without_refused(executor, run)
        # The source may have grown since the first scan: what came is encoded too, or left to the next run if there is
        # a budget.
        if run.config.runtime.budget.is_bounded:
            is_trimmed = True
            break
        rest, _ = executor.run(stages.PLAN, run, scan, parts)
        latest = encode(executor, run, rest)
        encoded = [*encoded, *latest]
    discard_tokens(run)
    prepared = PreparedRun(scan, parts, report, encoded)
    if is_trimmed:
        scan, parts, left = executor.run(stages.TRIM, run, scan, parts)
        prepared = PreparedRun(scan, parts, report, encoded, left)
        if left and run.rebuild:
            return executor.run(REPORT_UNFINISHED, run, scan, report, encoded, left)
    return _commit(executor, run, prepared)


def _without_refused(executor: TimedExecutor, run: Run) -> tuple[Scan, list[ChunkPart]]:
    """Scan the source again, without documents that the provider refuses; the others are chunked already."""
    scratch = Path(tempfile.mkdtemp(prefix="without-refused-", dir=run.scratch))
    again = replace(run, scratch=scratch)
    scan = executor.run(stages.SCAN, again)
    if run.config.runtime.budget.is_bounded:
        shutil.copyfile(scratch / LIVE, run.scratch / LIVE)
    return scan, chunk(executor, run, scan)


def _refit(executor: TimedExecutor, run: Run) -> RunReport:
    """Run the stages from the stored raw vectors to the alias."""
    scan, parts, report = executor.run(stages.LOAD_STORED_PARTS, run)
    return _commit(executor, run, PreparedRun(scan, parts, report))


def _commit(executor: TimedExecutor, run: Run, prepared: PreparedRun) -> RunReport:
    """Transform, check, commit, gate, promote, and report: the stages that every run ends with."""
    scan, parts = prepared.scan, prepared.parts
    paths = all_chunk_paths(run, scan.kept, parts)
    space_id = executor.run(stages.FIT, run, paths)
    jobs = executor.run(stages.PLAN_SEGMENTS, run, parts) if parts else []
    # A run that has nothing to transform connects to no cluster.
    width = run_parts(run).size if jobs else 1
    segments = executor.map(stages.SEGMENT, [(run, space_id, job) for job in jobs], limit=width)
    written = [(run, space_id, job, segment) for job, segment in zip(jobs, segments, strict=True)]
    rows = executor.map(stages.CHECK_PART, written, limit=width)
    checked = executor.run(stages.CHECK, run, space_id, parts, segments, rows, paths) if parts else None
    sparse = run_sparse(executor, run, parts)
    committed = executor.run(publish_stages.COMMIT, run, scan, space_id, parts, segments, sparse)
    executor.run(publish_stages.PREPARE_SEARCH, run, committed)
    if reason := publish_stages.ungated(run, committed):
        executor.reporter.info(reason)
    verdict = None if reason else executor.run(publish_stages.GATE, run, committed)
    promoted = executor.run(publish_stages.PROMOTE, run, committed, verdict)
    result = executor.run(
        SUMMARIZE,
        run,
        scan,
        prepared.report,
        prepared.encoded,
        prepared.left,
        checked,
        segments,
        committed,
        verdict,
        promoted,
        tuple(executor.seconds.items()),
    )
    if verdict is not None and not verdict.passed:
        executor.reporter.warning(f"{concluding_line(result)}; the quality gate rejected the snapshot")
    require_passed(verdict, run.address(verdict.report) if verdict and verdict.report else None)
    return result
