"""Segments that match themselves and not the raw vectors that they claim to come from."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.snapshot import sequences
from isospace.collection.vector_files import vector_part_path, vector_parts
from isospace.errors import CheckError, IntegrityError
from isospace.pipeline import segment
from isospace.storage.store import open_store
from isospace.transform.affine import Role
from isospace.transform.transform import Transform, TransformResult, apply_transform
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

Apply = Callable[[Transform, np.ndarray, Role], TransformResult]


def as_queries(transform: Transform, raw: np.ndarray, _: Role) -> TransformResult:
    return apply_transform(transform, raw, "query")


def in_reverse(transform: Transform, raw: np.ndarray, role: Role) -> TransformResult:
    return apply_transform(transform, raw[::-1], role)


def all_the_same(transform: Transform, raw: np.ndarray, role: Role) -> TransformResult:
    return apply_transform(transform, np.repeat(raw[:1], len(raw), axis=0), role)


def one_bit_off(transform: Transform, raw: np.ndarray, role: Role) -> TransformResult:
    found = apply_transform(transform, raw, role)
    found.vectors[-1, 0] = np.nextafter(found.vectors[-1, 0], np.float32(2))
    return found


@pytest.mark.integration
@pytest.mark.parametrize("representations", [["float32", "int8"], ["int8", "binary"], ["float16", "float32"]])
@pytest.mark.parametrize("change", [as_queries, in_reverse, all_the_same])
def test_a_segment_that_is_not_its_raw_vectors_as_documents_is_not_committed(
    configure: Configure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Apply,
    representations: list[str],
) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    queries = tmp_path / "queries.txt"
    queries.write_text("".join(f"what is {text}\n" for text in sentences(30).values()))
    transform = {
        "fit": {"kind": "center", "means": "by_role"},
        "queries": {"file": str(queries)},
        "representations": representations,
    }
    config = configure(source, recipe={"transform": transform})
    with monkeypatch.context() as patch:
        patch.setattr(segment, "apply_transform", change)
        with pytest.raises(CheckError, match=r"rows differ in .* from their raw vectors, transformed as documents"):
            embed_inline(config)
    store = open_store(config.runtime.store)
    assert list(sequences(store, "c")) == []
    # As the message says: without the segments, the same run succeeds.
    assert store.root is not None
    shutil.rmtree(store.root / "collections" / "c" / "segments")
    assert embed_inline(config).committed


def test_a_single_bit_of_a_sampled_row_counts(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "apply_transform", one_bit_off)
    with pytest.raises(CheckError, match="1 of 8 rows differ in float32"):
        embed_inline(configure(write_jsonl(tmp_path / "d.jsonl", sentences(60))))


@pytest.mark.parametrize("field", ["role", "encoder_id"])
def test_raw_vectors_in_another_folder_than_theirs_are_refused(
    configure: Configure, tmp_path: Path, field: str
) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(40)))
    report = embed_inline(config)
    store = open_store(config.runtime.store)
    assert store.root is not None
    encoder_id = next((store.root / "vectors").iterdir()).name
    path = vector_parts(store, encoder_id)[0]
    role: Role = "query" if field == "role" else "document"
    moved = vector_part_path("0" * 64 if field == "encoder_id" else encoder_id, Path(path).stem, role)
    store.write(moved, store.read(path))
    with pytest.raises(IntegrityError, match=f"field {field} is"):
        read_vectors(store, moved, Path(moved).parts[1])
    assert report.committed
