"""The stages of a run: what each does, when it is retried, and what it reports."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from isospace.collection.disk_usage import size_text
from isospace.collection.origins import Origin, distinct
from isospace.encoding.registry.record import EncoderRecord
from isospace.errors import FitError
from isospace.evaluation.gate.judge import check_gate
from isospace.evaluation.reports.artifacts import artifact_key
from isospace.evaluation.reports.markdown import as_text
from isospace.pipeline import openings
from isospace.pipeline.checks import CheckResult, check_segment, check_space, combine_checks, sample_raw
from isospace.pipeline.chunk import ChunkPart, chunking_bytes, staged_part, write_chunks
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.counted import counted
from isospace.pipeline.encode.mixed_bits import judge_mixture
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.refusals import note_refusals, read_refusals, retry_refusals
from isospace.pipeline.encode.shards import EncodedShard, EncodePlan, Shard
from isospace.pipeline.encode.waves import together
from isospace.pipeline.executor import (
    ON_LOST_WORKER,
    ON_PART_FAILURE,
    ON_STORE_FAILURE,
    ON_TRANSIENT_FAILURE,
    Reporter,
    Stage,
)
from isospace.pipeline.fit.fit_space import fit_space
from isospace.pipeline.fit.foresee import require_fit
from isospace.pipeline.judged_documents import require_judged
from isospace.pipeline.plan_report import PlanReport, plan_only, report_plan, require_device
from isospace.pipeline.quarantine_report import quarantine_markdown
from isospace.pipeline.refit import (
    has_recorded_queries,
    recorded_encoder,
    recorded_query_encoder,
    recorded_sparse,
    refit_plan,
    start_refit,
    stored_parts,
)
from isospace.pipeline.resources import (
    adopt_encoder,
    driver_engine,
    identify_encoder,
    identify_query_encoder,
    run_counter,
    run_encoder,
    run_parts,
    run_pool,
    run_query_record,
    run_record,
    run_space,
)
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.run_report import checks_markdown, space_markdown
from isospace.pipeline.scan.diff import Scan, scan_source
from isospace.pipeline.scan.guard import UnusableSourceError
from isospace.pipeline.segment import Segment, SegmentJob, plan_segments, transforming_bytes, write_segment
from isospace.pipeline.sparse.encode import sparse_record
from isospace.pipeline.trim_run import finished_parts, narrow_scan
from isospace.storage.hashing import shortened_id
from isospace.storage.parquet import FileRef
from isospace.storage.store import open_store

# A Prefect concurrency limit on this tag bounds the encoding of all runs together, such as by the number of GPUs.
ENCODE_TAG = "isospace-encode"


def start(reporter: Reporter, config: PipelineConfig) -> Run:
    """Register the encoder in the store, and determine what the run starts from."""
    require_device(config)
    record = identify_encoder(config, reporter.info)
    queries = identify_query_encoder(config, record, reporter.info)
    sparse = sparse_record(config, reporter.info)
    run = _begin(functools.partial(start_run, queries=queries, sparse=sparse), config, record)
    origin = f"starts from snapshot {run.base_sequence}" if run.base_sequence else "makes the first snapshot"
    reporter.info(
        f"run {run.run_id} {origin}; encoder {shortened_id(record.encoder_id)}: {record.dimension} dimensions, up to "
        f"{record.longest:,} tokens{_of_queries(queries)}"
    )
    if sparse is not None:
        reporter.info(
            f"sparse encoder {shortened_id(sparse.encoder_id)}: {sparse.vocabulary:,} terms, up to "
            f"{sparse.max_tokens:,} tokens"
        )
    endpoint = config.runtime.endpoint
    if endpoint is not None and endpoint.retry_refused and (count := retry_refusals(run)):
        reporter.info(f"reads {counted(count, 'document')} again that the provider refused before")
    if run.damaged:
        # Files of the encoder may be among those that were lost.
        with _removed_on_failure(run.scratch):
            run_encoder(run)
        reporter.warning(f"rebuilding the snapshot, since files were lost: {', '.join(run.damaged[:5])}")
    return run


def start_from_store(reporter: Reporter, config: PipelineConfig) -> Run:
    """Load the encoder from the store, and determine what the refit starts from."""
    require_device(config)
    encoder = recorded_encoder(config, driver_engine(config))
    adopt_encoder(config, encoder)
    if has_recorded_queries(config):
        other = recorded_query_encoder(config, driver_engine(config))
        queries = other.record if other is not None else None
        if other is not None:
            adopt_encoder(config, other)
    else:
        queries = identify_query_encoder(config, encoder.record, reporter.info)
    begin = functools.partial(start_refit, queries=queries, sparse=recorded_sparse(config))
    run = _begin(begin, config, encoder.record)
    reporter.info(f"run {run.run_id} refits snapshot {run.base_sequence}{_of_queries(queries)}")
    return run


def load_stored_parts(reporter: Reporter, run: Run) -> tuple[Scan, list[ChunkPart], PlanReport]:
    """Load the documents and chunks of the snapshot; nothing is encoded."""
    scan, parts = stored_parts(run)
    chunks = sum(part.chunks.rows or 0 for part in parts)
    reporter.info(
        f"loaded {counted(scan.documents, 'document')}; {counted(chunks, 'chunk')} in {counted(len(parts), 'part')} to "
        "transform again"
    )
    return scan, parts, refit_plan(run, scan, parts, run_record(run), run_query_record(run))


def scan(reporter: Reporter, run: Run) -> Scan:
    """Compare the source with the collection, and write the new documents."""
    try:
        scan = scan_source(run, read_refusals(run))
    except UnusableSourceError as error:
        outcome = f"**The run failed, and nothing was committed.** {as_text(str(error))}"
        markdown = quarantine_markdown(run.collection, error.inputs, outcome, count=error.count)
        description = f"{run.collection}: {error.count:,} inputs quarantined, more than the limit"
        if error.count:
            reporter.show_markdown(artifact_key(run.collection, "quarantine"), markdown, description)
        raise
    reporter.info(f"read the source: {_changes(scan)}")
    for note in scan.notes:
        (reporter.warning if note.warns else reporter.info)(note.describe())
    return scan


def chunk(reporter: Reporter, run: Run, documents: FileRef) -> ChunkPart:
    """Chunk the documents of one part."""
    need = chunking_bytes(run, documents)
    return run_parts(run).call(chunk_part, reporter, run, documents, need=need, holds_lock=True)


def chunk_part(reporter: Reporter, run: Run, documents: FileRef) -> ChunkPart:
    """Chunk the documents of one part in this process."""
    part = write_chunks(run, documents, run_counter(run))
    reporter.info(f"cut {counted(documents.rows or 0, 'document')} into {counted(part.chunks.rows or 0, 'chunk')}")
    if part.too_long:
        reporter.warning(f"the encoder truncates {part.too_long:,} texts, by {part.cut_tokens:,} tokens in all")
    return part


def plan_wave(
    reporter: Reporter, run: Run, scan: Scan, parts: list[ChunkPart], earlier: list[str]
) -> EncodePlan | None:
    """Find the texts of some parts without raw vectors, and group them into encoding shards, which can begin at once.

    `earlier` has the paths of the plans of earlier waves. Return None if the first wave cannot tell whether the run
    will work: then all parts have to be chunked before the first text is encoded.
    """
    record = run_record(run)
    planned = plan_shards(run, parts, limit=record.longest, kept=scan.kept, planned=earlier)
    if parts[0].documents == scan.parts[0]:
        staged = [staged_part(run, documents) for documents in scan.parts]
        require_judged(run, scan, staged)
        try:
            require_fit(run, planned, staged, record)
        except FitError:
            reporter.info("chunks all documents before the first text is encoded: the fit may need all of them")
            return None
    reporter.info(
        f"planned {counted(planned.to_encode, 'text')} with {counted(planned.tokens, 'token')} of "
        f"{counted(sum(part.documents.rows or 0 for part in parts), 'document')}, in "
        f"{counted(len(planned.shards), 'shard')}; {planned.reused:,} are already encoded"
    )
    return planned


def plan(
    reporter: Reporter, run: Run, scan: Scan, parts: list[ChunkPart], waves: Sequence[EncodePlan] = ()
) -> tuple[EncodePlan, PlanReport]:
    """Find the texts without raw vectors, and group them into encoding shards.

    `waves` has the plans of all parts if they were planned in waves.
    """
    record = run_record(run)
    planned = together(run, parts, waves) if waves else plan_shards(run, parts, limit=record.longest, kept=scan.kept)
    require_fit(run, planned, parts, record)
    report = report_plan(run, scan, parts, planned, record, require_judged(run, scan, parts), run_query_record(run))
    reporter.show_markdown(
        artifact_key(run.collection, "plan"), report.markdown(), f"{run.collection}: plan of the run"
    )
    for warning in report.warnings():
        reporter.warning(warning)
    if not planned.shards:
        reporter.info(f"planned: nothing to encode, {planned.reused:,} texts are already encoded")
        return planned, report
    reporter.info(
        f"planned: {counted(planned.to_encode, 'text')} with {counted(planned.tokens, 'token')} to encode in "
        f"{counted(len(planned.shards), 'shard')}, {planned.reused:,} already encoded"
    )
    return planned, report


def plan_alone(reporter: Reporter, config: PipelineConfig) -> PlanReport:
    """Plan a run and show the plan; nothing is written."""
    report = plan_only(config)
    key = artifact_key(report.collection, "plan")
    reporter.show_markdown(key, report.markdown(), f"{report.collection}: plan of a dry run")
    for warning in report.warnings():
        reporter.warning(warning)
    reporter.info(f"planned, nothing was written: {report.describe()}")
    return report


def start_workers(reporter: Reporter, run: Run, stored: tuple[Origin, ...]) -> tuple[int, tuple[str, ...]]:
    """Start the workers, which load the model; return how many there are, and the classes of bits of this run.

    `stored` is what computed the vectors that the snapshot takes from the store.
    """
    pool = run_pool(run)
    engines = " and ".join(origin.describe() for origin in distinct(pool.origins))
    reporter.info(f"started {counted(pool.size, 'worker')} ({pool.place}): {engines}")
    if warning := judge_mixture(run.config.runtime.mixed_bits, stored, pool.origins):
        reporter.warning(warning)
    return pool.size, tuple(origin.bits_class for origin in distinct([*stored, *pool.origins]))


def encode(reporter: Reporter, run: Run, shard: Shard) -> EncodedShard:
    """Encode one shard, and write its raw vectors."""
    encoded = run_pool(run).encode(run, shard)
    reporter.info(
        f"encoded {counted(encoded.chunks, 'text')} with {counted(encoded.tokens, 'token')} in {encoded.seconds:.1f} s "
        f"({encoded.worker})"
    )
    if encoded.halvings:
        reporter.warning(f"out of memory: the batch size was halved {encoded.halvings} times")
    if encoded.limited or encoded.resent_texts:
        reporter.info(
            f"the provider's limit was reached {encoded.limited:,} times; up to {encoded.resent_texts:,} texts were "
            "sent twice"
        )
    if encoded.loaded:
        reporter.info(f"{encoded.worker} loaded the model, to replace a lost worker")
    return encoded


def set_aside(reporter: Reporter, run: Run, parts: list[ChunkPart], refused: dict[bytes, str]) -> int:
    """Quarantine the documents with a text that the provider refuses; return how many there are."""
    documents = note_refusals(run, parts, refused)
    shown = "; ".join(f"{doc_id}: {reason}" for doc_id, reason in list(documents.items())[:3])
    reporter.warning(
        f"the provider refuses {counted(len(refused), 'text')}: {counted(len(documents), 'document')} will be "
        f"quarantined ({shown}). Until they change, they are not sent again"
    )
    return len(documents)


def trim(reporter: Reporter, run: Run, scan: Scan, parts: list[ChunkPart]) -> tuple[Scan, list[ChunkPart], int]:
    """Reduce the run to the parts whose texts are all encoded; also return how many texts are left."""
    finished, left = finished_parts(run, parts)
    if left:
        reporter.info(
            f"the budget is spent: {len(finished):,} of {len(parts):,} parts are finished, {left:,} texts are left"
        )
    return (scan if run.rebuild or not left else narrow_scan(run, scan, finished)), finished, left


def fit(reporter: Reporter, run: Run, chunk_paths: list[str]) -> str:
    """Fit a space on a sample of the collection and seal it, or reuse the sealed one; return its ID."""
    if run.space_id is not None:
        reporter.info(f"keeps the space {shortened_id(run.space_id)}: the recipe's transform has not changed")
        return run.space_id
    space_id = fit_space(run, chunk_paths, run_encoder(run))
    space = run_space(run, space_id)
    description = f"{run.collection}: a new space was fitted"
    reporter.show_markdown(artifact_key(run.collection, "space"), space_markdown(run.collection, space), description)
    record = space.record
    reporter.info(
        f"sealed space {shortened_id(space_id)}: fit {record.fitted.describe()}, {record.input_dimension} dimensions"
    )
    for warning in space.provenance.get("warnings", []):
        reporter.warning(warning)
    return space_id


def plan_segment_jobs(reporter: Reporter, run: Run, parts: list[ChunkPart]) -> list[SegmentJob]:
    """Find the raw vectors of each new part."""
    jobs = plan_segments(run, parts)
    files = {path for job in jobs for path in job.vectors}
    reporter.info(f"found {counted(len(files), 'file')} of raw vectors for {counted(len(jobs), 'new part')}")
    return jobs


def segment(reporter: Reporter, run: Run, space_id: str, job: SegmentJob) -> Segment:
    """Transform and quantize one part."""
    need = transforming_bytes(run_space(run, space_id), job)
    return run_parts(run).call(segment_part, reporter, run, space_id, job, need=need)


def segment_part(reporter: Reporter, run: Run, space_id: str, job: SegmentJob) -> Segment:
    """Transform and quantize one part in this process."""
    written = write_segment(run, run_space(run, space_id), job)
    reporter.info(f"wrote {counted(written.file.rows or 0, 'vector')}, {size_text(written.file.size)}")
    return written


def check_one(reporter: Reporter, run: Run, space_id: str, job: SegmentJob, written: Segment) -> tuple[int, float]:
    """Read the segment of one part back, and check it; return its rows, and how far a norm is from 1."""
    need = transforming_bytes(run_space(run, space_id), job)
    return run_parts(run).call(check_part, reporter, run, space_id, job, written, need=need)


def check_part(reporter: Reporter, run: Run, space_id: str, job: SegmentJob, written: Segment) -> tuple[int, float]:
    """Read the segment of one part back in this process, and check it."""
    rows, error = check_segment(run, run_space(run, space_id), job.part, written, sample_raw(run, job))
    reporter.info(f"checked {counted(rows, 'vector')}: norms within {error:.1e} of 1")
    return rows, error


def check(
    reporter: Reporter,
    run: Run,
    space_id: str,
    parts: list[ChunkPart],
    segments: list[Segment],
    rows: list[tuple[int, float]],
    chunk_paths: list[str],
) -> CheckResult:
    """Check the space and what was found in its new segments before the commit.

    `rows` is what `check_part` returns for each segment.
    """
    space = run_space(run, space_id)
    measured = check_space(run, space, chunk_paths, run_encoder(run))
    checked = combine_checks(run, rows, sum(part.chunks.rows or 0 for part in parts), measured, segments)
    markdown = checks_markdown(run.collection, checked, run.config.runtime.max_mean_cosine)
    description = f"{run.collection}: checks before the commit"
    reporter.show_markdown(artifact_key(run.collection, "checks"), markdown, description)
    reporter.info(
        f"checked {counted(checked.rows, 'vector')}: norms within {checked.largest_norm_error:.1e} of 1, cosine of the "
        f"probes at least {checked.probe_cosine:.6f}"
    )
    for warning in checked.warnings:
        reporter.warning(warning)
    return checked


def _of_queries(record: EncoderRecord | None) -> str:
    return "" if record is None else f"; queries are encoded by {shortened_id(record.encoder_id)}"


def _begin(
    begin: Callable[[PipelineConfig, EncoderRecord, Path], Run], config: PipelineConfig, record: EncoderRecord
) -> Run:
    """Begin a run in a scratch folder of its own, which is removed if it cannot begin."""
    check_gate(open_store(config.runtime.store), config.runtime.collection, config.recipe.gate)
    scratch = Path(tempfile.mkdtemp(prefix="isospace-run-"))
    with _removed_on_failure(scratch):
        return begin(config, record, scratch)


@contextlib.contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _changes(scan: Scan) -> str:
    """Return the numbers of documents by what happened to them, without those that are zero."""
    counts = {
        "added": scan.added,
        "changed": scan.changed,
        "unchanged": scan.unchanged,
        "removed": scan.removed,
        "unreadable but kept": scan.stale,
        "forgotten": scan.forgotten,
    }
    documents = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    quarantined = f"; {counted(scan.quarantined, 'input')} quarantined" if scan.quarantined else ""
    unread = f"; {counted(scan.unread, 'file')} not read again, as listed before" if scan.unread else ""
    return f"{counted(scan.documents, 'document')} ({documents or 'none changed'}){quarantined}{unread}"


def _chunk_label(run: Run, documents: FileRef) -> str:
    return f"chunk {counted(documents.rows or 0, 'document')}, part {openings.part_name(documents.path)}"


def _wave_label(run: Run, scan: Scan, parts: list[ChunkPart], earlier: list[str]) -> str:
    return f"plan {counted(sum(part.chunks.rows or 0 for part in parts), 'chunk')}"


def _encode_label(run: Run, shard: Shard) -> str:
    return f"encode shard {shard.number}"


def _check_label(run: Run, space_id: str, job: SegmentJob, written: Segment) -> str:
    return f"check {counted(written.file.rows or 0, 'vector')}, part {openings.part_name(job.part.documents.path)}"


def _segment_label(run: Run, space_id: str, job: SegmentJob) -> str:
    return (
        f"transform {counted(job.part.chunks.rows or 0, 'chunk')}, part {openings.part_name(job.part.documents.path)}"
    )


START = Stage("prepare encoder", start, opening=openings.start)
START_FROM_STORE = Stage("load encoder", start_from_store, opening=openings.start_from_store)
LOAD_STORED_PARTS = Stage("load snapshot", load_stored_parts, opening=openings.load_stored_parts)
SCAN = Stage("scan source", scan, ON_STORE_FAILURE, opening=openings.scan)
CHUNK = Stage("chunk", chunk, ON_PART_FAILURE, label=_chunk_label, opening=openings.chunk)
PLAN_WAVE = Stage("plan wave", plan_wave, ON_STORE_FAILURE, label=_wave_label, opening=openings.plan_wave)
PLAN = Stage("plan encoding", plan, ON_STORE_FAILURE, opening=openings.plan)
PLAN_ALONE = Stage("plan", plan_alone, opening=openings.plan_alone)
START_WORKERS = Stage("start workers", start_workers, ON_LOST_WORKER, opening=openings.start_workers)
ENCODE = Stage("encode", encode, ON_TRANSIENT_FAILURE, label=_encode_label, tags=(ENCODE_TAG,), opening=openings.encode)
SET_ASIDE = Stage("quarantine refused texts", set_aside, ON_STORE_FAILURE, opening=openings.set_aside)
TRIM = Stage("trim to budget", trim, ON_STORE_FAILURE, opening=openings.trim)
FIT = Stage("fit space", fit, ON_STORE_FAILURE, opening=openings.fit)
PLAN_SEGMENTS = Stage("plan segments", plan_segment_jobs, ON_STORE_FAILURE, opening=openings.plan_segments)
SEGMENT = Stage("segment", segment, ON_PART_FAILURE, label=_segment_label, opening=openings.segment)
CHECK_PART = Stage("check part", check_one, ON_PART_FAILURE, label=_check_label, opening=openings.check_part)
CHECK = Stage("check vectors", check, ON_STORE_FAILURE, opening=openings.check)
