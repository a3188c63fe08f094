"""A scan that trusts the listing of the run before finds what one that reads everything finds."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isospace.collection.tombstones import write_tombstone
from isospace.ingest.readers import location
from isospace.pipeline.scan import files, stage
from isospace.storage.store import open_store
from tests.helpers.runs import write_rows
from tests.helpers.trusting_scans import begun, committed, compared, listed, scanned

pytestmark = pytest.mark.usefixtures("settled")


def test_nothing_is_read_if_nothing_changed(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = begun(tmp_path)
    assert listed(tmp_path, base) == {"a.md", "sub/b.txt", "t.jsonl", "z.csv.gz", "w.zip"}
    monkeypatch.setattr(location, "_open_within", None)
    _, scan = scanned(tmp_path, base)
    assert (scan.unread, scan.unchanged, scan.documents, scan.documents_digest) == (5, 11, 11, base.documents_digest)
    assert (scan.parts, scan.deletions, len(scan.kept)) == ((), None, len(base.parts))


@pytest.mark.parametrize(
    ("change", "unread"),
    [
        (lambda s: (s / "a.md").write_text("# A\n\ntext of A"), 4),
        (lambda s: (s / "a.md").write_text("# A\n\nlonger text of a"), 4),
        (lambda s: (s / "new.md").write_text("new"), 5),
        (lambda s: (s / "a.md").unlink(), 4),
        (lambda s: (s / "t.jsonl").rename(s / "u.jsonl"), 4),
        (lambda s: (s / "sub" / "b.txt").rename(s / "b.txt"), 4),
        (lambda s: (s / "t.jsonl").write_text('{"doc_id": "t0", "text": "row 0"}\nbroken\n'), 4),
        (lambda s: (s / "z.csv.gz").write_bytes(b"not compressed"), 4),
        (lambda s: (s / "w.zip").write_bytes(b"no archive"), 4),
        (lambda s: (s / "a.md").write_bytes(b""), 4),
        (lambda s: (s / "a.md").chmod(0o644) or (s / "a.md").touch(), 4),
        (lambda s: (s / "a.md.gz").write_bytes(gzip.compress(b"a copy")), 5),
        (lambda s: shutil.rmtree(s / "sub"), 4),
    ],
)
def test_what_changed_is_read_and_the_rest_is_not(
    tmp_path: Path, source: Path, change: Callable[[Path], object], unread: int
) -> None:
    base = begun(tmp_path)
    change(source)
    assert compared(tmp_path, base).unread == unread


def test_a_file_that_was_written_back_with_its_old_time_is_read(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    before = (source / "a.md").stat()
    (source / "a.md").write_text("# A\n\ntext of X")
    os.utime(source / "a.md", ns=(before.st_atime_ns, before.st_mtime_ns))
    scan = compared(tmp_path, base)
    assert (scan.changed, scan.unread) == (1, 4)


@pytest.mark.parametrize(("age", "is_listed"), [(2.9, False), (3.1, True)])
def test_a_file_that_changed_just_before_it_was_listed_is_not_trusted(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, age: float, is_listed: bool
) -> None:
    monkeypatch.setattr(files, "_SETTLED_SECONDS", 3.0)
    last = max(max(p.stat().st_mtime, p.stat().st_ctime) for p in source.rglob("*"))
    monkeypatch.setattr(stage.time, "time", lambda: last + age)
    assert ("w.zip" in listed(tmp_path, begun(tmp_path))) == is_listed


def test_a_source_without_stamps_is_read_each_time(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = location._local_file
    monkeypatch.setattr(location, "_local_file", lambda *args: replace(original(*args), stamp=""))
    base = begun(tmp_path)
    assert listed(tmp_path, base) == set()
    assert compared(tmp_path, base).unread == 0


@pytest.mark.parametrize(
    "content",
    [
        '{"doc_id": "t0", "text": "row 0"}\nbroken\n',
        '{"doc_id": "t0", "text": "row 0"}\n{"doc_id": "t0", "text": "again"}\n',
        '{"doc_id": "t0", "text": "row 0"}\n{"doc_id": "a.md", "text": "the ID of a file before"}\n',
        '{"doc_id": "t0", "text": "row 0"}\n{"doc_id": "t1", "text": 5}\n',
    ],
)
def test_a_file_with_an_input_that_cannot_be_used_is_read_again(tmp_path: Path, source: Path, content: str) -> None:
    (source / "t.jsonl").write_text(content)
    base = begun(tmp_path)
    assert listed(tmp_path, base) == {"a.md", "sub/b.txt", "z.csv.gz", "w.zip"}
    scan = compared(tmp_path, base)
    assert (scan.quarantined, scan.unread) == (1, 4)


def test_the_size_of_unread_files_counts_where_a_table_cannot_be_read(tmp_path: Path, source: Path) -> None:
    write_rows(source / "t.jsonl", [{"doc_id": f"t{n}", "text": "word " * 20} for n in range(50)])
    (source / "z.csv.gz").unlink()
    base = begun(tmp_path)
    (source / "broken.csv.gz").write_bytes(gzip.compress(b"doc_id,text\n" + os.urandom(3000).hex().encode())[:2000])
    scan = compared(tmp_path, base)
    assert scan.unread == 4
    assert scan.unreadable > 1


@pytest.mark.parametrize("name", ["0.jsonl", "x.jsonl"])
def test_of_two_documents_with_one_id_the_first_counts_whether_or_not_it_was_read(
    tmp_path: Path, source: Path, name: str
) -> None:
    base = begun(tmp_path)
    write_rows(source / name, [{"doc_id": "t3", "text": "another row"}, {"doc_id": "n", "text": "new"}])
    scan = compared(tmp_path, base)
    assert (scan.quarantined, scan.added) == (1, 1)
    assert scan.changed == (name == "0.jsonl")
    run, scan = scanned(tmp_path, base)
    after = committed(run, scan)
    # Neither the file with the repeated ID nor the one that lost its document is trusted.
    whole = name if name == "0.jsonl" else "t.jsonl"
    assert listed(tmp_path, after) == {"a.md", "sub/b.txt", "z.csv.gz", "w.zip", whole}
    (source / name).unlink()
    back = compared(tmp_path, after)
    assert (back.changed, back.removed) == (name == "0.jsonl", 1)


def test_files_whose_names_could_be_parts_of_others_are_read(tmp_path: Path, source: Path) -> None:
    write_rows(source / "v.csv", [])
    (source / "v.csv").write_text("doc_id,text\nb.md,row\n")
    (source / "v.csv#c.md").write_text("text of c")
    base = begun(tmp_path)
    assert listed(tmp_path, base) == {"a.md", "sub/b.txt", "t.jsonl", "z.csv.gz", "w.zip"}
    assert compared(tmp_path, base).unread == 5
    (source / "v.csv#c.md").write_text("text of d")
    assert compared(tmp_path, base).changed == 1


@pytest.mark.parametrize(
    "options",
    [
        {"recipe": {"documents": {"html": "all"}}},
        {"recipe": {"documents": {"include": ["*.md", "*.txt", "*.rst"]}}},
        {"recipe": {"documents": {"title_column": "doc_id"}}},
        {"recipe": {"chunking": {"include_headings": True}}},
        {"parse_seconds": 61.0},
        {"parse_megabytes": 2_049},
        {"refused": {"f" * 64: "is refused"}},
        {"selection": {"uri": "*.md"}},
        {"selection": {"order_by": "doc_id"}, "recipe": {"documents": {"metadata_columns": ["doc_id"]}}},
        {"run": {"damaged": ("chunks/x",), "rebuild": True}},
        {"run": {"rebuild": True}},
    ],
)
def test_everything_is_read_where_more_than_files_may_have_changed(
    tmp_path: Path, source: Path, options: dict[str, Any]
) -> None:
    base = begun(tmp_path)
    assert compared(tmp_path, base, **options).unread == 0


def test_an_order_of_documents_needs_their_metadata(tmp_path: Path, source: Path) -> None:
    recipe = {"documents": {"metadata_columns": ["text"]}}
    base = begun(tmp_path, recipe=recipe)
    assert compared(tmp_path, base, recipe=recipe).unread == 5
    assert compared(tmp_path, base, recipe=recipe, selection={"order_by": "text"}).unread == 0


@pytest.mark.parametrize("changed", ["_code", "_versions"])
def test_another_parser_reads_everything(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    base = begun(tmp_path)
    monkeypatch.setattr(f"isospace.pipeline.scan.reading.{changed}", lambda: "another")
    assert compared(tmp_path, base).unread == 0


def test_types_of_metadata_change_no_document(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    assert compared(tmp_path, base, recipe={"documents": {"metadata_types": {"year": "integer"}}}).unread == 5


def test_another_source_with_the_same_files_is_read(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    source.rename(tmp_path / "moved")
    assert compared(tmp_path, base, source=str(tmp_path / "moved")).unread == 0


def test_documents_are_forgotten_and_allowed_whether_or_not_files_changed(tmp_path: Path, source: Path) -> None:
    base = begun(tmp_path)
    store = open_store(str(tmp_path / "store"))
    write_tombstone(store, "c", "forget", ("a.md", "t1"), "asked for")
    gone = compared(tmp_path, base)
    assert (gone.unread, gone.forgotten, gone.removed) == (0, 2, 2)
    after = committed(*scanned(tmp_path, base))
    # The file is the document, so its name is not kept; a table is trusted without its row.
    assert listed(tmp_path, after) == {"sub/b.txt", "t.jsonl", "z.csv.gz", "w.zip"}
    again = compared(tmp_path, after)
    assert (again.unread, again.forgotten) == (4, 2)
    write_tombstone(store, "c", "allow", ("a.md", "t1"), "asked for")
    assert compared(tmp_path, after).added == 2


def test_notes_on_documents_are_those_of_a_run_that_reads_them(tmp_path: Path, source: Path) -> None:
    picture = "x" * 3000
    for n in range(5):
        (source / f"p{n}.txt").write_text(f"text {n} data:image/png;base64,{picture * (n + 1)} more")
    base = begun(tmp_path)
    (source / "p2.txt").write_text("no picture")
    (source / "p9.txt").write_text(f"text 9 data:image/png;base64,{picture * 9} more")
    scan = compared(tmp_path, base)
    assert scan.unread == 9
    assert [(note.documents, len(note.examples)) for note in scan.notes if not note.kind.startswith("files")] == [
        (5, 3)
    ]


def _edit(chance: random.Random, source: Path) -> None:
    """Change something in a source at random."""
    paths = sorted(p for p in source.rglob("*") if p.is_file())
    chosen = chance.choice(paths)
    ids = [f"t{chance.randrange(6)}" for _ in range(chance.randrange(1, 4))]
    match chance.randrange(8):
        case 0:
            chosen.write_bytes(chosen.read_bytes() + b" ")
        case 1 if len(paths) > 3:
            chosen.unlink()
        case 2 if not (chosen.parent / f"r{chosen.name}").exists():
            chosen.rename(chosen.parent / f"r{chosen.name}")
        case 3:
            (source / f"n{chance.randrange(9)}.md").write_text(f"text {chance.random()}")
        case 4:
            rows = [json.dumps({"doc_id": one, "text": f"row {chance.randrange(3)}"}) for one in ids]
            rows += ["broken"] * chance.randrange(2)
            (source / f"n{chance.randrange(9)}.jsonl").write_text("\n".join(rows))
        case 5:
            data = gzip.compress(b"doc_id,text\n" + b"".join(b"%s,one\n" % one.encode() for one in ids))
            (source / f"n{chance.randrange(3)}.csv.gz").write_bytes(data[: chance.choice([20, None])])
        case _:
            chosen.touch()


@pytest.mark.parametrize("seed", range(6))
def test_runs_in_a_row_find_what_those_that_read_everything_find(tmp_path: Path, source: Path, seed: int) -> None:
    chance = random.Random(seed)
    base = begun(tmp_path)
    unread = 0
    for _ in range(6):
        for _ in range(chance.randrange(3)):
            _edit(chance, source)
        unread += compared(tmp_path, base).unread
        run, scan = scanned(tmp_path, base)
        base = committed(run, scan)
    assert unread > 6
