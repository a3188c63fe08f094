"""The memory that it takes to serve a snapshot, from what its files and its space say."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from isospace.errors import IntegrityError
from isospace.search.lexical_record import write_lexical_record
from isospace.search.serving_memory import estimated_memory, searched, serving_memory
from isospace.search.spec import LexicalSpec
from isospace.storage.hashing import seal
from isospace.storage.store import open_store
from isospace.transform.representations import RepresentationSpec
from tests.helpers.manifests import file_ref, manifest

SPEC: TypeAdapter[RepresentationSpec] = TypeAdapter(RepresentationSpec)


def spec(kind: str) -> RepresentationSpec:
    return SPEC.validate_python({"kind": kind, **({"subvectors": 8} if kind == "pq" else {})})


@pytest.mark.parametrize(
    ("kind", "chunks", "vectors"),
    [("float32", 1_000, 1_536_000), ("float16", 1_000, 768_000), ("int8", 1_000, 384_000), ("binary", 1_000, 48_000)],
)
def test_vectors_count_by_the_representation_that_is_searched(kind: str, chunks: int, vectors: int) -> None:
    needed = estimated_memory(chunks, spec(kind), 384, weights=90_000_000, words=5)
    assert (needed.vectors, needed.words) == (vectors, 5)
    # As measured: the weights twice, and 200 MB of libraries.
    assert (needed.program, needed.encoder) == (200_000_000, 180_000_000)
    assert needed.total == 380_000_005 + vectors


def test_large_collections_load_torch_unless_they_are_in_float32() -> None:
    programs = [estimated_memory(100_000, spec(kind), 384, weights=0, words=0).program for kind in ("int8", "float32")]
    assert programs == [400_000_000, 200_000_000]


def test_floats_are_searched_if_there_are_any() -> None:
    assert searched([spec("int8"), spec("float16"), spec("float32")]).kind == "float32"
    assert searched([spec("int8"), spec("float16")]).kind == "float16"
    assert searched([spec("pq"), spec("int8")]).kind == "pq"


def test_a_snapshot_is_described_with_units(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    weights = file_ref(f"encoders/{'e' * 64}/model/model.safetensors", size=90_000_000)
    params = file_ref(f"spaces/{'s' * 64}/params.safetensors", size=7_000_000)
    snapshot = manifest(1, chunks=1_000_000, sealed_files=(weights, params))
    record = {"dimension": 384, "spec": {"representations": [{"kind": "int8", "name": "int8"}]}}
    path = f"spaces/{snapshot.space_id}/space.json"
    store.write(path, seal({"record": record}))
    plain = serving_memory(store, snapshot)
    assert plain.describe() == "about 964.0 MB: libraries 400.0 MB, the encoder 180.0 MB, vectors 384.0 MB"
    parts = [file_ref("lexical/one", size=1_500), file_ref("lexical/two", size=500)]
    write_lexical_record(store, snapshot, LexicalSpec(), {}, parts)
    assert serving_memory(store, snapshot).describe().endswith("vectors 384.0 MB, BM25 index 2.0 kB")
    store.write(path, seal({"record": record})[:-9])
    with pytest.raises(IntegrityError):
        serving_memory(store, snapshot)
