"""What a run will leave on disk, by kind of file, and what it takes to serve the snapshot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isospace.collection.disk_usage import Usage, disk_usage, size_text
from isospace.encoding.registry.record import EncoderRecord
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.run import Run
from isospace.pipeline.scan.diff import Scan
from isospace.search.serving_memory import ServingMemory, estimated_memory, searched, weight_bytes
from isospace.storage import paths as layout
from isospace.transform.cells_spec import CELL_BYTES
from isospace.transform.representations import code_bytes, finest_of
from isospace.transform.spec import AutoSpec, TransformSpec

# Measured: texts take 1.4 times as much in the serving database as in the Parquet files of documents and chunks (the
# demo), and their words 0.7 to 1.3 times as much (judged collections, in parts of 200 to 5,000 documents). A model is
# stored with its graph, which is as large.
# Bytes of a published chunk besides its codes and texts: its row, document, cell, and hash.
_PUBLISHED_ROW = 24
_TEXTS_IN_DATABASE, _TEXTS_IN_LEXICAL, _MODEL_AND_GRAPH = 1.4, 1.2, 2


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """Bytes on disk before and after a run, estimated.

    Attributes
    ----------
    before, after
        By kind of file, without kinds that have none. Nothing is removed before a vacuum, so that earlier snapshots
        still count.
    memory
        What it takes to serve the snapshot of the run.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]
    memory: ServingMemory

    def rows(self) -> list[tuple[str, str]]:
        """Return labels and figures with their units."""
        kinds = [kind for kind in self.after if self.after[kind] or self.before.get(kind)]
        figures = [(f"disk, {kind}", self.before.get(kind, 0), self.after[kind]) for kind in kinds]
        total = ("disk in all", sum(self.before.values()), sum(self.after.values()))
        return [
            *((label, _change(before, after)) for label, before, after in (*figures, total)),
            ("memory to serve", self.memory.describe()),
        ]


def plan_disk(
    run: Run,
    scan: Scan,
    parts: Sequence[ChunkPart],
    plan: EncodePlan,
    record: EncoderRecord,
    queries: EncoderRecord | None = None,
) -> DiskPlan:
    """Estimate what a run adds to its collection's files; `queries` is the encoder of queries, if it is another one."""
    base, spec = run.base, run.config.recipe.transform
    known = {ref.path for ref in base.files()} if base is not None else set()
    kept = [part for part in base.parts if part.name in set(scan.kept)] if base is not None else []
    # A run has written its documents and chunks when it plans, and a dry run has not.
    files = [ref for part in parts for ref in (part.documents, part.chunks)]
    new_texts = sum(ref.size for ref in files if ref.path not in known)
    texts = sum(ref.size for ref in files) + sum(part.documents.size + part.chunks.size for part in kept)
    new_chunks = sum(part.chunks.rows or 0 for part in parts)
    chunks = new_chunks + sum(part.chunks.rows or 0 for part in kept)
    found = disk_usage(run.store, run.collection, encoder_ids=run.encoder_ids)
    is_dry = run.work != run.config.runtime.store
    before = {**found, "documents and chunks": found["documents and chunks"] - (0 if is_dry else new_texts)}
    dimension = largest_dimension(run, record)
    lexical, new_lexical = _lexical(run, texts), _lexical(run, new_texts)
    added: dict[Usage, int] = {
        "raw vectors": plan.to_encode * 4 * record.dimension,
        "segments": new_chunks * bytes_per_chunk(spec, dimension),
        "documents and chunks": new_texts,
    }
    if not _is_unchanged(scan, parts):
        published = _published(run, new_chunks, new_texts, dimension) if run.config.recipe.search.remote else 0
        added["search files"] = new_lexical + published + _serving(run, chunks, texts, dimension)
    if run.space_id is None:
        added["spaces"] = 8 * dimension * record.dimension
    used = [record, *([queries] if queries else [])]
    new = [one for one in used if not run.store.exists(layout.encoder_document(one.encoder_id))]
    added["encoders"] = sum(_MODEL_AND_GRAPH * file.size for one in new for file in one.files.values())
    after = {kind: size + added.get(kind, 0) for kind, size in before.items()}
    # Searching loads no other.
    weights = weight_bytes({name: file.size for name, file in used[-1].files.items()})
    memory = estimated_memory(chunks, searched(spec.representations), dimension, weights=weights, words=lexical)
    return DiskPlan(
        {kind: size for kind, size in before.items() if size},
        {kind: size for kind, size in after.items() if size},
        memory,
    )


def bytes_per_chunk(spec: TransformSpec, dimension: int) -> int:
    """Return the bytes of a chunk's codes in a segment, with its cell if there are cells."""
    return sum(code_bytes(one, dimension) for one in spec.representations) + (0 if spec.cells is None else CELL_BYTES)


def largest_dimension(run: Run, record: EncoderRecord) -> int:
    """Return the dimension of the vectors; the largest of all candidates if the fit is not chosen yet."""
    spec = run.config.recipe.transform
    fits = spec.fit.candidates if isinstance(spec.fit, AutoSpec) else (spec.fit,)
    return max(candidate.dimensions or spec.truncate or record.dimension for candidate in fits)


def _is_unchanged(scan: Scan, parts: Sequence[ChunkPart]) -> bool:
    """Return whether the snapshot stays, with its search files."""
    return not parts and not (scan.removed or scan.moved)


def _lexical(run: Run, texts: int) -> int:
    """Return the size of the postings of documents and chunks of that size; those of other parts are kept."""
    return 0 if run.config.recipe.lexical.kind == "none" else round(_TEXTS_IN_LEXICAL * texts)


def _published(run: Run, chunks: int, texts: int, dimension: int) -> int:
    """Return the size of what is published of new chunks for searches without a local copy: codes, texts, and words."""
    finest = finest_of(run.config.recipe.transform.representations, dimension)
    size: int = chunks * (code_bytes(finest, dimension) + _PUBLISHED_ROW) + 2 * texts + 2 * _lexical(run, texts)
    return size


def _serving(run: Run, chunks: int, texts: int, dimension: int) -> int:
    """Return the size of the serving database, which holds every vector in float32, or nothing but views."""
    if chunks > run.config.runtime.serving_table_rows:
        return 0
    codes = [one for one in run.config.recipe.transform.representations if one.kind != "float32"]
    row = 4 * dimension + sum(code_bytes(one, dimension) for one in codes)
    return round(_TEXTS_IN_DATABASE * texts) + chunks * row


def _change(before: int, after: int) -> str:
    if before == after:
        return size_text(after)
    now = f"{size_text(before)} now, " if before else ""
    return f"{now}about {size_text(after)} after the run"
