"""The order of the stages: the one definition of a run, whatever executes it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from isospace.collection.tombstones import count_tombstones
from isospace.errors import ConflictError, IsospaceError
from isospace.evaluation.gate.verdicts import require_passed
from isospace.evaluation.reports.page import duration
from isospace.pipeline import publish_stages, stages
from isospace.pipeline.batch_stage import ENCODE_BATCHES, in_batches, warn_of_batches
from isospace.pipeline.chunk import ChunkPart, all_chunk_paths
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.counted import money_text
from isospace.pipeline.encode.shards import EncodedShard, EncodePlan, Shard
from isospace.pipeline.executor import Executor, Stage
from isospace.pipeline.forgotten_files import erase_leftovers
from isospace.pipeline.local_executor import LocalExecutor
from isospace.pipeline.outcome import concluding_line
from isospace.pipeline.plan_report import PlanReport, token_price_of
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
    parts = _chunk(executor, run, scan)
    plan, report = executor.run(stages.PLAN, run, scan, parts)
    found = _encode(executor, run, plan)
    encoded, is_trimmed = list(found), len(found) < len(plan.shards)
    while refused := dict(text for shard in found for text in shard.refused):
        executor.run(stages.SET_ASIDE, run, parts, refused)
        scan, parts = _without_refused(executor, run)
        # The source may have grown since the first scan: what came is encoded too, or left to the next run if there is
        # a budget.
        if run.config.runtime.budget.is_bounded:
            is_trimmed = True
            break
        rest, _ = executor.run(stages.PLAN, run, scan, parts)
        found = _encode(executor, run, rest)
        encoded += found
    discard_tokens(run)
    prepared = PreparedRun(scan, parts, report, encoded)
    if is_trimmed:
        scan, parts, left = executor.run(stages.TRIM, run, scan, parts)
        prepared = PreparedRun(scan, parts, report, encoded, left)
        if left and run.rebuild:
            return executor.run(REPORT_UNFINISHED, run, scan, report, encoded, left)
    return _commit(executor, run, prepared)


def _chunk(executor: Executor, run: Run, scan: Scan) -> list[ChunkPart]:
    return executor.map(stages.CHUNK, [(run, documents) for documents in scan.parts], limit=run_parts(run).size)


def _without_refused(executor: TimedExecutor, run: Run) -> tuple[Scan, list[ChunkPart]]:
    """Scan the source again, without documents that the provider refuses; the others are chunked already."""
    scratch = Path(tempfile.mkdtemp(prefix="without-refused-", dir=run.scratch))
    again = replace(run, scratch=scratch)
    scan = executor.run(stages.SCAN, again)
    if run.config.runtime.budget.is_bounded:
        shutil.copyfile(scratch / LIVE, run.scratch / LIVE)
    return scan, _chunk(executor, run, scan)


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
    width = run_parts(run).size
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


def _encode(executor: Executor, run: Run, plan: EncodePlan) -> list[EncodedShard]:
    """Encode as many shards as the budget allows; those in progress when it is spent are finished."""
    if not plan.shards:
        return []
    if in_batches(run.config):
        return executor.run(ENCODE_BATCHES, run, plan)
    warn_of_batches(executor.reporter, run)
    runtime = run.config.runtime
    workers, classes = executor.run(stages.START_WORKERS, run, plan.stored)
    spent = _Progress(plan, runtime.price_per_device_hour, workers, token_price=token_price_of(run.config))

    def affordable() -> Iterator[tuple[Run, Shard]]:
        nonlocal spent
        for shard in plan.shards:
            if runtime.budget.is_spent(spent.tokens, spent.seconds, spent.money_with(shard.tokens)):
                return
            spent = replace(spent, begun=spent.begun + shard.tokens)
            yield run, replace(shard, classes=classes)

    done = []
    stage = stages.ENCODE.retried(runtime.retries)
    executor.reporter.progress(stage.name, 0, plan.tokens, spent.describe())
    # One more shard than there are workers: it is read while the others are encoded.
    for encoded in executor.stream(stage, affordable(), limit=workers + 1):
        done.append(encoded)
        spent = spent.after(encoded)
        executor.reporter.progress(stage.name, spent.tokens, plan.tokens, spent.describe())
    return done


@dataclass(frozen=True, slots=True)
class _Progress:
    """What has been encoded so far."""

    plan: EncodePlan
    price: float | None
    workers: int
    started: float = field(default_factory=time.monotonic)
    texts: int = 0
    tokens: int = 0
    billed: int = 0
    begun: int = 0
    token_price: float | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def after(self, encoded: EncodedShard) -> _Progress:
        return replace(
            self,
            texts=self.texts + encoded.chunks,
            tokens=self.tokens + encoded.tokens,
            billed=self.billed + encoded.billed_tokens,
        )

    def money_with(self, tokens: int) -> float:
        """Return the money that is spent once the shards in progress, and one more, are encoded."""
        if self.token_price is not None:
            # What was billed for a counted token so far holds for the rest.
            rate = self.billed / self.tokens if self.tokens else 1.0
            return self.token_price * (self.billed + rate * (self.begun - self.tokens + tokens)) / 1e6
        return (self.price or 0.0) * self.seconds / 3600.0 * self.workers

    def describe(self) -> str:
        rate = self.tokens / max(self.seconds, 1e-9)
        words = [f"{self.texts:,} of {self.plan.to_encode:,} texts", f"{rate:,.0f} tokens/s"]
        if rate:
            words.append(f"{duration((self.plan.tokens - self.tokens) / rate)} left")
        if self.token_price is not None:
            words.append(f"cost so far {money_text(self.token_price * self.billed / 1e6)}")
        elif self.price is not None:
            cost = self.price * self.seconds / 3600.0 * self.workers
            words.append(f"cost so far {cost:,.2f} at {self.price:g} per device hour")
        return ", ".join(words)
