"""The stations of the line as Prefect tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from isospace.collection.alias import aliases
from isospace.encoding.encoder import Encoder
from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import IntegrityError
from isospace.evaluation.gate.judge import check_gate
from isospace.evaluation.gate.run_gate import gate_snapshot
from isospace.evaluation.gate.verdicts import Verdict, promotion_problem
from isospace.operations.audit.baseline_sample import read_reference
from isospace.pipeline.checks import Checked, check_segment, check_space, conclude
from isospace.pipeline.chunk import ChunkPart, write_chunks
from isospace.pipeline.commit import Commit, commit_snapshot, promote_new
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import Encoded, EncodePlan, Shard
from isospace.pipeline.fit.fit_space import fit_space
from isospace.pipeline.plan_report import PlanReport, plan_only, report_plan
from isospace.pipeline.refit import recorded_encoder, refit_plan, start_refit, stored_parts
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.run_report import checks_markdown, space_markdown
from isospace.pipeline.scan.diff import Scan, scan_source
from isospace.pipeline.segment import Segment, SegmentJob, plan_segments, write_segment
from isospace.pipeline.trim_run import finished_parts, narrow_scan
from isospace.search.bm25 import build_lexical
from isospace.search.sql_database import build_serving
from isospace.storage.parquet import FileRef
from isospace.storage.store import open_store
from tasks.encode_progress import encode_all
from tasks.errors import is_lost_worker, is_store_trouble, is_worth_retrying
from tasks.reports import show_verdict
from tasks.resources import adopt_encoder, driver_engine, encoder_of, run_encoder, run_pool, run_space

# A concurrency limit on it holds back the shards of all runs together: as many as there are GPUs.
ENCODE_TAG = "isospace-encode"
# Stations that read and write the store and nothing else.
AGAIN: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [2, 10],
    "retry_condition_fn": is_store_trouble,
}


@task(cache_policy=NO_CACHE)
def start(config: PipelineConfig) -> Run:
    """Load the encoder into the store, and fix what the run starts from."""
    encoder = encoder_of(config.runtime.store, config.recipe.encoder, driver_engine(config))
    run = _begin(start_run, config, encoder)
    get_run_logger().info("run %s starts from snapshot %s", run.run_id, run.base_sequence or "none")
    if run.damaged:
        get_run_logger().warning("the snapshot is made again, these files were lost: %s", ", ".join(run.damaged[:5]))
    return run


@task(cache_policy=NO_CACHE)
def start_again(config: PipelineConfig) -> Run:
    """Fix what a refit starts from; the encoder is the store's."""
    encoder = recorded_encoder(config, driver_engine(config))
    adopt_encoder(config, encoder)
    run = _begin(start_refit, config, encoder)
    get_run_logger().info("run %s refits snapshot %s", run.run_id, run.base_sequence)
    return run


@task(cache_policy=NO_CACHE)
def stored(run: Run) -> tuple[Scan, list[ChunkPart]]:
    """Take the documents and chunks of the snapshot as they are."""
    return stored_parts(run)


@task(cache_policy=NO_CACHE)
def plan_of_refit(run: Run, found: Scan, parts: list[ChunkPart]) -> PlanReport:
    """State that nothing is encoded."""
    return refit_plan(run, found, parts, run_encoder(run).record)


@task(**AGAIN)
def scan(run: Run) -> Scan:
    """Compare the source with the collection."""
    found = scan_source(run)
    get_run_logger().info(
        "documents: %d added, %d changed, %d unchanged, %d removed, %d stale, %d forgotten; %d inputs quarantined",
        found.added,
        found.changed,
        found.unchanged,
        found.removed,
        found.stale,
        found.forgotten,
        found.quarantined,
    )
    return found


@task(**AGAIN, task_run_name="chunk {documents.rows} documents")
def chunk(run: Run, documents: FileRef) -> ChunkPart:
    """Cut the documents of one part."""
    part = write_chunks(run, documents, run_encoder(run).counter())
    if part.too_long:
        get_run_logger().warning("%d texts are cut by the encoder: %d tokens", part.too_long, part.cut_tokens)
    return part


