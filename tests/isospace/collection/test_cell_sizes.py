"""How evenly cells divide a snapshot: deleted documents do not count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isospace.collection.cell_sizes import measure_cells
from isospace.collection.segments import read_cells
from isospace.collection.snapshot import latest_manifest
from isospace.errors import IntegrityError
from isospace.storage.parquet import read_parquet
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


def test_figures_are_those_of_the_live_rows_and_the_manifest_records_them(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(120)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, recipe={"transform": {"cells": 8}}, runtime={"part_documents": 50})
    embed_inline(config)
    gone = {name: documents.pop(name) for name in list(documents)[::4]}
    write_jsonl(path, documents)
    embed_inline(config)
    store = open_store(config.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    assert manifest.deletions is not None
    sizes = np.zeros(8, np.int64)
    for part in manifest.parts:
        table = read_parquet(store, part.segment.path)
        for doc_id, cell in zip(table["doc_id"].to_pylist(), read_cells(table, 8).tolist(), strict=True):
            sizes[cell] += doc_id not in gone
    measured = measure_cells(store, manifest.parts, manifest.deletions, 8)
    assert (measured.count, measured.vectors) == (8, 90)
    assert measured.imbalance == pytest.approx(8 * (sizes**2).sum() / 90**2)
    assert measured.largest_share == sizes.max() / 90
    assert manifest.provenance["cells"] == measured.model_dump()
    with pytest.raises(IntegrityError, match="the space has 1 cells"):
        measure_cells(store, manifest.parts, manifest.deletions, 1)


def test_a_snapshot_without_cells_records_none(configure: Configure, tmp_path: Path) -> None:
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(30)))
    embed_inline(config)
    manifest = latest_manifest(open_store(config.runtime.store), "c")
    assert manifest is not None
    assert "cells" not in manifest.provenance


def test_no_vectors_give_no_share(tmp_path: Path) -> None:
    measured = measure_cells(open_store(str(tmp_path)), (), None, 16)
    assert (measured.vectors, measured.imbalance, measured.largest_share) == (0, 0.0, 0.0)
