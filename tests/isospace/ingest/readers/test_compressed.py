"""Compressed files are read as what they hold, within bounds, or named."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from isospace.errors import SourceError
from isospace.ingest.detect import detect_source
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers import compressed, files
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
ROWS = "".join(json.dumps({"doc_id": f"r{n}", "text": f"row {n}"}) + "\n" for n in range(5)).encode()


def read(url: Path, **spec: object) -> tuple[dict[str, Document], list[QuarantineEntry]]:
    items = list(read_source(str(url), DocumentsSpec(**spec)))
    return {i.doc_id: i for i in items if isinstance(i, Document)}, [i for i in items if isinstance(i, QuarantineEntry)]


def zipped(members: dict[str, bytes]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return target.getvalue()


def table() -> bytes:
    target = io.BytesIO()
    pq.write_table(pa.table({"doc_id": ["p"], "text": ["from Parquet"]}), target)
    return target.getvalue()


@pytest.mark.parametrize("suffix", [*PACK, ".GZ"])
def test_a_compressed_file_is_the_document_that_it_was(tmp_path: Path, suffix: str) -> None:
    plain = {
        "a.md": b"# A page\n\nprose",
        "t.jsonl": ROWS,
        "u.csv": b"doc_id,text\nc1,one\nc2,two\n",
        "v.parquet": table(),
    }
    for name, data in plain.items():
        (tmp_path / f"{name}").write_bytes(data)
    before, _ = read(tmp_path)
    for name, data in plain.items():
        (tmp_path / name).unlink()
        (tmp_path / f"{name}{suffix}").write_bytes(PACK[suffix.lower()](data))
    after, aside = read(tmp_path)
    assert not aside
    assert {i: d.doc_hash for i, d in after.items()} == {i: d.doc_hash for i, d in before.items()}
    assert len(after) == 9
    assert after["a.md"].uri == f"a.md{suffix}"
    assert after["r1"].uri == f"t.jsonl{suffix}#r1"


def test_files_of_several_compressed_streams_are_read_to_their_end(tmp_path: Path) -> None:
    for suffix, pack in PACK.items():
        (tmp_path / f"t{suffix[1:]}.txt{suffix}").write_bytes(pack(b"first ") + pack(b"second"))
    documents, aside = read(tmp_path)
    assert not aside
    assert {d.text for d in documents.values()} == {"first second"}


def test_the_members_of_an_archive_are_documents(tmp_path: Path) -> None:
    members = {
        "docs/a.md": b"# A page\n\nprose",
        "docs/t.jsonl": ROWS,
        "v.parquet": table(),
        "docs/.hidden.md": b"hidden",
        "__MACOSX/docs/a.md": b"not a page",
        "docs/picture.png": b"\x89PNG",
        "docs/more.zip": zipped({"b.md": b"b"}),
        "docs/c.md.gz": gzip.compress(b"c"),
    }
    (tmp_path / "pages.zip").write_bytes(zipped(members))
    documents, aside = read(tmp_path)
    assert list(documents) == ["pages.zip/docs/a.md", "r0", "r1", "r2", "r3", "r4", "p"]
    assert documents["pages.zip/docs/a.md"].uri == "pages.zip#docs/a.md"
    assert documents["pages.zip/docs/a.md"].title == "A page"
    assert documents["r0"].uri == "pages.zip#docs/t.jsonl#r0"
    assert {
        (item.uri.removeprefix("pages.zip#docs/"), item.reason.split(",")[0], item.documents) for item in aside
    } == {
        ("more.zip", "is an archive within an archive", 0),
        ("c.md.gz", "is a compressed file (.gz) within an archive", 0),
    }


def test_what_is_not_opened_is_named(tmp_path: Path) -> None:
    names = ["a.tar", "b.tar.gz", "c.tgz", "d.7z", "e.rar", "f.md.br", "g.txt.gz.gz", "h.zip.gz", "i.jsonl.lz4"]
    for name in [*names, "logo.svg.gz", "data.bin.br", "movie.mp4"]:
        (tmp_path / name).write_bytes(b"content")
    (tmp_path / "pictures.zip").write_bytes(zipped({"a.png": b"x"}))
    (tmp_path / "z.md").write_text("prose")
    documents, aside = read(tmp_path)
    assert list(documents) == ["z.md"]
    assert {item.uri for item in aside} == {*names, "pictures.zip"}
    # They are no documents that a limit should count.
    assert {item.documents for item in aside} == {0}


def test_a_compressed_copy_beside_its_plain_file_is_named_once(tmp_path: Path) -> None:
    for name in ("a.rst", "b.md", "c.txt"):
        (tmp_path / name).write_text("some words of a page")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(b"some words of a page"))
    documents, aside = read(tmp_path)
    assert list(documents) == ["a.rst", "b.md", "c.txt"]
    (entry,) = aside
    assert (entry.uri, entry.documents) == ("a.rst.gz", 0)
    assert "plain file beside it, which is read instead, as are 2 more" in entry.reason


@pytest.mark.parametrize("suffix", list(PACK))
def test_broken_data_are_a_reason(tmp_path: Path, suffix: str) -> None:
    rows = b"".join(json.dumps({"doc_id": str(n), "text": f"{n * n:x} " * 9}).encode() + b"\n" for n in range(9_000))
    (tmp_path / f"cut.jsonl{suffix}").write_bytes(PACK[suffix](rows)[:-20])
    (tmp_path / f"junk.md{suffix}").write_bytes(b"not compressed at all")
    (tmp_path / "z.md").write_text("prose")
    documents, aside = read(tmp_path)
    assert "z.md" in documents
    by_uri = {item.uri: item for item in aside}
    assert set(by_uri) == {f"cut.jsonl{suffix}", f"junk.md{suffix}"}
    assert by_uri[f"cut.jsonl{suffix}"].within == f"cut.jsonl{suffix}"
    # The earlier version of the document stays.
    assert by_uri[f"junk.md{suffix}"].doc_id == "junk.md"
    assert all(item.reason.startswith("cannot be read: ") for item in aside)


def test_a_broken_archive_keeps_what_it_gave_before(tmp_path: Path) -> None:
    whole = zipped({"a.md": b"prose " * 100, "b.md": b"more"})
    (tmp_path / "cut.zip").write_bytes(whole[:-30])
    (tmp_path / "z.md").write_text("prose")
    _, (entry,) = read(tmp_path)
    assert (entry.uri, entry.within) == ("cut.zip", "cut.zip")
    assert entry.reason.startswith("cannot be opened as a ZIP archive")
    damaged = bytearray(whole)
    damaged[40:44] = b"\xff\xff\xff\xff"
    (tmp_path / "cut.zip").write_bytes(damaged)
    documents, (entry,) = read(tmp_path)
    assert list(documents) == ["cut.zip/b.md", "z.md"]
    assert (entry.uri, entry.doc_id) == ("cut.zip#a.md", "cut.zip/a.md")


def test_an_encrypted_member_is_a_reason(tmp_path: Path) -> None:
    data = bytearray(zipped({"a.md": b"prose", "b.md": b"prose"}))
    # The flag of encryption, in the directory at the end of the archive.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    documents, (entry,) = read(tmp_path)
    assert list(documents) == ["a.zip/b.md"]
    assert entry.reason == "cannot be read: it is encrypted; put an unencrypted copy there"


@pytest.mark.parametrize("suffix", [*PACK, ".zip"])
def test_a_bomb_costs_little(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "FREE_BYTES", 3_000_000)
    monkeypatch.setattr(files, "MAX_DOCUMENT_BYTES", 1_000_000)
    # So regular that it shrinks to a thousandth.
    rows = b'{"doc_id": "1", "text": "' + b"x" * 30_000 + b'"}\n'
    rows *= 400
    for name, data in (("rows.jsonl", rows), ("page.md", rows)):
        packed = zipped({name: data}) if suffix == ".zip" else PACK[suffix](data)
        assert len(packed) * compressed.MAX_RATIO < len(data)
        (tmp_path / f"{name}{suffix}").write_bytes(packed)
    (tmp_path / "z.md").write_text("prose")
    documents, aside = read(tmp_path)
    assert "z.md" in documents
    reasons = {item.uri: item.reason for item in aside}
    assert "expands to" in reasons[f"rows.jsonl{suffix}"]
    assert "unpack it" in reasons[f"rows.jsonl{suffix}"].lower()
    assert "expands to" in reasons[f"page.md{suffix}"]


def test_ordinary_tables_stay_below_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compressed, "FREE_BYTES", 0)
    rows = "".join(json.dumps({"doc_id": str(n), "text": "the same words again " * 5}) + "\n" for n in range(5_000))
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    documents, aside = read(tmp_path)
    assert len(documents) == 5_000
    assert not aside


def test_a_source_of_compressed_files_alone_is_detected(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.zst").write_bytes(zstd(ROWS))
    assert (detect_source(str(tmp_path)).format, detect_source(str(tmp_path)).id_column) == ("jsonl", "doc_id")
    (tmp_path / "t.jsonl.zst").unlink()
    (tmp_path / "v.parquet.gz").write_bytes(gzip.compress(table()))
    assert detect_source(str(tmp_path)).text_columns == ("text",)
    (tmp_path / "v.parquet.gz").unlink()
    (tmp_path / "t.zip").write_bytes(zipped({"u.csv": b"id,body\n1,prose\n2,more\n"}))
    assert (detect_source(str(tmp_path)).format, detect_source(str(tmp_path)).id_column) == ("csv", "id")
    (tmp_path / "t.zip").unlink()
    (tmp_path / "t.csv.gz").write_bytes(b"junk")
    with pytest.raises(SourceError, match="cannot be read"):
        detect_source(str(tmp_path))


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"c" * 64 + b"\nsize 90405\n"


@pytest.mark.parametrize(
    "name", ["a.zip", "a.md.gz", "t.jsonl.gz", "t.csv.zst", "t.parquet.xz", "t.parquet", "t.jsonl"]
)
def test_a_pointer_is_one_input_that_git_lfs_can_fetch(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.zip").write_bytes(zipped({f"{n}.md": b"a page" for n in range(90)}))
    (tmp_path / "z.jsonl").write_bytes(ROWS)
    (tmp_path / name).write_bytes(LFS)
    _, (entry,) = read(tmp_path)
    assert entry.reason == "is a pointer of Git LFS to a file of 90,405 bytes that was not fetched; run `git lfs pull`"
    assert (entry.documents, entry.is_estimate) == (1, False)
    # Documents of earlier runs stay.
    assert entry.doc_id == "a.md" if name == "a.md.gz" else entry.within == name


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_last_of_several_members_with_one_name_is_read_and_named(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, data in [("a.md", "old"), ("b.md", "b"), ("a.md", "older"), ("t.jsonl", ROWS), ("a.md", "new")]:
            archive.writestr(name, data)
    (tmp_path / "p.zip").write_bytes(target.getvalue())
    documents, (entry,) = read(tmp_path)
    assert list(documents) == ["p.zip/a.md", "p.zip/b.md", *(f"r{n}" for n in range(5))]
    assert documents["p.zip/a.md"].text == "new"
    assert (entry.uri, entry.documents) == ("p.zip#a.md", 0)
    assert entry.reason == "is the name of 3 members of its archive, of which only the last one is read"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a.txt.gz.gz", "is compressed twice (.gz within), which is not read; expand it once"),
        ("a.csv.br.gz", "is compressed twice (.br within), which is not read; expand it once"),
        ("a.txt.gz.bz2.xz", "is compressed twice (.bz2 within), which is not read; expand it once"),
        ("a.zip.gz", "is an archive (.zip) that is compressed again, which is not opened; expand it once"),
        ("notes.gz", "is compressed (.gz), and its name does not say what it holds; call it such as name.txt.gz"),
        ("a.jsonl.lz4", "is compressed (.lz4) in a way that is not read; expand it, or use .gz or .zst"),
        ("a.tar.gz", "is an archive (.tar), which is not opened; unpack it, or pack it as .zip"),
    ],
)
def test_what_is_not_opened_is_named_with_what_it_is(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / name).write_bytes(b"content")
    (tmp_path / "z.md").write_text("prose")
    _, (entry,) = read(tmp_path)
    assert (entry.uri, entry.reason, entry.documents) == (name, reason, 0)


@pytest.mark.parametrize("name", ["../x.md", "docs/../../x.md", "..\\x.md"])
def test_a_member_that_leads_out_of_its_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "p.zip").write_bytes(zipped({name: b"x", "y.md": b"y"}))
    documents, (entry,) = read(tmp_path)
    assert list(documents) == ["p.zip/y.md"]
    assert (entry.uri, entry.documents) == (f"p.zip#{name}", 0)
    assert entry.reason == "has .. in its path, which can lead out of its archive; pack it with another path"
