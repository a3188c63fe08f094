"""Seal the sparse space of a collection, and write the sparse segment of each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from isospace.collection.segments import require_space
from isospace.collection.sparse_vectors import code_columns, gather_sparse, read_sparse_codes, read_sparse_vectors
from isospace.collection.vector_files import vector_parts
from isospace.encoding.sparse.embedder import load_sparse_space
from isospace.errors import CheckError, FitError
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.run import Run
from isospace.pipeline.segment import SegmentJob, plan_segments
from isospace.pipeline.sparse.encode import as_sparse, run_sparse_encoder
from isospace.storage import paths as layout
from isospace.storage.parquet import FileRef, parse_parquet, read_parquet, read_verified, write_parquet
from isospace.transform.sparse import Bits, fit_grid, quantize_sparse
from isospace.transform.sparse_space import SPARSE_DOCUMENT, SparseSpace, seal_sparse_space

_SAMPLE = 20_000


@dataclass(frozen=True, slots=True)
class SparseSegment:
    """A sparse segment that was written.

    Attributes
    ----------
    part
        Name of the part.
    saturated
        Number of weights beyond the grid, which were set to its largest value.
    entries
        Number of stored weights.
    """

    part: str
    file: FileRef
    saturated: int
    entries: int


@dataclass(frozen=True, slots=True)
class SparseParts:
    """What a run commits beside the dense segments: the sparse space, and the file of each new part by name."""

    space_id: str
    files: dict[str, FileRef] = field(default_factory=dict)


def seal_space(run: Run) -> SparseSpace:
    """Fit the grid on a sample of the raw sparse vectors, and seal the sparse space.

    The grid's step is a power of two, so that samples of one model nearly always agree on it.

    Raises
    ------
    FitError
        If no text has a weight.
    """
    spec, encoder_id = run.config.recipe.sparse, str(run.sparse_encoder_id)
    bits: Bits = 8 if spec is None else spec.bits
    largest, seen = 0.0, 0
    for path in vector_parts(run.store, encoder_id):
        keys, vectors = read_sparse_vectors(run.store, path, encoder_id)
        largest, seen = max(largest, float(vectors.values.max(initial=0.0))), seen + len(keys)
        if seen >= _SAMPLE:
            break
    if not seen:
        raise FitError("no text has a sparse vector yet, so that the grid of their weights cannot be fitted.")
    encoder = run_sparse_encoder(run)
    provenance = {**encoder.provenance, "run_id": run.run_id, "sample": seen, "largest_weight": largest}
    space_id, files = seal_sparse_space(
        encoder_id,
        encoder,
        fit_grid(largest, bits),
        longest=encoder.record.max_tokens,
        texts=encoder.probe_texts(),
        provenance=provenance,
    )
    folder = layout.space_folder(space_id)
    # The document last: a space that has one is whole.
    for name in sorted(files, key=lambda name: name == SPARSE_DOCUMENT):
        run.store.create_if_absent(f"{folder}/{name}", files[name])
    return load_sparse_space(run.store, space_id)


def plan_sparse_segments(run: Run, parts: Sequence[ChunkPart]) -> list[SegmentJob]:
    """Find the files of raw sparse vectors that each part needs."""
    return plan_segments(as_sparse(run), parts)


def write_sparse_segment(run: Run, space_id: str, job: SegmentJob) -> SparseSegment:
    """Quantize the sparse vectors of one part, write them in the order of its chunks, and read them back.

    Raises
    ------
    CheckError
        If what is in the store then differs from what was computed.
    """
    store, space = run.store, load_sparse_space(run.store, space_id)
    encoder_id = space.record.encoder_id
    chunks = read_parquet(store, job.part.chunks.path, columns=["chunk_id", "doc_id", "chunk_hash"])
    raw = gather_sparse(store, encoder_id, job.vectors, chunks["chunk_hash"].to_pylist())
    codes, beyond = quantize_sparse(raw, space.record.grid, "document")
    table = pa.table({"chunk_id": chunks["chunk_id"], "doc_id": chunks["doc_id"], **code_columns(codes)})
    path = run.paths.segment(space_id, job.part.name)
    metadata = {
        "space_id": space_id,
        "encoder_id": encoder_id,
        "chunking_id": run.chunking_id,
        "part": job.part.name,
        "role": "document",
        "saturated": str(beyond),
    }
    reference = write_parquet(
        store, path, table, metadata=metadata, dictionary=["doc_id"], replace=not run.trusts(path)
    )
    stored = parse_parquet(read_verified(store, reference), path)
    require_space(stored, path, space_id)
    read_sparse_codes(stored, space.record.grid, space.record.vocabulary, path)
    if not stored.replace_schema_metadata(None).equals(table.combine_chunks()):
        raise CheckError(
            f"{path}: holds other sparse vectors than this run computed from the same texts. Delete the file, and run "
            "the same command again."
        )
    return SparseSegment(job.part.name, reference, beyond, len(codes.terms))
