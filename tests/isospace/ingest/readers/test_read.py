from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.errors import ConfigError, SourceError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers import files as files_module
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from tests.conftest import corpora

HTML = """<html><head><title>The page</title></head><body><nav><a href="/">Home</a> <a href="/x">Other</a></nav>
<main><h1>Heading</h1><p>The first paragraph of the article has quite some words, so that it is the main part.</p>
<p>A second paragraph follows it, and it too has words that a reader would look for in a search.</p></main>
<footer>Copyright and imprint</footer></body></html>"""

PDF = b"""%PDF-1.4
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>endobj
4 0 obj<</Length 47>>stream
BT /F1 12 Tf 20 50 Td (Text inside a page) Tj ET
endstream endobj
5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj
trailer<</Root 1 0 R>>
"""


def read(url: Path | str, **spec: object) -> tuple[list[Document], list[QuarantineEntry]]:
    items = list(read_source(str(url), DocumentsSpec(**spec)))
    return [i for i in items if isinstance(i, Document)], [i for i in items if isinstance(i, QuarantineEntry)]


def test_a_folder_of_every_format(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.md").write_text("---\ntitle: From front matter\n---\n# Heading\nbody")
    (tmp_path / "b.md").write_text("# A heading\n\nbody")
    (tmp_path / "sub" / "c.rst").write_text("=====\nTitle\n=====\n\nbody")
    (tmp_path / "d.txt").write_bytes(
        "Größere Wälder wachsen über dem Fluss, schöne Häuser stehen dort. ".encode("cp1252") * 20
    )
    (tmp_path / "e.html").write_text(HTML)
    (tmp_path / "f.pdf").write_bytes(PDF)
    (tmp_path / "g.txt").write_bytes("\ufeffwith a mark\r\nand line ends\r".encode())
    (tmp_path / "ignored.bin").write_bytes(b"\x00")
    (tmp_path / ".hidden.md").write_text("hidden")
    documents, aside = read(tmp_path)
    assert not aside
    by_id = {d.doc_id: d for d in documents}
    assert list(by_id) == ["a.md", "b.md", "d.txt", "e.html", "f.pdf", "g.txt", "sub/c.rst"]
    assert [by_id[n].title for n in ("a.md", "b.md", "sub/c.rst", "d.txt")] == [
        "From front matter",
        "A heading",
        "Title",
        "d",
    ]
    assert "schöne Häuser" in by_id["d.txt"].text
    assert by_id["g.txt"].text == "with a mark\nand line ends\n"
    assert "Text inside a page" in by_id["f.pdf"].text
    page = by_id["e.html"]
    assert page.title == "Heading"
    assert "first paragraph" in page.text
    assert "imprint" not in page.text
    assert "Home" not in page.text
    everything, _ = read(tmp_path / "e.html", html="all")
    assert "imprint" in everything[0].text


def test_globs(tmp_path: Path) -> None:
    for name in ("a.md", "sub/b.md", "sub/deep/c.md", "sub/d.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")
    assert [d.doc_id for d in read(f"{tmp_path}/**/*.md")[0]] == ["a.md", "sub/b.md", "sub/deep/c.md"]
    assert [d.doc_id for d in read(f"{tmp_path}/sub/*.txt")[0]] == ["d.txt"]


def junk(folder: Path) -> None:
    """Fourteen files, none of which can become a document."""
    (folder / "empty.md").write_bytes(b"")
    (folder / "blank.txt").write_text(" \n\t \n")
    (folder / "binary.md").write_bytes(bytes(range(256)) * 40)
    (folder / "elf.txt").write_bytes(b"\x7fELF\x02\x01\x01" + b"\x00" * 400)
    (folder / "broken.pdf").write_bytes(PDF[:60] + b"\xff" * 50)
    (folder / "notapdf.pdf").write_bytes(b"hello")
    (folder / "truncated.pdf").write_bytes(b"%PDF-1.7\n")
    (folder / "line.txt").write_bytes(b"x" * 50_000_000)
    (folder / "nothing.html").write_text("<html><body></body></html>")
    (folder / "script.html").write_text("<script>var a = 1;</script>")
    (folder / "utf16.txt").write_bytes(b"\xff\xfe\x00\xd8\x00\x00" * 50)
    (folder / "table.parquet").write_bytes(b"PAR1 this is not parquet PAR1")
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "gz.txt").write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(1, 32)) * 30)