@task(**AGAIN)
def plan(run: Run, found: Scan, parts: list[ChunkPart]) -> tuple[EncodePlan, PlanReport]:
    """Anti-join chunks against raw vectors, and put the plan where it is seen."""
    record = run_encoder(run).record
    planned = plan_shards(run, parts, limit=record.longest)
    report = report_plan(run, found, parts, planned, record)
    create_markdown_artifact(key="plan", markdown=report.markdown(), description=f"Plan of {run.run_id}")
    get_run_logger().info("plan: %d texts to encode, %d reused", planned.to_encode, planned.reused)
    return planned, report


@task(cache_policy=NO_CACHE, retries=2, retry_delay_seconds=2, retry_condition_fn=is_lost_worker)
def hire(run: Run) -> int:
    """Start the workers, each with the model loaded; return how many there are."""
    pool = run_pool(run)
    get_run_logger().info("workers: %s", pool.place)
    return pool.size


@task(cache_policy=NO_CACHE, task_run_name="encode {shard.number}", tags=[ENCODE_TAG])
def encode(run: Run, shard: Shard) -> Encoded:
    """Have one shard encoded into its part of raw vectors."""
    encoded = run_pool(run).encode(run, shard)
    get_run_logger().info(
        "%d texts, %d tokens in %.1f s (%s)", encoded.chunks, encoded.tokens, encoded.seconds, encoded.worker
    )
    if encoded.halvings:
        get_run_logger().warning("out of memory: the batch was halved %d times", encoded.halvings)
    if encoded.loaded:
        get_run_logger().info("%s loaded the model again, having replaced a lost worker", encoded.worker)
    return encoded


def encode_shards(run: Run, planned: EncodePlan, hired: int) -> list[Encoded]:
    """Have all shards encoded that the budget allows, a task each."""
    runtime = run.config.runtime
    tried = encode.with_options(
        retries=runtime.retries, retry_delay_seconds=[1, 5, 25], retry_condition_fn=is_worth_retrying
    )
    return encode_all(
        planned,
        hired,
        lambda runner, shard: runner.submit(tried, {"run": run, "shard": shard}),
        runtime.budget,
        runtime.price_per_device_hour,
    )


def keep_finished(
    run: Run, found: Scan, parts: list[ChunkPart], planned: EncodePlan, encoded: list[Encoded]
) -> tuple[Scan, list[ChunkPart], int]:
    """Return what can be committed, and how many texts are left for the next run."""
    if len(encoded) >= len(planned.shards):
        return found, parts, 0
    return narrow(run, found, parts)


@task(**AGAIN)
def narrow(run: Run, found: Scan, parts: list[ChunkPart]) -> tuple[Scan, list[ChunkPart], int]:
    """Cut the run down to the parts whose texts are all encoded."""
    finished, left = finished_parts(run, parts)
    get_run_logger().info(
        "the budget is spent: %d of %d parts are finished, %d texts left", len(finished), len(parts), left
    )
    return (found if run.rebuild or not left else narrow_scan(run, found, finished)), finished, left


@task(cache_policy=NO_CACHE)
def plan_alone(config: PipelineConfig) -> PlanReport:
    """Plan, and put the plan where it is seen; nothing is written."""
    report = plan_only(config)
    create_markdown_artifact(key="plan", markdown=report.markdown(), description="Plan alone")
    return report


@task(**AGAIN)
def seal(run: Run, chunk_paths: list[str]) -> str:
    """Fit a space on a sample of the collection, and seal it; or use the sealed one."""
    if run.space_id is not None:
        return run.space_id
    space_id = fit_space(run, chunk_paths, run_encoder(run))
    space = run_space(run, space_id)
    create_markdown_artifact(key="space", markdown=space_markdown(space), description=f"Space {space_id}")
    get_run_logger().info("sealed space %s: %s", space_id, space.record.fitted.describe())
    for warning in space.provenance.get("warnings", []):
        get_run_logger().warning(warning)
    return space_id


@task(**AGAIN)
def prepare_segments(run: Run, parts: list[ChunkPart]) -> list[SegmentJob]:
    """Find the raw vectors of each new part."""
    return plan_segments(run, parts)


@task(**AGAIN, task_run_name="segment of {job.part.chunks.rows} chunks")
def segment(run: Run, space_id: str, job: SegmentJob) -> Segment:
    """Transform and quantize one part."""
    return write_segment(run, run_space(run, space_id), job)


