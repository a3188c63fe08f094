"""Segments: raw vectors transformed as documents, checked for their length, trusted only where a run may trust."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.raw_vectors import write_vectors
from isospace.collection.segments import read_codes
from isospace.errors import CheckError
from isospace.pipeline.run import Run
from isospace.pipeline.segment import SegmentJob, plan_segments, write_segment
from isospace.storage.parquet import metadata_of, read_parquet, write_parquet
from isospace.transform.quantizer_set import quantize
from isospace.transform.space import Space
from isospace.transform.transform import apply_transform
from tests.helpers.manifests import manifest
from tests.helpers.runs import ENCODER_ID, bare_run, text_hash, write_chunk_part
from tests.helpers.small_space import DIMENSION, small_space, transform

TEXTS = [f"text {n}" for n in range(6)]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return bare_run(tmp_path)


def raw_vectors(scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(len(TEXTS), DIMENSION)).astype(np.float32) * np.float32(scale)


def job_of(run: Run, raw: np.ndarray) -> SegmentJob:
    write_vectors(run.store, ENCODER_ID, "1", [text_hash(text) for text in TEXTS], raw, provenance={})
    (job,) = plan_segments(run, [write_chunk_part(run, "a", TEXTS)])
    return job


def table_of(run: Run, space: Space) -> pa.Table:
    return read_parquet(run.store, run.paths.segment(space.space_id, "a"))


def test_rows_are_raw_vectors_transformed_as_documents_in_the_order_of_the_chunks(run: Run) -> None:
    space, raw = small_space(), raw_vectors()
    written = write_segment(run, space, job_of(run, raw))
    table = table_of(run, space)
    expected = apply_transform(space.transform, raw, "document").vectors
    assert not np.array_equal(expected, apply_transform(space.transform, raw, "query").vectors)
    specs = {spec.name: spec for spec in space.record.spec.representations}
    assert read_codes(table, specs["float32"], DIMENSION).tobytes() == expected.tobytes()
    codes = quantize(space.transform.quantizers, expected, "int8")
    assert read_codes(table, specs["int8"], DIMENSION).tobytes() == codes.tobytes()
    assert table["chunk_id"].to_pylist() == [f"a{n}" for n in range(6)]
    assert metadata_of(table)["space_id"] == space.space_id
    assert (written.part, written.clipped, written.file.rows) == ("a", 0, 6)


@pytest.mark.parametrize("normalization", ["none", "l2"])
def test_clipped_and_saturated_values_are_counted_by_the_worst_representation(run: Run, normalization: str) -> None:
    space = small_space(made=transform(normalization=normalization))
    written = write_segment(run, space, job_of(run, raw_vectors(40.0)))
    vectors = apply_transform(space.transform, raw_vectors(40.0), "document")
    int8 = space.transform.quantizers.by_name["int8"].count_saturated(vectors.vectors)
    assert (written.clipped, written.saturated) == (vectors.clipped, int8)
    assert written.clipped > 0
    assert (written.saturated > 0) == (normalization == "none")


@pytest.mark.parametrize("row", [0, 5])
def test_a_vector_that_equals_the_mean_is_refused_with_its_chunk(run: Run, row: int) -> None:
    raw = raw_vectors()
    # The transform adds one half.
    raw[row] = -0.5
    for normalization, says in (("l2", "of unit length"), ("none", "of a positive finite length")):
        space = small_space(made=transform(normalization=normalization))
        with pytest.raises(CheckError, match=rf"1 vectors are not {says}; the first is that of chunk 'a{row}'"):
            write_segment(run, space, job_of(run, raw))


@pytest.mark.parametrize("factor", [1.001, 0.999, 1.00001])
def test_a_length_off_by_little_is_off(run: Run, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    def longer(*given):
        found = apply_transform(*given)
        return replace(found, vectors=found.vectors * np.float32(factor))

    monkeypatch.setattr("isospace.pipeline.segment.apply_transform", longer)
    with pytest.raises(CheckError, match="6 vectors are not of unit length"):
        write_segment(run, small_space(), job_of(run, raw_vectors()))


def test_a_segment_that_is_there_is_taken_but_not_in_a_repair_that_cannot_trust_it(run: Run, tmp_path: Path) -> None:
    space, job = small_space(), job_of(run, raw_vectors())
    first = write_segment(run, space, job)
    right = table_of(run, space)
    other = right.set_column(0, "chunk_id", pa.array(["other"] * 6))
    forged = write_parquet(run.store, first.file.path, other, replace=True)
    assert write_segment(run, space, job).file == forged
    # The base's manifest names what was written first.
    base = manifest(1, parts=())
    listed = base.model_copy(update={"sealed_files": (first.file,)})
    run.store.create(base.paths.snapshot(1), _sealed(listed))
    repair = bare_run(tmp_path, base=listed, damaged=("another file",), rebuild=True)
    assert write_segment(repair, space, job).file == first.file
    assert table_of(run, space).equals(right)


def _sealed(listed) -> bytes:
    from isospace.storage.hashing import seal

    return seal(listed.model_dump(mode="json"))