def test_junk_is_set_aside_with_a_reason_each(tmp_path: Path) -> None:
    junk(tmp_path)
    documents, aside = read(tmp_path)
    assert [d.doc_id for d in documents] == []
    assert {item.uri for item in aside} == {path.name for path in tmp_path.iterdir()}
    assert all(item.reason and "\n" not in item.reason and len(item.reason) < 300 for item in aside)


def test_deeply_nested_html_ends_in_a_document_or_the_quarantine(tmp_path: Path) -> None:
    (tmp_path / "bomb.html").write_text("<div>" * 100_000 + "deep down" + "</div>" * 100_000)
    documents, aside = read(tmp_path)
    assert len(documents) + len(aside) == 1


def test_invalid_bytes_in_rows_are_set_aside_row_by_row(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(
        b'{"doc_id": 1, "text": "good"}\n{"doc_id": 2, "text": "b\xff\xfed"}\nnot json\n[1]\n\n'
        b'{"doc_id": null, "text": "x"}\n{"doc_id": 5, "text": ["a"]}\n{"doc_id": 6, "text": ""}\n{"doc_id": "7", '
        b'"text": "last"}'
    )
    documents, aside = read(tmp_path / "t.jsonl")
    assert [d.doc_id for d in documents] == ["1", "7"]
    assert [item.uri for item in aside] == [f"t.jsonl#{n}" for n in (2, 3, 4, 6, 7, 8)]


def test_a_huge_line_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import isospace.ingest.readers.jsonl_rows as jsonl_rows

    monkeypatch.setattr(jsonl_rows, "MAX_DOCUMENT_BYTES", 3_000_000)
    lines = [json.dumps({"doc_id": "a", "text": "x"}), "y" * 9_000_000, json.dumps({"doc_id": "b", "text": "z"})]
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    documents, aside = read(tmp_path / "t.jsonl")
    assert [d.doc_id for d in documents] == ["a", "b"]
    assert "more than 3,000,000 bytes" in aside[0].reason


def test_csv(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        '\ufeffdoc_id,text,lang\n1,"two\nlines, and a ""quote""",en\n2,short\n3,fine,de\n', encoding="utf-8"
    )
    documents, aside = read(tmp_path / "t.csv", metadata_columns=("lang",))
    assert [(d.doc_id, d.text, d.metadata) for d in documents] == [
        ("1", 'two\nlines, and a "quote"', {"lang": "en"}),
        ("3", "fine", {"lang": "de"}),
    ]
    assert "different number of fields" in aside[0].reason


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1, 2, None], "a": ["x", None, "z"], "b": ["y", None, "w"]}), tmp_path / "t.parquet")
    documents, aside = read(tmp_path, format="parquet", id_column="id", text_columns=("a", "b"))
    assert [(d.doc_id, d.text) for d in documents] == [("1", "x\n\ny")]
    assert [item.reason for item in aside] == ["holds no text", "has no value in id"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_a_missing_column_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    if name.endswith("csv"):
        (tmp_path / name).write_text("id,body\n1,x\n")
    else:
        pq.write_table(pa.table({"id": [1], "body": ["x"]}), tmp_path / name)
    with pytest.raises(ConfigError, match=r"no column doc_id, text; it has id, body"):
        read(tmp_path / name)


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        read(tmp_path / "nowhere")
    (tmp_path / "a.bin").write_bytes(b"x")
    with pytest.raises(SourceError, match="1 files, none that 'auto' reads"):
        read(tmp_path)


def test_content_and_not_place_is_the_hash() -> None:
    one = Document("a", "x/a.md", "t", "text", {"b": 1, "a": 2})
    assert one.doc_hash == Document("a", "y/a.md", "t", "text", {"a": 2, "b": 1}).doc_hash
    assert one.doc_hash != Document("a", "x/a.md", "t", "text.", {"b": 1, "a": 2}).doc_hash


def test_the_limit_of_a_document_is_what_the_test_of_junk_assumes() -> None:
    assert files_module.MAX_DOCUMENT_BYTES < 50_000_000


@pytest.mark.corpora
@pytest.mark.skipif(
    corpora() is None, reason="the evaluation corpora are not beside the checkout; set ISOSPACE_CORPORA"
)
def test_real_documentation_is_read() -> None:
    folder = corpora()
    assert folder is not None
    documents, aside = read(folder / "docs-corpus")
    assert len(documents) > 500
    assert {d.metadata["format"] for d in documents} == {"html", "markdown", "text", "pdf"}
    assert all(item.reason == "holds no text" for item in aside)
    assert len(aside) < 10
