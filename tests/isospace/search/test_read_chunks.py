"""The chunks of a snapshot as Arrow batches: live rows only, each beside its vectors, codes, and raw vector."""

from __future__ import annotations

import shutil
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from isospace.collection.raw_vectors import find_vectors
from isospace.collection.snapshot import read_manifest
from isospace.collection.vector_files import vector_parts
from isospace.encoding.embedder import load_space
from isospace.errors import ConfigError, IntegrityError, NotFoundError
from isospace.evaluation.ranking import live_hashes
from isospace.search.read_chunks import DEFAULT_COLUMNS, read_chunks
from isospace.storage.store import Store, open_store
from isospace.transform.quantizer_set import quantize
from isospace.transform.transform import apply_transform
from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline


@pytest.fixture(scope="module")
def world(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, dict[str, str]]:
    """Two snapshots in parts of five documents; the second lacks one document of the first."""
    folder = tmp_path_factory.mktemp("read")
    texts = sentences(12)
    config = configuration(tiny_model, folder / "d.jsonl", folder / "store", runtime={"part_documents": 5})
    write_jsonl(folder / "d.jsonl", texts)
    embed_inline(config)
    del texts[sorted(texts)[3]]
    write_jsonl(folder / "d.jsonl", texts)
    embed_inline(config)
    return open_store(folder / "store"), texts


def test_the_rows_are_those_of_documents_that_are_not_deleted(world: tuple[Store, dict[str, str]]) -> None:
    store, texts = world
    reader = read_chunks(store, "c")
    assert tuple(reader.schema.names) == DEFAULT_COLUMNS
    table = reader.read_all()
    assert sorted(table["doc_id"].to_pylist()) == sorted(texts)
    assert {row["doc_id"]: row["text"] for row in table.to_pylist()} == texts
    assert table.num_rows == read_manifest(store, "c", 2).chunks
    assert len(read_chunks(store, "c", "1", columns=["doc_id"]).read_all()) == len(texts) + 1


def test_vectors_codes_and_raw_vectors_belong_to_each_other(world: tuple[Store, dict[str, str]]) -> None:
    store, _ = world
    columns = ["int8", "raw", "n_tokens", "vector", "binary", "prefix", "text"]
    table = read_chunks(store, "c", columns=columns).read_all()
    assert table.column_names == columns
    manifest = read_manifest(store, "c", 2)
    space = load_space(store, manifest.space_id)
    raw, vectors = (np.array(table[name].to_pylist(), np.float32) for name in ("raw", "vector"))
    expected = apply_transform(space.transform, raw, "document").vectors
    assert vectors.tobytes() == expected.tobytes()
    for name in ("int8", "binary"):
        codes = quantize(space.transform.quantizers, expected, name)
        assert table[name].to_pylist() == [row.tobytes() for row in codes]
    assert min(table["n_tokens"].to_pylist()) > 0
    stored = find_vectors(
        store, manifest.encoder_id, vector_parts(store, manifest.encoder_id), hashes_of(store, manifest.sequence)
    )
    assert {row.tobytes() for row in raw} == {row.tobytes() for row in stored.values()}


def hashes_of(store: Store, sequence: int) -> list[bytes]:
    return live_hashes(store, read_manifest(store, "c", sequence))


def test_other_libraries_read_the_batches(world: tuple[Store, dict[str, str]]) -> None:
    store, texts = world
    frame = pl.from_arrow(read_chunks(store, "c"))
    assert isinstance(frame, pl.DataFrame)
    width = load_space(store, read_manifest(store, "c", 2).space_id).record.dimension
    assert frame.schema["vector"] == pl.Array(pl.Float32, width)
    assert frame["vector"].to_numpy().shape == (len(texts), width)
    chunks = read_chunks(store, "c", columns=["doc_id", "vector"])
    found = duckdb.sql("SELECT count(*), min(array_inner_product(vector, vector)) FROM chunks").fetchall()
    assert found == [(len(texts), pytest.approx(1.0, abs=1e-6))]
    del chunks


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (["doc_id", "vectors"], "column 'vectors' is unknown"),
        (["doc_id", "doc_id"], "expected a list of different names"),
        (["pq"], "column 'pq' is unknown"),
        ("text", "columns = 'text'; expected a list of different names"),
    ],
)
def test_unknown_columns_are_named(world: tuple[Store, dict[str, str]], columns: list[str] | str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_chunks(world[0], "c", columns=columns)


def test_a_changed_segment_is_refused_and_no_snapshot_is_found_under_another_name(
    world: tuple[Store, dict[str, str]], tmp_path: Path
) -> None:
    store, _ = world
    with pytest.raises(NotFoundError):
        read_chunks(store, "c", "staging")
    shutil.copytree(str(store.root), tmp_path / "store")
    segment = tmp_path / "store" / read_manifest(store, "c", 2).parts[0].segment.path
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.chmod(0o644)
    segment.write_bytes(data)
    with pytest.raises(IntegrityError, match="its manifest says"):
        read_chunks(str(tmp_path / "store"), "c").read_all()


def test_no_columns_of_vectors_are_read_unless_asked_for(world: tuple[Store, dict[str, str]]) -> None:
    table = read_chunks(world[0], "c", columns=["metadata", "uri"]).read_all()
    assert table.schema == pa.schema([("metadata", pa.string()), ("uri", pa.string())])
    assert set(table["metadata"].to_pylist()) == {"{}"}
