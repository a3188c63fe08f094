"""The segment stage: transform the raw vectors of each part, and write them in the order of its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.origins import Origin, origin_metadata, segment_origins
from isospace.collection.raw_vectors import gather_with_origins
from isospace.collection.segments import CELL, NORM_TOLERANCE, VECTOR, cell_column, column_of
from isospace.collection.vector_homes import load_homes, locate
from isospace.errors import CheckError
from isospace.pipeline.chunk import ChunkPart, finished_part
from isospace.pipeline.run import Run
from isospace.storage.parquet import FileRef, fixed_binary, metadata_of, read_parquet, write_parquet
from isospace.storage.scratch_duckdb import load_columns, scratch_database
from isospace.transform.quantizer_set import count_saturated, quantize
from isospace.transform.representations import Float32Spec
from isospace.transform.space import Space
from isospace.transform.transform import apply_transform, assign_cells

# Raw and transformed vectors in float32, codes, and norms in float64.
_BYTES_PER_COMPONENT = 32


@dataclass(frozen=True, slots=True)
class SegmentJob:
    """What one task transforms: a part, and the files of raw vectors that hold its chunks."""

    part: ChunkPart
    vectors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A segment that was written.

    Attributes
    ----------
    part
        Name of the part.
    clipped
        Number of values that reached a bound of the affine map.
    saturated
        Number of components that exceed the range of int8.
    origins
        What computed its raw vectors, one for each class of bits.
    """

    part: str
    file: FileRef
    clipped: int
    saturated: int
    origins: tuple[Origin, ...]


def plan_segments(run: Run, parts: Sequence[ChunkPart]) -> list[SegmentJob]:
    """Find the files of raw vectors that each part needs."""
    if not parts:
        return []
    store = run.store
    with scratch_database(run.scratch, memory_mb=run.config.runtime.memory_mb) as connection:
        load_columns(connection, "wanted", store, [p.chunks.path for p in parts], {"chunk_hash": "BLOB"})
        homes = load_homes(
            connection, store, run.encoder_id, "wanted", run.scratch, writer=run.index_writer, are_stored=True
        )
        located = dict(locate(connection, "wanted", homes))
    return [SegmentJob(part, tuple(located.get(number, ()))) for number, part in enumerate(parts)]


def transforming_bytes(space: Space, job: SegmentJob) -> int:
    """Return about how much memory it takes to transform the raw vectors of a part, or to check its segment."""
    wider = max(space.record.input_dimension, space.record.dimension)
    return _BYTES_PER_COMPONENT * wider * (job.part.chunks.rows or 0)


def write_segment(run: Run, space: Space, job: SegmentJob) -> Segment:
    """Transform and quantize the vectors of one part, unless its segment already exists.

    Raises
    ------
    CheckError
        If a vector has a wrong norm; the message names the chunk.
    IntegrityError
        If a file that is read is damaged.
    """
    store = run.store
    path = run.paths.segment(space.space_id, job.part.name)
    trusted = run.trusts(path)
    if trusted and (finished := finished_part(store, path)) is not None:
        table, reference = finished
        entries = metadata_of(table)
        counts = int(entries["clipped"]), int(entries["saturated"])
        return Segment(job.part.name, reference, *counts, segment_origins(entries))
    chunks = read_parquet(store, job.part.chunks.path, columns=["chunk_id", "doc_id", "chunk_hash"])
    hashes, dimension = chunks["chunk_hash"].to_pylist(), space.record.input_dimension
    raw, origins = gather_with_origins(store, run.encoder_id, job.vectors, hashes, dimension)
    transformed = apply_transform(space.transform, raw, "document")
    _require_lengths(chunks, transformed.vectors, unit=space.transform.normalization == "l2")
    table = segment_table(chunks, space, transformed.vectors)
    # The largest number of any representation: several of one kind clip the same components.
    beyond = max(
        count_saturated(space.transform.quantizers, transformed.vectors, name) for name in space.record.representations
    )
    metadata = {
        "space_id": space.space_id,
        "encoder_id": run.encoder_id,
        "chunking_id": run.chunking_id,
        "part": job.part.name,
        "role": "document",
        "clipped": str(transformed.clipped),
        "saturated": str(beyond),
        **origin_metadata(origins),
    }
    reference = write_parquet(store, path, table, metadata=metadata, dictionary=["doc_id"], replace=not trusted)
    return Segment(job.part.name, reference, transformed.clipped, beyond, origins)


def segment_table(chunks: pa.Table, space: Space, vectors: npt.NDArray[np.float32]) -> pa.Table:
    """Return the segment of chunks (chunk_id, doc_id), given their (n, k) vectors in the space."""
    columns: dict[str, Any] = {"chunk_id": chunks["chunk_id"], "doc_id": chunks["doc_id"]}
    for spec in space.record.spec.representations:
        codes = quantize(space.transform.quantizers, vectors, spec.name)
        if isinstance(spec, Float32Spec):
            flat = pa.array(codes.reshape(-1), pa.float32())
            columns[VECTOR] = pa.FixedSizeListArray.from_arrays(flat, codes.shape[1])
        else:
            columns[column_of(spec)] = fixed_binary(codes)
    if space.transform.cells is not None:
        columns[CELL] = cell_column(assign_cells(space.transform, vectors))
    return pa.table(columns)


def _require_lengths(chunks: pa.Table, vectors: npt.NDArray[np.float32], *, unit: bool) -> None:
    norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))
    good = np.abs(norms - 1.0) <= NORM_TOLERANCE if unit else (norms > 0) & np.isfinite(norms)
    bad = np.flatnonzero(~good)
    if len(bad):
        worst = int(bad[0])
        expected = "of unit length" if unit else "of a positive finite length"
        raise CheckError(
            f"{len(bad)} vectors are not {expected}; the first is that of chunk {chunks['chunk_id'][worst].as_py()!r}, "
            f"with norm {norms[worst]:.9g}. Either its raw vector equals the mean, or the encoder failed on its text. "
            "Look at the text."
        )
