"""Cells from the recipe to the segments: added without encoding, kept by every rewrite, checked, seen nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from isospace.collection.segments import read_cells, read_codes
from isospace.collection.snapshot import Manifest, latest_manifest
from isospace.encoding.embedder import load_space
from isospace.errors import CheckError, ConfigError, FitError
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.forget import forget
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline import preflight, segment
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import plan_only
from isospace.search.open_index import open_index
from isospace.search.read_chunks import read_chunks
from isospace.search.sql_database import serving_files
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from isospace.transform.space import Space
from isospace.transform.transform import assign_cells
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

CELLS = {"transform": {"cells": 8}}


def opened(config: PipelineConfig) -> tuple[Store, Manifest, Space]:
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    return store, manifest, load_space(store, manifest.space_id)


def segments_of(store: Store, manifest: Manifest) -> Iterator[pa.Table]:
    return (read_parquet(store, part.segment.path) for part in manifest.parts)


def require_right_cells(config: PipelineConfig, count: int = 8) -> int:
    """Assign every vector again; return their number."""
    store, manifest, space = opened(config)
    spec = next(spec for spec in space.record.spec.representations if spec.name == "float32")
    rows = 0
    for table in segments_of(store, manifest):
        vectors = read_codes(table, spec, space.record.dimension)
        assert np.array_equal(read_cells(table, count), assign_cells(space.transform, vectors))
        rows += len(vectors)
    return rows


def test_cells_are_added_to_a_collection_without_encoding(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(300)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    plain = configure(path)
    before = embed_inline(plain)
    config = configure(path, recipe=CELLS)
    plan = plan_only(config)
    assert (plan.texts_to_encode, plan.space) == (0, "fit a new one")
    added = embed_inline(config)
    assert (added.encoded, added.committed) == (0, True)
    assert added.space_id != before.space_id
    assert require_right_cells(config) == 300
    _, manifest, space = opened(config)
    assert manifest.recipe["transform"]["cells"] == {"count": 8, "seed": 0}
    figures = space.provenance["cells"]
    assert (figures["count"], set(figures)) == (8, {"count", "imbalance_before", "imbalance", "largest", "rounds"})
    assert "codes (cells)" in space.provenance["probes"]["exercised"]
    # The same recipe uses the sealed space, and new documents get cells of it.
    write_jsonl(path, documents | {"new": "a document about the quagga"})
    grown = embed_inline(config)
    assert (grown.space_id, grown.encoded) == (added.space_id, 1)
    assert require_right_cells(config) == 301
    # Without cells again, the first space is sealed with the same ID.
    write_jsonl(path, documents)
    assert embed_inline(configure(path, runtime={"refit": True})).space_id == before.space_id


def test_searches_rows_and_the_serving_database_are_what_they_are_without_cells(
    configure: Configure, tmp_path: Path
) -> None:
    documents = sentences(120)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    seen: list[Any] = []
    for recipe in ({"transform": {}}, CELLS):
        config = configure(path, recipe=recipe)
        embed_inline(config)
        store, manifest, _ = opened(config)
        target = serving_files(manifest)[0]
        assert store.root is not None
        with duckdb.connect(str(store.root / target), read_only=True) as connection:
            columns = [row[0] for row in connection.execute("DESCRIBE chunks").fetchall()]
            rows = connection.execute("SELECT chunk_id, vector FROM chunks ORDER BY chunk_id").fetchall()
        index = open_index(config.runtime.store, "c")
        hits = [[(hit.doc_id, hit.score) for hit in found] for found in index.search(["zebra", "lion"], k=5)]
        table = read_chunks(config.runtime.store, "c", columns=["chunk_id", "vector", "int8"]).read_all()
        seen.append((columns, rows, hits, table))
    assert seen[0] == seen[1]
    assert "cell" not in seen[0][0]


def test_compaction_and_deletions_carry_the_cells(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(200)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, recipe=CELLS, runtime={"part_documents": 60})
    embed_inline(config)
    for name in list(documents)[10:60]:
        del documents[name]
    write_jsonl(path, documents)
    embed_inline(config)
    store, before, _ = opened(config)
    assert len(before.parts) > 1
    compact_collection(store, "c")
    _, after, _ = opened(config)
    assert len(after.parts) < len(before.parts)
    assert require_right_cells(config) == 150
    assert verify_snapshot(store, "c").failures == ()


def test_an_erasure_carries_the_cells(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(100)), recipe=CELLS)
    embed_inline(config)
    store, before, _ = opened(config)
    forget(store, "c", ["d00005", "d00042"], tmp_path, reason="asked")
    _, after, _ = opened(config)
    assert after.space_id == before.space_id
    assert require_right_cells(config) == 98


def test_wrong_cells_are_not_committed(configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(100)), recipe=CELLS)
    monkeypatch.setattr(segment, "assign_cells", lambda transform, vectors: 7 - assign_cells(transform, vectors))
    with pytest.raises(CheckError, match="8 of 8 rows differ in cell from their raw vectors"):
        embed_inline(config)


def test_one_wrong_cell_between_the_rows_that_are_transformed_again_is_not_committed(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_off(transform, vectors):
        cells = assign_cells(transform, vectors)
        cells[1] = (cells[1] + 1) % 8
        return cells

    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(100)), recipe=CELLS)
    monkeypatch.setattr(segment, "assign_cells", one_off)
    with pytest.raises(CheckError, match="the cell of 1 rows is not that of their vectors; the first is that of chunk"):
        embed_inline(config)


def test_verify_finds_cells_that_a_manifest_vouches_for(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hashes are right: another program wrote the segment and the manifest."""
    from isospace.pipeline import checks

    def committed_wrong(transform, vectors):
        return np.zeros_like(assign_cells(transform, vectors))

    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(100)), recipe=CELLS)
    with monkeypatch.context() as patch:
        patch.setattr(segment, "assign_cells", committed_wrong)
        patch.setattr(checks, "assign_cells", committed_wrong)
        patch.setattr(checks, "wrong_cells", lambda table, space: [])
        embed_inline(config)
    store, manifest, _ = opened(config)
    found = [failure.partition(": the cell of ")[0] for failure in verify_snapshot(store, "c").failures]
    assert found == [part.segment.path for part in manifest.parts]


def test_a_sample_that_is_too_small_is_refused_by_the_plan(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(100))
    for cells, needed in (("auto", 512), (16, 128)):
        with pytest.raises(FitError, match=rf"the sample has 100 vectors, and .*cells need at least {needed}"):
            plan_only(configure(path, recipe={"transform": {"cells": cells}}))


def test_without_faiss_a_run_that_has_to_train_cells_does_not_start(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(100)), recipe=CELLS)
    find = preflight.importlib.util.find_spec
    with monkeypatch.context() as patch:
        patch.setattr(
            preflight.importlib.util, "find_spec", lambda name, *a: None if name == "faiss" else find(name, *a)
        )
        with pytest.raises(ConfigError, match=r"recipe.transform.cells: training cells needs faiss. Run: pip install"):
            plan_only(config)
    assert embed_inline(config).committed


def test_cells_are_fitted_on_more_chunks_than_the_sample_if_needed(configure: Configure, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(300))
    config = configure(path, recipe={"transform": {"cells": 16, "sample": {"size": 100, "min_ratio": 0.0}}})
    embed_inline(config)
    assert require_right_cells(config, 16) == 300
