"""Draw a sample of a collection's texts, and collect its raw vectors."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from isospace.collection.kept_sample import known_rows, read_kept_sample, write_kept_sample
from isospace.collection.live_rows import read_live
from isospace.collection.raw_vectors import gather
from isospace.collection.sampling import bottom_k
from isospace.collection.snapshot import deleted_documents
from isospace.collection.vector_homes import find_files
from isospace.pipeline.run import Run


def sample_vectors(
    run: Run, chunk_paths: Sequence[str], *, size: int, dimension: int, partial: bool = False
) -> npt.NDArray[np.float32]:
    """Draw a sample of the texts in chunk files, and collect its raw vectors.

    Parameters
    ----------
    run
        The run, whose recipe has the seed.
    chunk_paths
        Chunk files of the collection.
    size
        Maximum number of vectors.
    dimension
        d, the dimension of the raw vectors.
    partial
        Leave out texts whose raw vectors were deleted; for measurements, not for a fit.

    Returns
    -------
    numpy.ndarray
        (n, d) float32, in the order of the sample's keys.
    """
    drawn = draw_sample(run, chunk_paths, size)
    return vectors_of(run, drawn, dimension=dimension, partial=partial)


def draw_sample(run: Run, chunk_paths: Sequence[str], size: int) -> list[bytes]:
    """Draw at most `size` chunk hashes of live documents in chunk files, as `bottom_k` does.

    Only chunk files that the last run did not have are read, unless most of what it kept was deleted since.
    """
    seed = run.config.recipe.transform.sample.seed
    path = run.paths.kept_sample(seed)
    files = {PurePosixPath(chunks).stem: chunks for chunks in chunk_paths}
    kept = read_kept_sample(run.store, path, seed)
    known = known_rows(run.store, kept, files, size=size)
    if known != kept and run.index_writer is not None:
        write_kept_sample(run.store, path, known)
    drawn = known.draw(size, _deleted(run))
    return bottom_k(chunk_hashes(run, chunk_paths), size, seed) if drawn is None else drawn


def chunk_hashes(run: Run, chunk_paths: Sequence[str]) -> Iterator[bytes]:
    """Yield the chunk hashes of live documents in chunk files, including repetitions."""
    for table in live_chunks(run, chunk_paths, ["chunk_hash"]):
        yield from table["chunk_hash"].to_pylist()


def live_chunks(run: Run, chunk_paths: Sequence[str], columns: list[str]) -> Iterator[pa.Table]:
    """Yield columns of chunk files, without the documents that are deleted in the run's base."""
    deleted = _deleted(run)
    for path in chunk_paths:
        yield read_live(run.store, path, columns, deleted.get(PurePosixPath(path).stem, ()))


def _deleted(run: Run) -> Mapping[str, Collection[str]]:
    """Return the documents that the run's base has deleted, by part."""
    base = run.base
    # A repair rebuilds all parts, from live documents only; the list of deleted ones may itself be lost.
    return deleted_documents(run.store, base.deletions) if base and not run.damaged else {}


def vectors_of(run: Run, hashes: Sequence[bytes], *, dimension: int, partial: bool = False) -> npt.NDArray[np.float32]:
    """Collect the raw vectors of chunk hashes; see `isospace.collection.raw_vectors.gather`."""
    return gather(run.store, run.encoder_id, _files(run, hashes), hashes, dimension, partial=partial)


def _files(run: Run, hashes: Sequence[bytes]) -> list[str]:
    return find_files(run.store, run.encoder_id, hashes, run.scratch, writer=run.index_writer)
