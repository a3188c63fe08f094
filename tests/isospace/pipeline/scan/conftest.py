"""A source with files of each kind, for scans that trust a listing."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import pytest

from isospace.pipeline.scan import files
from tests.helpers.runs import write_rows


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files count as settled as soon as they are written."""
    monkeypatch.setattr(files, "_SETTLED_SECONDS", -60.0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two texts, a table, a compressed table, and an archive."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.md").write_text("# A\n\ntext of a")
    (folder / "sub" / "b.txt").write_text("text of b")
    write_rows(folder / "t.jsonl", [{"doc_id": f"t{n}", "text": f"row {n}"} for n in range(5)])
    (folder / "z.csv.gz").write_bytes(gzip.compress(b"doc_id,text\nz0,zero\nz1,one\n"))
    with zipfile.ZipFile(folder / "w.zip", "w") as archive:
        archive.writestr("in.md", "text in an archive")
        archive.writestr("rows.csv", "doc_id,text\nw0,zero\n")
    return folder
