"""What is kept or repeated with every chunk of a document is small, or the document is quarantined."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.ingest.document import MAX_LABEL_CHARACTERS, Document, QuarantineEntry
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from tests.conftest import configuration
from tests.helpers.inline import embed_inline


def read(path: Path, **spec: object) -> list[Document | QuarantineEntry]:
    return list(read_source(str(path), DocumentsSpec(**spec)))


@pytest.mark.parametrize("title", ["x" * 2_001, "Ä" * 30_000, "word " * 400_000, "e\u0301" * 1_001])
def test_a_document_with_a_long_title_is_quarantined_from_every_format(tmp_path: Path, title: str) -> None:
    row = {"doc_id": "a", "text": "text", "title": title}
    (tmp_path / "t.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "t.csv").write_text(f"doc_id,text,title\na,text,{title}\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.csv", "t.parquet"):
        (found,) = read(tmp_path / name, title_column="title")
        assert isinstance(found, QuarantineEntry)
        assert found.reason.startswith(f"has a title of {len(title.strip()):,} characters; expected at most 2,000")
        # The earlier version of the document stays.
        assert found.doc_id == "a"
        assert isinstance(read(tmp_path / name)[0], Document)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.md", "# {title}\n\ntext"),
        ("b.md", "---\ntitle: {title}\n---\ntext"),
        ("c.rst", "{title}\n=====\n\ntext"),
        ("d.html", "<html><head><title>{title}</title></head><body><p>some text of a page</p></body></html>"),
    ],
)
def test_a_file_with_a_long_title_is_quarantined(tmp_path: Path, name: str, content: str) -> None:
    for size, kind in ((MAX_LABEL_CHARACTERS, Document), (MAX_LABEL_CHARACTERS + 1, QuarantineEntry)):
        (tmp_path / name).write_text(content.format(title="t" * size))
        (found,) = read(tmp_path / name)
        assert isinstance(found, kind)


@pytest.mark.parametrize("doc_id", ["x" * 2_001, "é" * 500_000, "a/" * 1_001])
def test_a_long_id_is_quarantined(tmp_path: Path, doc_id: str) -> None:
    rows = [{"doc_id": doc_id, "text": "text"}, {"doc_id": doc_id[:2_000], "text": "text"}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read(tmp_path / "t.jsonl")
    assert isinstance(first, QuarantineEntry)
    assert f"an ID of {len(doc_id):,} characters" in first.reason
    assert len(first.uri) <= MAX_LABEL_CHARACTERS
    assert isinstance(second, Document)


@pytest.mark.parametrize("size", [5_000, 100_000, 900_000])
def test_a_long_title_costs_a_run_nothing(tmp_path: Path, tiny_model: Path, size: int) -> None:
    rows = [{"doc_id": f"g{n}", "text": f"the protein of gene {n}", "title": "t"} for n in range(20)]
    rows.append({"doc_id": "long", "text": "the gene of the cell " * 2_000, "title": "x" * size})
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = {"documents": {"title_column": "title"}}
    done = embed_inline(configuration(tiny_model, tmp_path / "d.jsonl", tmp_path / "store", recipe=recipe))
    assert done.quarantined == 1
    assert done.chunks == 20
