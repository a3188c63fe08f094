"""The stages of the sparse encoder, between the dense segments and the commit; skipped without `recipe.sparse`."""

from __future__ import annotations

from isospace.collection.disk_usage import size_text
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.counted import counted
from isospace.pipeline.encode.shards import EncodePlan, Shard
from isospace.pipeline.executor import (
    ON_PART_FAILURE,
    ON_STORE_FAILURE,
    ON_TRANSIENT_FAILURE,
    Executor,
    Reporter,
    Stage,
)
from isospace.pipeline.resources import run_parts
from isospace.pipeline.run import Run
from isospace.pipeline.segment import SegmentJob
from isospace.pipeline.sparse.encode import EncodedSparse, encode_sparse, plan_sparse, require_same_sparse
from isospace.pipeline.sparse.segment import (
    SparseParts,
    SparseSegment,
    plan_sparse_segments,
    seal_space,
    write_sparse_segment,
)
from isospace.storage.hashing import shortened_id

# A few hundred weights with their terms, several times.
_BYTES_PER_ROW = 10_000


def run_sparse(executor: Executor, run: Run, parts: list[ChunkPart]) -> SparseParts | None:
    """Run the stages of the sparse encoder on the new parts of a run; None without one."""
    if run.sparse_encoder_id is None:
        return None
    if not parts and run.sparse_space_id is not None:
        return SparseParts(run.sparse_space_id)
    plan = executor.run(PLAN, run, parts)
    encoded = list(
        executor.stream(ENCODE.retried(run.config.runtime.retries), ((run, s) for s in plan.shards), limit=2)
    )
    if cut := sum(shard.cut for shard in encoded):
        executor.reporter.warning(
            f"the sparse encoder cuts {cut:,} of {sum(shard.texts for shard in encoded):,} texts at its limit: their "
            "ends cannot be found in mode sparse. Lower recipe.chunking.max_tokens, or use a model with a higher limit"
        )
    space_id = executor.run(SEAL, run)
    jobs = executor.run(PLAN_SEGMENTS, run, parts)
    segments = executor.map(SEGMENT, [(run, space_id, job) for job in jobs], limit=run_parts(run).size if jobs else 1)
    entries, beyond = sum(one.entries for one in segments), sum(one.saturated for one in segments)
    if beyond > entries / 1_000:
        executor.reporter.warning(
            f"{beyond:,} of {entries:,} sparse weights exceed the grid of the sparse space. runtime.refit=true fits a "
            "new grid, and re-encodes nothing"
        )
    return SparseParts(space_id, {one.part: one.file for one in segments})


def plan(reporter: Reporter, run: Run, parts: list[ChunkPart]) -> EncodePlan:
    """Find the texts without sparse vectors, and check the encoder if there are any."""
    planned = plan_sparse(run, parts)
    if planned.shards:
        require_same_sparse(run)
    reporter.info(
        f"planned: {counted(planned.to_encode, 'text')} to encode with the sparse encoder in "
        f"{counted(len(planned.shards), 'shard')}, {planned.reused:,} already encoded"
    )
    return planned


def encode(reporter: Reporter, run: Run, shard: Shard) -> EncodedSparse:
    """Encode one shard with the sparse encoder."""
    encoded = encode_sparse(run, shard)
    reporter.info(
        f"encoded {counted(encoded.texts, 'text')} in {encoded.seconds:.1f} s: "
        f"{encoded.entries / max(encoded.texts, 1):.0f} weights per text"
    )
    return encoded


def seal(reporter: Reporter, run: Run) -> str:
    """Seal the sparse space, or reuse the sealed one; return its ID."""
    if run.sparse_space_id is not None:
        reporter.info(f"keeps the sparse space {shortened_id(run.sparse_space_id)}")
        return run.sparse_space_id
    space = seal_space(run)
    grid = space.record.grid
    reporter.info(
        f"sealed sparse space {shortened_id(space.space_id)}: {space.record.vocabulary:,} terms, weights in steps of "
        f"{2.0**-grid.document_exponent:g} with {grid.bits} bits"
    )
    return space.space_id


def plan_segments(reporter: Reporter, run: Run, parts: list[ChunkPart]) -> list[SegmentJob]:
    """Find the raw sparse vectors of each new part."""
    jobs = plan_sparse_segments(run, parts)
    reporter.info(f"found the sparse vectors of {counted(len(jobs), 'new part')}")
    return jobs


def segment(reporter: Reporter, run: Run, space_id: str, job: SegmentJob) -> SparseSegment:
    """Quantize the sparse vectors of one part."""
    need = _BYTES_PER_ROW * (job.part.chunks.rows or 0)
    return run_parts(run).call(segment_part, reporter, run, space_id, job, need=need)


def segment_part(reporter: Reporter, run: Run, space_id: str, job: SegmentJob) -> SparseSegment:
    """Quantize the sparse vectors of one part in this process."""
    written = write_sparse_segment(run, space_id, job)
    reporter.info(f"wrote {counted(written.entries, 'sparse weight')}, {size_text(written.file.size)}")
    return written


def _plan_opening(run: Run, parts: list[ChunkPart]) -> str:
    return f"looks for the sparse vectors of {counted(len(parts), 'new part')}"


def _encode_opening(run: Run, shard: Shard) -> str:
    return f"encodes {counted(shard.chunks, 'text')} with the sparse encoder (shard {shard.number})"


def _encode_label(run: Run, shard: Shard) -> str:
    return f"encode sparse shard {shard.number}"


def _seal_opening(run: Run) -> str:
    return "seals the sparse space, or looks up the sealed one"


def _segment_opening(run: Run, space_id: str, job: SegmentJob) -> str:
    return f"quantizes the sparse vectors of {counted(job.part.chunks.rows or 0, 'chunk')}"


def _segment_label(run: Run, space_id: str, job: SegmentJob) -> str:
    return f"sparse segment of {counted(job.part.chunks.rows or 0, 'chunk')}, part {job.part.name[:8]}"


PLAN = Stage("plan sparse encoding", plan, ON_STORE_FAILURE, opening=_plan_opening)
ENCODE = Stage("encode sparse", encode, ON_TRANSIENT_FAILURE, label=_encode_label, opening=_encode_opening)
SEAL = Stage("seal sparse space", seal, ON_STORE_FAILURE, opening=_seal_opening)
PLAN_SEGMENTS = Stage("plan sparse segments", plan_segments, ON_STORE_FAILURE, opening=_plan_opening)
SEGMENT = Stage("sparse segment", segment, ON_PART_FAILURE, label=_segment_label, opening=_segment_opening)
