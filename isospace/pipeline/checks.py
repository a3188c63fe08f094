"""Checks before the commit: read back what was written, and compare it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.raw_vectors import find_vectors
from isospace.collection.segments import CELL, NORM_TOLERANCE, read_cells, read_codes, require_space, wrong_cells
from isospace.encoding.encoder import Encoder
from isospace.encoding.probing import check_probes
from isospace.errors import CheckError, MismatchError
from isospace.evaluation.blas_threads import few_threads
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.fit.sample import sample_vectors
from isospace.pipeline.run import Run
from isospace.pipeline.segment import Segment, SegmentJob
from isospace.storage.parquet import parse_parquet, read_parquet, read_verified
from isospace.transform.isotropy import Isotropy, measure_isotropy
from isospace.transform.probes import check_transform
from isospace.transform.quantizer_set import dequantize, quantize
from isospace.transform.space import Space
from isospace.transform.transform import apply_transform, assign_cells
from isospace.transform.vectors import Float32

# Pairs grow with the square; two thousand vectors give two million of them.
_ISOTROPY_SAMPLE = 2_000
# Rows of each segment that are transformed again; a whole segment in the wrong role differs in each.
_TRANSFORMED_ROWS = 8
# At the lowest percentile in use, 95, five percent of the fit's own sample lie outside the range.
_MOST_SATURATED = 0.06


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of all checks.

    Attributes
    ----------
    rows
        Number of vectors read back.
    largest_norm_error
        Largest distance of a vector's norm from 1.
    probe_cosine
        Smallest cosine of a probe with its recorded raw vector.
    before, after
        Isotropy of a sample of raw and of transformed vectors.
    """

    rows: int
    largest_norm_error: float
    probe_cosine: float
    before: Isotropy
    after: Isotropy
    warnings: tuple[str, ...]


def sample_raw(run: Run, job: SegmentJob) -> dict[bytes, Float32]:
    """Return the (d,) raw vectors of a few rows of a part, by chunk hash, for `check_segment`."""
    column = read_parquet(run.store, job.part.chunks.path, columns=["chunk_hash"])["chunk_hash"].to_pylist()
    return find_vectors(run.store, run.encoder_id, job.vectors, [column[row] for row in _sampled_rows(len(column))])


def check_segment(
    run: Run, space: Space, part: ChunkPart, segment: Segment, raw: Mapping[bytes, Float32]
) -> tuple[int, float]:
    """Read a segment back, and compare it with its chunks, its space, and some of its raw vectors.

    `raw` is what `sample_raw` returns.

    Returns
    -------
    tuple
        Number of rows, and the largest distance of a vector's norm from 1.

    Raises
    ------
    CheckError
        If they do not match; the message names the segment.
    """
    store = run.store
    table = parse_parquet(read_verified(store, segment.file), segment.file.path)
    require_space(table, segment.file.path, space.space_id)
    chunks = read_parquet(store, part.chunks.path, columns=["chunk_id", "chunk_hash"])
    if not table["chunk_id"].equals(chunks["chunk_id"]):
        raise CheckError(
            f"{segment.file.path}: its {table.num_rows} rows do not match the {chunks.num_rows} chunks of "
            f"{part.chunks.path}. Delete the segment and run the same command again."
        )
    _require_documents(space, table, segment.file.path, chunks["chunk_hash"].to_pylist(), raw)
    if rows := wrong_cells(table, space):
        raise CheckError(
            f"{segment.file.path}: the cell of {len(rows)} rows is not that of their vectors; the first is that of "
            f"chunk {table['chunk_id'][rows[0]].as_py()!r}. Delete the segment and run the same command again."
        )
    specs = {spec.name: spec for spec in space.record.spec.representations}
    if "float32" not in specs:
        return table.num_rows, 0.0
    dimension = space.record.dimension
    vectors = read_codes(table, specs["float32"], dimension)
    norms = np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=1))
    error = float(np.abs(norms - 1.0).max(initial=0.0)) if space.transform.normalization == "l2" else 0.0
    if not error <= NORM_TOLERANCE:
        raise CheckError(
            f"{segment.file.path}: the norm of a vector differs from 1 by {error:.3g}; expected at most "
            f"{NORM_TOLERANCE:g}. Delete the segment and run the same command again."
        )
    for name, spec in specs.items():
        codes = quantize(space.transform.quantizers, vectors, name)
        if read_codes(table, spec, dimension).tobytes() != codes.tobytes():
            raise CheckError(
                f"{segment.file.path}: its {name} codes do not match its vectors. Delete the segment and run the same "
                "command again."
            )
    return table.num_rows, error


