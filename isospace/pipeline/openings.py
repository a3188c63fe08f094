"""What each stage is about to do, in one sentence with figures: the first line of its log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

from isospace.collection.origins import Origin
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.commit import Commit
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.counted import counted
from isospace.pipeline.encode.shards import EncodePlan, Shard
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment, SegmentJob
from isospace.storage.hashing import shortened_id
from isospace.storage.parquet import FileRef


def part_name(path: str) -> str:
    """Return a short name of a part, from the path of one of its files."""
    return PurePosixPath(path).stem[:8]


def start(config: PipelineConfig) -> str:
    """Return the opening of the stage that registers the encoder."""
    runtime, recipe = config.runtime, config.recipe
    queries = f" and, for queries, {recipe.query_encoder.model}" if recipe.query_encoder is not None else ""
    return (
        f"looks up the encoder {recipe.encoder.model}{queries} in {runtime.store}, and what collection "
        f"{runtime.collection} has"
    )


def start_from_store(config: PipelineConfig) -> str:
    """Return the opening of the stage that loads the encoder of a refit."""
    return f"loads the encoder of collection {config.runtime.collection} from {config.runtime.store}"


def load_stored_parts(run: Run) -> str:
    """Return the opening of the stage that loads a snapshot."""
    return f"loads the documents and chunks of snapshot {run.base_sequence}; nothing will be encoded"


def scan(run: Run) -> str:
    """Return the opening of the stage that reads the source."""
    base = f"compares it with snapshot {run.base_sequence}" if run.base_sequence else "takes all of it"
    return f"reads the source {run.config.runtime.source}, and {base}"


def chunk(run: Run, documents: FileRef) -> str:
    """Return the opening of the stage that cuts the documents of one part."""
    return f"cuts {counted(documents.rows or 0, 'document')} into chunks (part {part_name(documents.path)})"


def plan_wave(run: Run, scan: Scan, parts: Sequence[ChunkPart], earlier: Sequence[str]) -> str:
    """Return the opening of the stage that plans what to encode of some parts."""
    chunks = sum(part.chunks.rows or 0 for part in parts)
    return f"looks for the raw vectors of {counted(chunks, 'chunk')} in {len(parts):,} of {len(scan.parts):,} new parts"


def plan(run: Run, scan: Scan, parts: Sequence[ChunkPart], waves: Sequence[EncodePlan] = ()) -> str:
    """Return the opening of the stage that plans what to encode."""
    if waves:
        return f"adds up the plans of {counted(len(waves), 'wave')}"
    chunks = sum(part.chunks.rows or 0 for part in parts)
    return f"looks for the raw vectors of {counted(chunks, 'chunk')} in {counted(len(parts), 'new part')}"


def plan_alone(config: PipelineConfig) -> str:
    """Return the opening of the stage of a dry run."""
    return f"plans a run on {config.runtime.source} for collection {config.runtime.collection}; writes nothing"


def start_workers(run: Run, stored: Sequence[Origin]) -> str:
    """Return the opening of the stage that starts the workers."""
    runtime = run.config.runtime
    place = "on the Ray cluster" if runtime.workers.kind == "ray" else "on this machine"
    return f"starts the workers {place}, which load the model (device {runtime.device}, backend {runtime.backend})"


def encode(run: Run, shard: Shard) -> str:
    """Return the opening of the stage that encodes one shard."""
    return f"encodes {counted(shard.chunks, 'text')} with {counted(shard.tokens, 'token')} (shard {shard.number})"


def set_aside(run: Run, parts: list[ChunkPart], refused: dict[bytes, str]) -> str:
    """Say what is set aside."""
    return f"finds the documents of {counted(len(refused), 'text')} that the provider refuses"


def trim(run: Run, scan: Scan, parts: Sequence[ChunkPart]) -> str:
    """Return the opening of the stage that keeps what the budget sufficed for."""
    return f"looks which of {counted(len(parts), 'part')} the budget sufficed for"


def fit(run: Run, chunk_paths: Sequence[str]) -> str:
    """Return the opening of the stage that fits a space."""
    if run.space_id is not None:
        return f"looks up the sealed space {shortened_id(run.space_id)}, which matches the recipe"
    kind = run.config.recipe.transform.fit.kind
    return f"fits a space (kind {kind}) on a sample from {counted(len(chunk_paths), 'part')}"


def plan_segments(run: Run, parts: Sequence[ChunkPart]) -> str:
    """Return the opening of the stage that finds the raw vectors of each part."""
    return f"finds the files of raw vectors of {counted(len(parts), 'new part')}"


def segment(run: Run, space_id: str, job: SegmentJob) -> str:
    """Return the opening of the stage that transforms one part."""
    names = ", ".join(spec.name for spec in run.config.recipe.transform.representations)
    rows = counted(job.part.chunks.rows or 0, "vector")
    return f"transforms {rows} into the space {shortened_id(space_id)} and quantizes them ({names})"


def check_part(run: Run, space_id: str, job: SegmentJob, written: Segment) -> str:
    """Return the opening of the stage that reads one segment back."""
    return f"reads back {counted(written.file.rows or 0, 'vector')}, and compares them with their chunks and codes"


def check(run: Run, space_id: str, parts: Sequence[ChunkPart], segments: Any, rows: Any, chunk_paths: Any) -> str:
    """Return the opening of the stage that checks the space."""
    chunks = sum(part.chunks.rows or 0 for part in parts)
    return f"encodes the probes again, and measures what the space does to a sample beside {counted(chunks, 'vector')}"


def commit(
    run: Run, scan: Scan, space_id: str, parts: Sequence[ChunkPart], segments: Sequence[Segment], sparse: Any = None
) -> str:
    """Return the opening of the stage that commits."""
    kept = f" and {counted(len(scan.kept), 'part')} of snapshot {run.base_sequence}" if scan.kept else ""
    return f"commits a snapshot of {counted(scan.documents, 'document')}: {counted(len(parts), 'new part')}{kept}"


def prepare_search(run: Run, committed: Commit) -> str:
    """Return the opening of the stage that builds the files of search."""
    manifest = committed.manifest
    return f"builds the search files of snapshot {manifest.sequence}: {counted(manifest.chunks, 'chunk')}"


def gate(run: Run, committed: Commit) -> str:
    """Return the opening of the stage that judges a snapshot."""
    rules = run.config.recipe.gate.rules
    against = run.config.runtime.promote_to or "production"
    return f"judges snapshot {committed.manifest.sequence} against {against} by {counted(len(rules), 'rule')}"


def promote(run: Run, committed: Commit, verdict: Any) -> str:
    """Return the opening of the stage that moves the alias."""
    alias = run.config.runtime.promote_to
    if alias is None:
        return "moves no alias, since runtime.promote_to is empty"
    return f"decides whether the alias {alias} moves to snapshot {committed.manifest.sequence}"


def summarize(run: Run, *_: Any) -> str:
    """Return the opening of the stage that writes the report."""
    return f"writes the report of run {run.run_id}"
