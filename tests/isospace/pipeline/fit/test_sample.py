from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isospace.collection import kept_sample
from isospace.collection.deletions import DELETION_SCHEMA
from isospace.collection.sampling import bottom_k
from isospace.pipeline.fit.sample import chunk_hashes, draw_sample
from isospace.storage.hashing import seal
from isospace.storage.parquet import write_parquet
from tests.helpers.manifests import manifest
from tests.helpers.runs import bare_run, text_hash, write_chunk_part

HASHES = st.lists(st.integers(0, 300), max_size=200).map(
    lambda ns: [hashlib.sha256(str(n).encode()).digest() for n in ns]
)


@given(HASHES, st.integers(1, 50), st.integers(-5, 5), st.randoms())
def test_the_sample_depends_on_the_set_and_the_seed_alone(
    hashes: list[bytes], size: int, seed: int, chance: random.Random
) -> None:
    shuffled = hashes * 2
    chance.shuffle(shuffled)
    found = bottom_k(hashes, size, seed)
    assert found == bottom_k(shuffled, size, seed)
    assert len(found) == len(set(found)) == min(size, len(set(hashes)))


@given(HASHES, HASHES, st.integers(1, 50))
def test_samples_merge_into_the_sample_of_the_union(left: list[bytes], right: list[bytes], size: int) -> None:
    merged = bottom_k([*bottom_k(left, size, 0), *bottom_k(right, size, 0)], size, 0)
    assert merged == bottom_k([*left, *right], size, 0)


def test_another_seed_draws_another_sample() -> None:
    hashes = [hashlib.sha256(str(n).encode()).digest() for n in range(1000)]
    drawn = [set(bottom_k(hashes, 100, seed)) for seed in range(3)]
    assert all(len(drawn[0] & other) <= 25 for other in drawn[1:])


def test_the_sample_is_uniform() -> None:
    hashes = [hashlib.sha256(str(n).encode()).digest() for n in range(2000)]
    counts = sum(len(set(bottom_k(hashes, 200, seed)) & set(hashes[:1000])) for seed in range(20))
    assert abs(counts - 2000) < 150


def test_a_run_draws_from_live_chunks_and_reads_new_chunk_files_alone(tmp_path: Path) -> None:
    first = bare_run(tmp_path)
    parts = [write_chunk_part(first, name, [f"{name} {n}" for n in range(30)]) for name in "ab"]
    paths = [part.chunks.path for part in parts]
    everything = [text_hash(f"{name} {n}") for name in "ab" for n in range(30)]
    assert draw_sample(first, paths[:1], 10) == bottom_k(everything[:30], 10, 0)
    # Documents of the base are deleted, and a file that was read before is not read again.
    gone = [{"part": "a", "doc_id": f"a{n}"} for n in range(25)]
    deletions = write_parquet(first.store, first.paths.deletions("d"), pa.Table.from_pylist(gone, DELETION_SCHEMA))
    base = manifest(1, parts=()).model_copy(update={"deletions": deletions})
    first.store.create(base.paths.snapshot(1), seal(base.model_dump(mode="json")))
    second = bare_run(tmp_path, base=base)
    assert set(chunk_hashes(second, paths)) == set(everything[25:])
    first.store.delete(paths[0])
    assert draw_sample(second, paths, 20) == bottom_k(everything[25:], 20, 0)


def test_if_most_of_what_was_kept_is_deleted_all_chunks_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_sample, "_FEWEST_ROWS", 5)
    run = bare_run(tmp_path)
    paths = [write_chunk_part(run, name, [f"{name} {n}" for n in range(60)]).chunks.path for name in "ab"]
    everything = [text_hash(f"{name} {n}") for name in "ab" for n in range(60)]
    assert draw_sample(run, paths, 3) == bottom_k(everything, 3, 0)
    assert draw_sample(run, paths, 100) == bottom_k(everything, 100, 0)


@pytest.mark.parametrize("dry", [True, False])
def test_a_dry_run_keeps_nothing(tmp_path: Path, dry: bool) -> None:
    run = bare_run(tmp_path)
    path = write_chunk_part(run, "a", ["x", "y"]).chunks.path
    run = bare_run(tmp_path, work=str(tmp_path / "dry")) if dry else run
    assert sorted(draw_sample(run, [path], 5)) == sorted([text_hash("x"), text_hash("y")])
    assert run.store.exists(run.paths.kept_sample(0)) is not dry
