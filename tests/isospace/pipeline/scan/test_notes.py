"""How documents were read is counted by kind, and a report names the documents with most of it."""

from __future__ import annotations

import json
from pathlib import Path

from isospace.evaluation.reports.quotes import read_quotes
from isospace.ingest.document import Document
from isospace.ingest.notes import Note
from isospace.pipeline.run_report import run_markdown
from isospace.pipeline.scan.notes import NoteCount, NoteTally
from isospace.storage import paths as layout
from isospace.storage.store import open_store
from tests.conftest import Configure
from tests.helpers.inline import embed_inline


def document(name: str, *notes: Note) -> Document:
    return Document(name, name, "", "text", notes=notes)


def tally(*documents: Document) -> tuple[NoteCount, ...]:
    counting = NoteTally()
    for one in documents:
        counting.add(one)
    return counting.counts()


def test_notes_are_counted_by_kind_with_the_worst_documents_as_examples() -> None:
    documents = [document(f"d{n}", Note("lost pages", f"lost {n}", warns=True, amount=n)) for n in (2, 9, 1, 7)]
    plain = [document(f"p{n}", Note("odd ones", "is odd")) for n in range(2)]
    counts = tally(*plain, *documents, document("none"))
    assert [(one.kind, one.warns, one.documents) for one in counts] == [("lost pages", True, 4), ("odd ones", False, 2)]
    assert [one.describe() for one in counts] == [
        "lost pages (4): d9 lost 9; d7 lost 7; d2 lost 2; and 1 more",
        "odd ones (2): p0 is odd; p1 is odd",
    ]


def test_a_document_with_several_notes_of_a_kind_counts_once_and_warnings_apart() -> None:
    twice = document("a", Note("odd ones", "is odd"), Note("odd ones", "is odder"))
    counts = tally(twice, document("b", Note("odd ones", "is very odd", warns=True)))
    assert [(one.warns, one.documents) for one in counts] == [(True, 1), (False, 1)]


def test_notes_are_no_part_of_the_content_of_a_document() -> None:
    assert document("a").doc_hash == document("a", Note("odd ones", "is odd")).doc_hash


def test_a_run_reports_how_its_documents_were_read_and_records_whom_the_report_names(
    tmp_path: Path, configure: Configure
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "a.txt").write_text("Москва стоит на берегу реки, и в ней живёт много людей.", encoding="koi8-r")
    (source / "b.txt").write_bytes("Größere Häuser stehen in München".encode() + b"\xfc")
    (source / "c.txt").write_text("plain words")
    config = configure(source)
    report = embed_inline(config)
    assert [(note.kind, note.documents, note.examples[0][0]) for note in report.notes] == [
        ("documents with bytes that could not be decoded", 1, "b.txt"),
        ("documents not in UTF-8", 1, "a.txt"),
    ]
    warning = "documents with bytes that could not be decoded (1): b.txt has bytes in 1 place that are not utf-8"
    assert any(text.startswith(warning) for text in report.warnings)
    assert not any("koi8-r" in text for text in report.warnings)
    assert "a.txt is read as koi8-r, detected by its language (ru)" in run_markdown(report)
    store = open_store(config.runtime.store)
    assert json.loads(store.read(layout.report(report.run_id)))["run"]["notes"][1]["examples"][0][0] == "a.txt"
    record = read_quotes(store, report.run_id)
    assert record is not None
    assert record.has_forgotten({"a.txt"})
    assert not record.has_forgotten({"c.txt"})