def _require_documents(
    space: Space, table: pa.Table, path: str, hashes: Sequence[bytes], raw: Mapping[bytes, Float32]
) -> None:
    """Transform raw vectors of a few rows as documents again, and compare every representation bit for bit."""
    rows = [row for row in _sampled_rows(len(hashes)) if hashes[row] in raw]
    if not rows:
        return
    vectors = apply_transform(space.transform, np.stack([raw[hashes[row]] for row in rows]), "document").vectors
    compared = {
        spec.name: (
            read_codes(table, spec, space.record.dimension),
            quantize(space.transform.quantizers, vectors, spec.name),
        )
        for spec in space.record.spec.representations
    }
    if space.transform.cells is not None:
        compared[CELL] = (read_cells(table, space.transform.cells.count), assign_cells(space.transform, vectors))
    for name, (written, codes) in compared.items():
        stored = written[rows]
        wrong = [row for row, old, new in zip(rows, stored, codes, strict=True) if old.tobytes() != new.tobytes()]
        if wrong:
            raise CheckError(
                f"{path}: {len(wrong)} of {len(rows)} rows differ in {name} from their raw vectors, transformed "
                f"as documents; the first is that of chunk {table['chunk_id'][wrong[0]].as_py()!r}. They were written "
                "in another role or from other raw vectors: delete the segment and run the same command again."
            )


def _sampled_rows(count: int) -> list[int]:
    """Return evenly spaced rows, the first and the last among them."""
    spaced: npt.NDArray[np.int64] = np.linspace(0, count - 1, min(count, _TRANSFORMED_ROWS)).astype(np.int64)
    return [int(row) for row in spaced]


def check_space(
    run: Run, space: Space, chunk_paths: Sequence[str], encoder: Encoder
) -> tuple[float, Isotropy, Isotropy]:
    """Reproduce the probes, and measure isotropy before and after the transform.

    Returns
    -------
    tuple
        Smallest cosine of a probe with its record, and the isotropy of raw and of transformed vectors.

    Raises
    ------
    CheckError
        If a probe's vector differs from its record.
    """
    try:
        check_transform(space.transform, space.probes)
        cosine = check_probes(space, encoder).cosine
    except MismatchError as error:
        raise CheckError(f"probes of space {space.space_id[:16]}…: {error}") from error
    dimension = space.record.input_dimension
    raw = sample_vectors(run, chunk_paths, size=_ISOTROPY_SAMPLE, dimension=dimension, partial=True)
    vectors = apply_transform(space.transform, raw, "document").vectors
    first = space.record.representations[0]
    stored = dequantize(space.transform.quantizers, quantize(space.transform.quantizers, vectors, first), first)
    with few_threads(dimension):
        return cosine, measure_isotropy(raw), measure_isotropy(stored)


def combine_checks(
    run: Run,
    rows: Sequence[tuple[int, float]],
    expected_rows: int,
    measured: tuple[float, Isotropy, Isotropy],
    segments: Sequence[Segment],
) -> CheckResult:
    """Combine the checks of segments and space, and collect warnings.

    Raises
    ------
    CheckError
        If the number of rows differs from the plan.
    """
    total = sum(count for count, _ in rows)
    if total != expected_rows:
        raise CheckError(
            f"the new segments hold {total} rows; expected {expected_rows}, as planned. Run the same command again."
        )
    cosine, before, after = measured
    limit = run.config.runtime.max_mean_cosine
    warnings = [*_bound_warnings(segments, total * after.d)]
    if after.mean_cosine > limit:
        warnings.append(
            f"the mean cosine of different chunks is {after.mean_cosine:.3f}, above {limit:g}: the vectors lie in a "
            "narrow cone. Set recipe.transform.fit.kind=auto to compare fits that spread them."
        )
    return CheckResult(total, max((error for _, error in rows), default=0.0), cosine, before, after, tuple(warnings))


def _bound_warnings(segments: Sequence[Segment], components: int) -> list[str]:
    """Warn if values exceed the bounds that the space was fitted with."""
    clipped, saturated = sum(s.clipped for s in segments), sum(s.saturated for s in segments)
    warnings = []
    if clipped:
        warnings.append(
            f"{clipped:,} of {components:,} values exceeded the bounds of the space and were clipped: the corpus has "
            "changed since the space was fitted. Fit a new space with runtime.refit=true."
        )
    if saturated > _MOST_SATURATED * components:
        warnings.append(
            f"{saturated:,} of {components:,} components ({saturated / components:.1%}) exceed the range of int8: the "
            "corpus has changed since the space was fitted. Fit a new space with runtime.refit=true, or raise the "
            "percentile of int8."
        )
    return warnings
