"""What is kept or repeated with every chunk of a document is small, or the document is quarantined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.ingest.document import (
    MAX_LABEL_CHARACTERS,
    MAX_METADATA_CHARACTERS,
    MAX_METADATA_DEPTH,
    Document,
    QuarantineEntry,
    nests_deeper,
    within_bounds,
)
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from tests.conftest import configuration
from tests.helpers.inline import embed_inline


def nested(depth: int, *, in_objects: bool = False) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if in_objects else [value]
    return value


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


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (nested(33), "has metadata 'm' nested more than 32 deep"),
        (nested(280), "nested more than 32 deep"),
        (nested(500, in_objects=True), "nested more than 32 deep"),
        ([{"a": [1, 2]}, nested(40)], "nested more than 32 deep"),
        ("x" * 100_000, "has metadata of 100,009 characters as JSON; expected at most 100,000"),
        (list(range(50_000)), "characters as JSON"),
        ({str(n): n for n in range(20_000)}, "characters as JSON"),
    ],
)
def test_metadata_that_are_deep_or_large_quarantine_their_document(tmp_path: Path, value: Any, reason: str) -> None:
    rows = [{"doc_id": "a", "text": "text", "m": value}, {"doc_id": "b", "text": "text", "m": nested(32)}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, second = read(tmp_path / "t.jsonl", metadata_columns=("m",))
    assert isinstance(first, QuarantineEntry)
    assert reason in first.reason
    assert first.doc_id == "a"
    assert isinstance(second, Document)


def test_lists_of_parquet_nest_as_those_of_json_do(tmp_path: Path) -> None:
    for depth, kind in ((MAX_METADATA_DEPTH, Document), (MAX_METADATA_DEPTH + 1, QuarantineEntry)):
        table = pa.table({"doc_id": ["a"], "text": ["text"], "m": [nested(depth)]})
        pq.write_table(table, tmp_path / "t.parquet")
        (found,) = read(tmp_path / "t.parquet", metadata_columns=("m",))
        assert isinstance(found, kind)


def test_depth_is_that_of_lists_and_objects() -> None:
    assert not nests_deeper("text", 0)
    assert nests_deeper([], 0)
    for depth in (1, 2, 30):
        for in_objects in (False, True):
            value = nested(depth, in_objects=in_objects)
            assert nests_deeper(value, depth - 1)
            assert not nests_deeper(value, depth)


def test_at_the_bounds_a_document_is_what_it_was() -> None:
    metadata: dict[str, object] = {"m": nested(MAX_METADATA_DEPTH), "n": ""}
    metadata["n"] = "x" * (MAX_METADATA_CHARACTERS - len(Document("d", "u", "t", "x", metadata).metadata_json))
    document = Document("d" * MAX_LABEL_CHARACTERS, "u", "t" * MAX_LABEL_CHARACTERS, "text", metadata)
    assert within_bounds(document) is document
    ordinary = Document("a", "t.jsonl#a", "A title", "text", {"lang": "en", "year": 2020})
    assert within_bounds(ordinary) is ordinary


@pytest.mark.parametrize("size", [5_000, 100_000, 900_000])
def test_a_long_title_costs_a_run_nothing(tmp_path: Path, tiny_model: Path, size: int) -> None:
    rows = [{"doc_id": f"g{n}", "text": f"the protein of gene {n}", "title": "t"} for n in range(20)]
    rows.append({"doc_id": "long", "text": "the gene of the cell " * 2_000, "title": "x" * size})
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = {"documents": {"title_column": "title"}}
    done = embed_inline(configuration(tiny_model, tmp_path / "d.jsonl", tmp_path / "store", recipe=recipe))
    assert done.quarantined == 1
    assert done.chunks == 20


def test_a_number_that_python_does_not_write_quarantines_its_document() -> None:
    found = within_bounds(Document("d", "d", "", "prose", {"n": [16**5_000]}))
    assert isinstance(found, QuarantineEntry)
    assert "that JSON cannot hold" in found.reason
