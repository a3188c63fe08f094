"""Files are read side by side, documents come in the order of the source, and what is given up leaves nothing."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.parsers.subprocess_parser import ParseLimits
from isospace.ingest.readers import read as read_module
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from tests.helpers.pdf_files import pdf
from tests.isospace.ingest.parsers.test_subprocess_parser import hostile, page, running
from tests.isospace.ingest.readers.test_object_listing import Bucket, _Bucket, s3, server

__all__ = ["hostile", "s3", "server"]
LIMITS = ParseLimits(seconds=2.0, megabytes=128)


def write_mixture(folder: Path) -> None:
    (folder / "a.html").write_bytes(page("HANG"))
    (folder / "b.html").write_bytes(page("the second"))
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        for name in ("a.html", "b.md", "c.html"):
            archive.writestr(name, page(f"{name} in an archive"))
    (folder / "d.jsonl").write_text("".join(json.dumps({"doc_id": f"row {n}", "text": "x"}) + "\n" for n in range(5)))
    (folder / "e.md").write_text("# A text")
    (folder / "f.html").write_bytes(page("DIE"))
    (folder / "g.pdf").write_bytes(pdf(["Words of a page"]))
    (folder / "h.zip").write_bytes(b"no archive")
    with zipfile.ZipFile(folder / "i.zip", "w") as archive:
        archive.writestr("picture.png", b"x")
    (folder / "j.html").write_bytes(page("the last"))


ORDER = ["a.html", "b.html", "c.zip#a.html", "c.zip#b.md", "c.zip#c.html", *[f"d.jsonl#row {n}" for n in range(5)]]
ORDER += ["e.md", "f.html", "g.pdf", "i.zip", "j.html", "h.zip"]


@pytest.mark.usefixtures("hostile")
def test_documents_come_in_the_order_of_the_source_however_many_are_parsed_at_a_time(tmp_path: Path) -> None:
    write_mixture(tmp_path)
    alone = list(read_source(str(tmp_path), DocumentsSpec(), LIMITS))
    beside = list(read_source(str(tmp_path), DocumentsSpec(), LIMITS, parsers=3))
    # What stands for an unknown number of documents comes last.
    assert [item.uri for item in beside] == ORDER
    assert beside == alone
    reasons = {item.uri: item.reason for item in beside if isinstance(item, QuarantineEntry)}
    assert reasons["a.html"] == "took more than 2 s to parse"
    assert reasons["f.html"] == "killed the parser (signal 11)"
    texts = {item.uri: item.text for item in beside if isinstance(item, Document)}
    assert "the last" in texts["j.html"]


@pytest.mark.usefixtures("hostile")
def test_archives_are_closed_when_they_have_been_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    most = opened = 0
    begin, end = zipfile.ZipFile.__enter__, zipfile.ZipFile.__exit__

    def enter(self: zipfile.ZipFile) -> zipfile.ZipFile:
        nonlocal most, opened
        opened += 1
        most = max(most, opened)
        return begin(self)

    def leave(self: zipfile.ZipFile, *error: object) -> None:
        nonlocal opened
        opened -= 1
        end(self, *error)  # type: ignore[arg-type]

    for number in range(60):
        with zipfile.ZipFile(tmp_path / f"{number:02d}.zip", "w") as archive:
            archive.writestr("a.md", "text")
    monkeypatch.setattr(zipfile.ZipFile, "__enter__", enter)
    monkeypatch.setattr(zipfile.ZipFile, "__exit__", leave)
    assert len(list(read_source(str(tmp_path), DocumentsSpec()))) == 60
    assert (most <= 17, opened) == (True, 0)
    reading = read_source(str(tmp_path), DocumentsSpec())
    next(reading)
    assert opened > 0
    reading.close()
    assert opened == 0


@pytest.mark.usefixtures("hostile")
def test_a_reading_that_is_given_up_ends_what_is_being_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    for name in ("b", "c", "d"):
        (tmp_path / f"{name}.html").write_bytes(page("HANG"))
    reading = read_source(str(tmp_path), DocumentsSpec(), parsers=2)
    next(reading)
    begun = time.monotonic()
    reading.close()
    assert time.monotonic() - begun < 20
    assert running() == []
    assert not [one for one in threading.enumerate() if one.name.startswith("isospace-read")]


@pytest.mark.usefixtures("hostile")
@pytest.mark.skipif(sys.platform == "win32", reason="a signal cannot be sent to a thread")
def test_an_interruption_ends_what_is_being_parsed(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.html").write_bytes(page("HANG"))
    reading = read_source(str(tmp_path), DocumentsSpec(), parsers=2)
    main = threading.main_thread().ident
    assert main is not None
    threading.Timer(2.0, signal.pthread_kill, (main, signal.SIGINT)).start()
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(reading)
    assert time.monotonic() - begun < 30
    assert running() == []


def test_objects_are_requested_side_by_side_and_not_too_many(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, current, most = threading.Lock(), 0, 0
    answer = _Bucket.do_GET

    def count(self: _Bucket) -> None:
        nonlocal current, most
        with lock:
            current += 1
            most = max(most, current)
        time.sleep(0.05)
        with lock:
            current -= 1
        answer(self)

    names = [f"{number:02d}.{'html' if number % 3 == 0 else 'md'}" for number in range(40)]
    s3.put({f"docs/{name}": page(name) for name in names})
    monkeypatch.setattr(_Bucket, "do_GET", count)
    documents = list(read_source(f"{s3.url}/docs", DocumentsSpec(), parsers=2))
    assert [item.doc_id for item in documents] == names
    assert 4 < most <= read_module.REQUESTS
