from __future__ import annotations

import os
import time
from pathlib import Path

import faiss as library
import numpy as np
import pytest

from isospace.errors import ConfigError, IntegrityError
from isospace.operations.export.export import check_target, export_snapshot, exported_space
from isospace.search.index import Index
from tests.isospace.operations.export.conftest import Target


def test_the_index_holds_the_stored_vectors_in_the_order_of_the_rows(
    index: Index, faiss: Target, tmp_path: Path
) -> None:
    export_snapshot(index, faiss.url)
    opened = library.read_index(str(tmp_path / "export" / "index.faiss"))
    assert opened.metric_type == library.METRIC_INNER_PRODUCT
    assert np.array_equal(opened.reconstruct_n(0, opened.ntotal), index.vectors)
    assert {path.name for path in tmp_path.glob("**/*")} >= {"index.faiss", "rows.parquet", "isospace.json"}


@pytest.mark.parametrize("name", ["index.faiss", "rows.parquet", "isospace.json"])
def test_a_changed_byte_is_named(index: Index, faiss: Target, tmp_path: Path, name: str) -> None:
    export_snapshot(index, faiss.url)
    path = tmp_path / "export" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=name):
        check_target(faiss.url)


def test_a_missing_file_is_named(index: Index, faiss: Target, tmp_path: Path) -> None:
    export_snapshot(index, faiss.url)
    (tmp_path / "export" / "rows.parquet").unlink()
    with pytest.raises(IntegrityError, match=r"rows\.parquet.*missing"):
        check_target(faiss.url)


def test_what_lies_beside_an_export_is_not_removed_with_it(index: Index, faiss: Target, tmp_path: Path) -> None:
    export_snapshot(index, faiss.url)
    (tmp_path / "export" / "ivf.faiss").write_text("built from it by hand")
    with pytest.raises(ConfigError, match=r"ivf\.faiss"):
        export_snapshot(index, faiss.url, replace=True)
    assert exported_space(faiss.url) == index.manifest.space_id


def test_what_a_dead_export_left_is_removed_after_a_day(index: Index, faiss: Target, tmp_path: Path) -> None:
    old, young = tmp_path / ".export.making-1", tmp_path / ".export.making-2"
    for folder, age in ((old, 2 * 86_400), (young, 60)):
        folder.mkdir()
        os.utime(folder, (time.time() - age,) * 2)
    export_snapshot(index, faiss.url)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".export.making-2", "export"]


def test_an_empty_folder_is_free(index: Index, faiss: Target, tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    export_snapshot(index, faiss.url)
    check_target(faiss.url)
