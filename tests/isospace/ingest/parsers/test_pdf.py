"""What a PDF says is read: broken words, forms, pages without text, and titles that nobody gave."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.parsers.pdf import is_junk_title, join_broken_words, parse_pdf
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from tests.helpers.pdf_files import pdf


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("the infor\ufffemation", "the information"),
        ("a main\ufffe\r\ntenance", "a maintenance"),
        ("Donau\ufffeDampfschiff", "Donau-Dampfschiff"),
        ("COVID\ufffe19", "COVID-19"),
        ("a well\ufffeknown fact, as well-known as others", "a well-known fact, as well-known as others"),
        ("a well\ufffeknown fact", "a wellknown fact"),
        ("one\ufffetwo\ufffethree", "onetwothree"),
        ("soft\u00ad\r\nware and hard\u00adware", "software and hardware"),
        ("co\u2010\r\noperate, co\u2010op", "cooperate, co\u2010op"),
        ("pages 3-\r\n5, ranges - and dashes", "pages 3-\r\n5, ranges - and dashes"),
        ("a\uffffb\ufdd0c", "abc"),
        ("Größen\ufffeordnung", "Größenordnung"),
        ("price: 5\u00ad 6", "price: 5- 6"),
        ("a soft\u00ad hyphen", "a soft- hyphen"),
        ("10\u00ad20, 10\u00ad\n20, A\u00ad4", "10-20, 10-20, A-4"),
        ("10\ufffe20 and 3\u2010\n5", "10-20 and 3-5"),
        ("Haupt\ufffeund Nebenfach", "Haupt- und Nebenfach"),
        ("Vor\u00ad\r\noder Nachteile, Ein\u2010\nbzw. Ausfuhr", "Vor- oder Nachteile, Ein- bzw. Ausfuhr"),
        ("long\ufffeand short-term", "long- and short-term"),
        ("two\ufffeor three-dimensional, a col\ufffeor of it", "two- or three-dimensional, a color of it"),
        ("a brig\ufffeand, as a brigand is", "a brigand, as a brigand is"),
        ("Bef\ufffeundes", "Befundes"),
        ("cafe\u0301\ufffeteria, nai\u0308\u00adve", "cafe\u0301teria, nai\u0308ve"),
        ("end\u00ad\n\u2022 item, \u00ad item", "end\n\u2022 item, - item"),
    ],
)
def test_words_that_a_line_end_broke_are_joined(text: str, joined: str) -> None:
    assert join_broken_words(text) == joined


def test_long_runs_of_letters_take_no_time() -> None:
    assert len(join_broken_words("a" * 2_000_000 + "\ufffe" + "b" * 2_000_000)) == 4_000_000


def test_pdfium_still_marks_broken_words_as_this_code_expects() -> None:
    parsed = parse_pdf(pdf(["The commission asked for more infor-\nmation about it."]), "")
    assert parsed.text == "The commission asked for more information about it."


@pytest.mark.parametrize(
    "title",
    [
        *(
            "",
            " \t",
            "\x00",
            "???",
            "untitled",
            "Untitled-1",
            "UNTITLED DOCUMENT",
            "Unbenanntes Dokument 3",
            "Sans titre",
        ),
        *(
            "无标题文档",
            "Microsoft Word - Angebot_v3.docx",
            "Microsoft PowerPoint - Kolloquium",
            "PowerPoint Presentation",
        ),
        *(
            "Präsentation1",
            "Présentation PowerPoint",
            "Document1",
            "Slide 1",
            "scan0012",
            "final draft.doc",
            "main.dvi",
        ),
        *(
            "C:\\Users\\me\\x.qxd",
            "file:///tmp/print.html",
            "6fa459ea-ee8a-3ca4-894e-db77e160355e",
            "report-2.pdf",
            "title",
        ),
        *("My Report.pdf", "New Document", "Neues Dokument", "Nouveau document (2)", "New Microsoft Word Document"),
        *("Microsoft Word Document", "Doc1", "Scan_20240102_101112", "IMG-2024.01.02 10:11", "Scanned from a Xerox"),
        *("about:blank", "D:20240101", "D:20240101101112+01'00'", "https://example.com/x", "www.example.com/a?b=c"),
        *("Draft 2", "Image 3", "Word-Dokument", "My holiday.jpg", "notes.txt", "CamScanner 01-02-2024 10.11"),
    ],
)
def test_a_title_that_a_program_made_up_is_none(title: str) -> None:
    assert is_junk_title(title)
    assert parse_pdf(pdf(["prose"], title=title), "harbor").title == "harbor"


@pytest.mark.parametrize(
    "title",
    [
        *(
            "Annual report 2020",
            "1984",
            "The Untitled",
            "Microsoft Excel Basics: a course",
            "Word Embeddings",
            "Title IX",
        ),
        *("Document Management for Beginners", "Node.js", "Configuring web.xml in Tomcat", "The Page 99 Test", "C"),
        *("Draft", "Print", "Image", "Working with .doc", "Booking.com.txt", "Layout", "Drawing", "Book", "Print 3D"),
        *("New Documents of the War", "Scanned Manuscripts", "About: a novel", "Data: the new oil", "Doc Martens"),
        *("https: how it works", "New Files, Old Files", "Scanning 101", "D: a letter", "Editing a .pdf"),
        *("Draft Animals", "Presentation of Data", "Books", "Scan Statistics", "деревья", "港口报告", "Layout Design"),
    ],
)
def test_a_title_that_somebody_gave_is_kept(title: str) -> None:
    assert not is_junk_title(title)
    assert parse_pdf(pdf(["prose"], title=title), "harbor").title == title


def test_a_hostile_title_takes_no_time() -> None:
    assert not is_junk_title("a " * 1_000_000)
    assert not is_junk_title("a." * 1_000_000 + "!")


def test_what_was_filled_into_a_form_is_text() -> None:
    fields = [
        "/FT/Tx/T(vessel)/V(Morgenstern)",
        "/FT/Tx/T(f1_01[0])/TU(Name of the port)/V<feff004b00fc0073007400650020041d>",
        "/FT/Tx/T(topmost[0].f1_02[0])/V(rudder bearing)",
        "/FT/Tx/T(notes)/Ff 4096/V(first line\\nsecond line)",
        "/FT/Ch/Ff 131072/T(class)/V(steamer)/Opt[(steamer)(sailer)]",
        "/FT/Btn/T(insured)/V/Yes/AS/Yes/AP<</N<</Yes 1 0 R/Off 1 0 R>>>>",
        "/FT/Btn/T(sunk)/V/Off/AS/Off/AP<</N<</Yes 1 0 R/Off 1 0 R>>>>",
        "/FT/Tx/Ff 8192/T(pin)/V(secret)",
        "/FT/Tx/T(empty)",
    ]
    text = parse_pdf(pdf(["Damage report"], fields=fields), "").text
    assert text.split("\n") == [
        "Damage report",
        "vessel: Morgenstern",
        "Name of the port: Küste Н",
        "rudder bearing",
        "notes: first line second line",
        "class: steamer",
        "insured: Yes",
    ]


def test_pages_without_text_are_counted_and_said() -> None:
    whole = parse_pdf(pdf(["one", "two"]), "")
    assert (whole.metadata, whole.notes) == ({"format": "pdf", "pages": 2}, ())
    partly = parse_pdf(pdf(["one", "", ""]), "")
    assert partly.metadata == {"format": "pdf", "pages": 3, "pages_without_text": 2}
    (note,) = partly.notes
    assert note.warns
    assert note.detail.startswith("has no text on 2 of 3 pages")


def test_a_pdf_of_scans_is_a_document_if_it_has_a_title(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(pdf(["", ""], title="Plans of the harbor"))
    (tmp_path / "b.pdf").write_bytes(pdf(["", ""], title="untitled"))
    titled, untitled = read_source(str(tmp_path), DocumentsSpec())
    assert isinstance(titled, Document)
    assert (titled.title, titled.text) == ("Plans of the harbor", "Plans of the harbor")
    assert titled.metadata["pages_without_text"] == 2
    assert titled.notes[0].warns
    assert isinstance(untitled, QuarantineEntry)
    assert untitled.reason == "holds no text"


def test_what_is_no_pdf_says_so() -> None:
    with pytest.raises(UnreadableError, match="cannot be opened as PDF"):
        parse_pdf(b"%PDF-1.7\nnothing", "")
