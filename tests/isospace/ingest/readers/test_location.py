"""Which files a source has, and what is left out of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isospace.errors import SourceError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.readers.location import list_source
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"text of {name}")
    return folder


def listed(url: Path | str, store: str | None = None) -> tuple[list[str], dict[str, str]]:
    listing = list_source(str(url), store=store)
    return [file.name for file in listing.files], {entry.uri: entry.reason for entry in listing.left_out}


def read(url: Path, **spec: object) -> tuple[dict[str, Document], list[QuarantineEntry]]:
    items = list(read_source(str(url), DocumentsSpec(**spec)))
    return {i.doc_id: i for i in items if isinstance(i, Document)}, [i for i in items if isinstance(i, QuarantineEntry)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.md", ["a.md"]),
        ("*/*.md", ["x/b.md"]),
        ("*/*/*.md", ["x/y/c.md"]),
        ("**/*.md", ["a.md", "x/b.md", "x/y/c.md"]),
        ("x/**/*.md", ["b.md", "y/c.md"]),
        ("x/**", ["b.md", "d.txt", "y/c.md"]),
        ("*", ["a.md"]),
        ("[ab].md", ["a.md"]),
        ("?.md", ["a.md"]),
        ("**/y/*.md", ["x/y/c.md"]),
        ("x/*.txt", ["d.txt"]),
    ],
)
def test_a_star_does_not_cross_a_slash(tmp_path: Path, pattern: str, names: list[str]) -> None:
    write(tmp_path, "a.md", "x/b.md", "x/y/c.md", "x/d.txt")
    assert listed(f"{tmp_path}/{pattern}")[0] == names


def test_a_glob_without_meaning_is_refused_with_what_to_write(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    with pytest.raises(SourceError, match=r"\*\*/ for any folders, as in docs/\*\*/\*\.md"):
        listed(f"{tmp_path}/**.md")


def test_a_link_to_a_folder_of_the_source_is_followed(tmp_path: Path) -> None:
    source = write(tmp_path, "shared/a.md", ".hidden/b.md", "manual/c.md")
    (source / "manual" / "chapters").symlink_to("../shared")
    (source / "notes").symlink_to(".hidden")
    names, aside = listed(source)
    assert names == ["manual/c.md", "manual/chapters/a.md", "notes/b.md", "shared/a.md"]
    assert not aside
    assert read(source)[0]["manual/chapters/a.md"].text == "text of shared/a.md"
    assert listed(f"{source}/manual/**/*.md")[1].keys() == {"chapters/"}


def test_links_in_circles_end_and_are_named(tmp_path: Path) -> None:
    source = write(tmp_path, "a/x.md", "b/y.md")
    (source / "a" / "up").symlink_to("..")
    (source / "a" / "self").symlink_to(".")
    (source / "a" / "other").symlink_to("../b")
    (source / "b" / "other").symlink_to("../a")
    names, aside = listed(source)
    assert names == ["a/other/y.md", "a/x.md", "b/other/x.md", "b/y.md"]
    assert aside["a/up/"] == aside["a/self/"] == "is a link to a folder that holds it; it was not followed"
    assert "is a link within a linked folder" in aside["b/other/self/"] + aside["a/other/other/"]
    assert all(entry.documents == 0 for entry in list_source(str(source)).left_out)


def test_many_links_among_folders_do_not_multiply(tmp_path: Path) -> None:
    source = write(tmp_path, *(f"{n}/x.md" for n in range(12)))
    for n in range(12):
        for m in range(12):
            (source / str(n) / f"to{m}").symlink_to(f"../{m}")
    assert len(listed(source)[0]) == 12 + 12 * 11


def test_a_link_out_of_the_source_is_set_aside(tmp_path: Path) -> None:
    source = write(tmp_path, "source/a.md", "elsewhere/secret.md") / "source"
    (source / "more").symlink_to("../elsewhere")
    (source / "whole").symlink_to(tmp_path)
    names, aside = listed(source)
    assert names == ["a.md"]
    assert aside.keys() == {"more/", "whole/"}
    assert all("is a link to a folder outside the source" in reason for reason in aside.values())


@pytest.mark.parametrize("place", ["store", "x/y/store", "linked"])
def test_the_store_of_the_run_is_left_out(tmp_path: Path, place: str) -> None:
    source = write(tmp_path, "source/a.md", "source/x/b.md", "source/encoders/c.md") / "source"
    if place == "linked":
        write(source, "real/encoders/e/README.md")
        (source / "linked").symlink_to("real")
    else:
        write(source, f"{place}/encoders/e/vocab.txt", f"{place}/reports/r/report.html")
    names, aside = listed(source, store=str(source / place))
    assert names == ["a.md", "encoders/c.md", "x/b.md"]
    assert all("is the store of this run" in reason for reason in aside.values())
    assert f"{place}/" in aside
    # Another store elsewhere leaves out nothing.
    assert not listed(source, store=str(tmp_path / "elsewhere"))[1]


def test_a_source_that_is_the_store_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.md")
    for url in (str(tmp_path), f"{tmp_path}/*.md", f"file://{tmp_path}"):
        with pytest.raises(SourceError, match="is the store itself"):
            listed(url, store=str(tmp_path))


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "c" * 64 + "\nsize 90405\n"
POINTERS = [
    LFS,
    LFS.replace("\n", "\r\n"),
    LFS.replace("oid", "ext-0-foo sha256:" + "d" * 64 + "\noid"),
    LFS.replace("https://git-lfs.github.com", "https://hawser.github.com"),
    "/annex/objects/SHA256E-s90405--" + "c" * 64 + ".md\n",
    "../.git/annex/objects/Xx/1z/MD5E-s9--c/MD5E-s9--c.md",
]


@pytest.mark.parametrize("pointer", POINTERS)
@pytest.mark.parametrize("name", ["a.md", "a.html", "a.pdf", "a.txt", "a.rst"])
def test_a_pointer_is_set_aside_with_the_command_that_fetches_its_file(tmp_path: Path, pointer: str, name: str) -> None:
    (tmp_path / name).write_bytes(pointer.encode())
    documents, (entry,) = read(tmp_path)
    assert not documents
    # The earlier version stays.
    assert entry.doc_id == name
    assert "run `git lfs pull`" in entry.reason or "run `git annex get`" in entry.reason


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet"])
def test_a_pointer_in_place_of_a_table_stands_for_its_rows(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LFS)
    (tmp_path / "z.md").write_text("prose")
    documents, (entry,) = read(tmp_path)
    assert list(documents) == ["z.md"]
    assert (entry.uri, entry.within) == (name, name)
    assert entry.reason == "is a pointer of Git LFS to a file of 90,405 bytes that was not fetched; run `git lfs pull`"


@pytest.mark.parametrize(
    "text", [LFS + "\n" + "prose " * 200, "# Git LFS\n\n" + LFS, "/annex/objects/ is a folder of git"]
)
def test_text_about_pointers_is_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.md").write_text(text)
    assert read(tmp_path)[0]["a.md"].text == text


def test_a_title_alone_is_a_document(tmp_path: Path) -> None:
    rows = [{"doc_id": str(n), "title": " Tide  tables ", "text": text} for n, text in enumerate(["", " \n\t", None])]
    rows.append({"doc_id": "none", "title": "", "text": ""})
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "u.csv").write_text("doc_id,title,text\nc,Tide tables,\n")
    (tmp_path / "a.md").write_text("---\ntitle: Tide tables\n---\n\n")
    (tmp_path / "b.html").write_text("<html><head><title>Tide tables</title></head><body></body></html>")
    (tmp_path / "name only.md").write_text(" \n")
    documents, aside = read(tmp_path, title_column="title")
    assert {i: (d.title, d.text) for i, d in documents.items()} == dict.fromkeys(
        ["0", "1", "2", "c", "a.md", "b.html"], ("Tide tables", "Tide tables")
    )
    assert {(entry.uri, entry.reason) for entry in aside} == {
        ("t.jsonl#4", "holds no text"),
        ("name only.md", "holds no text"),
    }