@task(**AGAIN)
def check(
    run: Run, space_id: str, parts: list[ChunkPart], segments: list[Segment], chunk_paths: list[str]
) -> Checked | None:
    """Read back what was written; nothing is committed unless all of it holds. None if nothing was written."""
    if not parts:
        return None
    space = run_space(run, space_id)
    rows = [check_segment(run, space, part, written) for part, written in zip(parts, segments, strict=True)]
    measured = check_space(run, space, chunk_paths, run_encoder(run))
    checked = conclude(run, rows, sum(part.chunks.rows or 0 for part in parts), measured, segments)
    create_markdown_artifact(key="checks", markdown=checks_markdown(checked), description=f"Checks of {run.run_id}")
    for warning in checked.warnings:
        get_run_logger().warning(warning)
    return checked


@task(**AGAIN)
def commit(run: Run, found: Scan, space_id: str, parts: list[ChunkPart], segments: list[Segment]) -> Commit:
    """Commit the snapshot: from here on it is visible."""
    committed = commit_snapshot(run, found, space_id, parts, segments)
    state = "committed" if committed.is_new else "nothing new, still"
    get_run_logger().info(
        "%s snapshot %d (%s)", state, committed.manifest.sequence, committed.manifest.snapshot_id[:16]
    )
    return committed


@task(**AGAIN)
def prepare_search(run: Run, committed: Commit) -> None:
    """Build the serving database and the lexical index, and draw what audits compare with."""
    space = run_space(run, committed.manifest.space_id)
    try:
        read_reference(run.store, committed.manifest, space.record.input_dimension)
    except IntegrityError as error:
        get_run_logger().warning("audits will have nothing to compare with: %s", error)
    build_serving(
        run.store,
        committed.manifest,
        space,
        run.scratch,
        table_rows=run.config.runtime.serving_table_rows,
        memory_mb=2 * run.config.runtime.memory_mb,
    )
    _publish_words(run, committed)


@task(cache_policy=NO_CACHE)
def gate(run: Run, committed: Commit) -> Verdict | None:
    """Judge the snapshot by the recipe's rules; None if there are none, or production has it already."""
    spec, alias = run.config.recipe.gate, run.config.runtime.promote_to
    current = aliases(run.store, run.collection).get(alias or "")
    if not spec.rules or (current is not None and current.snapshot == committed.manifest.sequence):
        return None
    verdict = gate_snapshot(
        run.store,
        committed.manifest,
        spec,
        against=alias or "production",
        run_id=run.run_id,
        engine=driver_engine(run.config),
        encoder=run_encoder(run),
    )
    show_verdict(run.store, verdict)
    return verdict


@task(cache_policy=NO_CACHE)
def promote(run: Run, committed: Commit, verdict: Verdict | None) -> str | None:
    """Move the alias, unless the gate rejected the snapshot; return the alias if it moved."""
    alias = run.config.runtime.promote_to
    if alias is not None and (problem := promotion_problem(run.store, committed.manifest, alias)):
        get_run_logger().warning("%s stays: %s", alias, problem)
    moved = (verdict is None or verdict.passed) and promote_new(run, committed)
    get_run_logger().info(
        "aliases: %s", {name: entry.snapshot for name, entry in aliases(run.store, run.collection).items()}
    )
    return run.config.runtime.promote_to if moved else None


def _publish_words(run: Run, committed: Commit) -> None:
    manifest, most = committed.manifest, run.config.runtime.lexical_chunks
    if build_lexical(run.store, manifest, run.config.recipe.lexical, most_chunks=most):
        get_run_logger().info("built the lexical index of snapshot %d", manifest.sequence)
    elif manifest.chunks > most and run.config.recipe.lexical.kind != "none":
        get_run_logger().warning(
            "%d chunks exceed runtime.lexical_chunks=%d: snapshot %d has no lexical index",
            manifest.chunks,
            most,
            manifest.sequence,
        )


def _begin(
    begin: Callable[[PipelineConfig, EncoderRecord, Path], Run], config: PipelineConfig, encoder: Encoder
) -> Run:
    """Begin a run in a scratch folder of its own, which is gone if it cannot begin."""
    check_gate(open_store(config.runtime.store), config.runtime.collection, config.recipe.gate)
    scratch = Path(tempfile.mkdtemp(prefix="isospace-run-"))
    try:
        return begin(config, encoder.record, scratch)
    except BaseException:
        scratch.rmdir()
        raise
