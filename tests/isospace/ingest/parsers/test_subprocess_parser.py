"""A document that breaks its parser costs itself alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from isospace.errors import SourceError
from isospace.ingest.document import Document, QuarantineEntry
from isospace.ingest.parsers import child as child_module
from isospace.ingest.parsers import subprocess_parser as parser_module
from isospace.ingest.parsers.parsed import UnreadableError
from isospace.ingest.parsers.subprocess_parser import ParseLimits, Parser
from isospace.ingest.readers.read import read_source
from isospace.ingest.spec import DocumentsSpec
from isospace.storage.store import open_store
from tests.conftest import Configure
from tests.helpers.inline import embed_inline

LIMITS = ParseLimits(seconds=2.0, megabytes=128)
# What hangs in a test that times nothing else does not have to be waited for.
PATIENT = ParseLimits(seconds=60.0, megabytes=128)


def page(words: str) -> bytes:
    return f"<html><head><title>Page</title></head><body><p>Some words of a page: {words}</p></body></html>".encode()


def running() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if _is_parser(one)]


def _is_parser(process: psutil.Process) -> bool:
    try:
        return process.is_running() and "isospace.ingest.parsers" in " ".join(process.cmdline())
    except psutil.Error:
        # It has ended meanwhile.
        return False


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have children do what documents ask for; afterwards none may be left."""
    monkeypatch.setattr(parser_module, "_FORMATS", "tests.helpers.hostile_formats")
    yield
    assert running() == []


def reason_of(words: str, limits: ParseLimits = PATIENT) -> str:
    with Parser(limits) as parser, pytest.raises(UnreadableError) as caught:
        parser.parse("html", page(words), "a")
    return str(caught.value)


@pytest.mark.usefixtures("hostile")
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("ALLOCATE", "needs more than 128 MB to parse"),
        ("DIE", "killed the parser (signal 11)"),
        ("EXIT", "ended the parser (exit status 3)"),
        ("RAISE", "cannot be parsed (KeyError)"),
        ("LONG", "has 20,000,001 characters; one document may have 20,000,000"),
        ("WRITE", "cannot be parsed (OSError)"),
    ],
)
def test_whatever_a_document_does_to_its_parser_is_its_reason(words: str, reason: str) -> None:
    if words == "ALLOCATE" and sys.platform != "linux":
        pytest.skip("memory is limited on Linux alone")
    assert reason_of(words) == reason


@pytest.mark.usefixtures("hostile")
def test_a_document_that_hangs_is_given_up_at_its_deadline() -> None:
    begun = time.monotonic()
    assert reason_of("HANG", ParseLimits(seconds=0.5)) == "took more than 0.5 s to parse"
    assert time.monotonic() - begun < 20


@pytest.mark.usefixtures("hostile")
def test_the_document_after_a_bad_one_gets_a_new_process_and_its_own_text() -> None:
    with Parser(PATIENT) as parser:
        for bad in ("DIE", "EXIT", "DIE"):
            with pytest.raises(UnreadableError):
                parser.parse("html", page(bad), "bad")
            assert f"good after {bad.lower()}" in parser.parse("html", page(f"good after {bad.lower()}"), "good").text
            assert len(running()) == 1


@pytest.mark.usefixtures("hostile")
def test_what_earlier_documents_left_behind_is_not_held_against_a_later_one() -> None:
    with Parser(PATIENT) as parser:
        parser.parse("html", page("first"), "first")
        # It kills every process but a fresh one.
        assert "TIRED" in parser.parse("html", page("TIRED"), "second").text


@pytest.mark.usefixtures("hostile")
def test_the_parser_gets_no_secret_and_what_it_adds_to_its_answer_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:secret")
    with Parser(PATIENT) as parser:
        parsed = parser.parse("html", page("ENVIRONMENT"), "a")
    assert "PATH" in parsed.text
    assert "AWS" not in parsed.text
    assert "PREFECT" not in parsed.text
    assert len(parsed.notes) == 100
    assert {(len(note.kind), len(note.detail)) for note in parsed.notes} == {(300, 300)}
    assert parsed.metadata == {"format": "html"}


def test_an_answer_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    boot = (
        "import os, struct, sys\n"
        "def send(data): os.write(1, struct.pack('>Q', len(data)) + data)\n"
        "send(b'{}'); sys.stdin.buffer.read(8); send(sys.argv[2].encode()); sys.stdin.buffer.read()"
    )
    monkeypatch.setattr(parser_module, "_BOOT", boot)
    answers = ["[" * 200_000, "null", "[1]", '{"title": 1, "text": "x", "metadata": {}}', '"', '{"title": "only"}']
    answers += ['{"title": "t", "text": "x", "metadata": {}, "notes": [' + note + "]}" for note in ("1", '{"kind": 1}')]
    heads = [
        "1",
        '{"start": 1, "level": 1, "text": ""}',
        '{"start": 0, "level": 7, "text": ""}',
        '{"start": 0, "level": 1}',
    ]
    heads += ['{"start": 0, "level": 1, "text": ""}, {"start": 0, "level": 1, "text": ""}']
    answers += ['{"title": "t", "text": "x", "metadata": {}, "headings": [' + heading + "]}" for heading in heads]
    for answer in answers:
        monkeypatch.setattr(parser_module, "_FORMATS", answer[:100_000])
        assert reason_of("x") == "made the parser return an invalid answer"
    monkeypatch.setattr(parser_module, "_FORMATS", "{}")
    monkeypatch.setattr(parser_module, "_MAX_ANSWER_BYTES", 1)
    assert reason_of("x") == "made the parser return an invalid answer"
    assert running() == []


def test_a_parser_that_cannot_be_started_is_an_error_of_the_run_and_not_of_its_documents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.html").write_bytes(page("good"))
    monkeypatch.setattr(parser_module, "_FORMATS", "no_such_module")
    with pytest.raises(
        SourceError, match=r"cannot be started \(ModuleNotFoundError: No module named 'no_such_module'\)"
    ):
        list(read_source(str(tmp_path), DocumentsSpec()))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(SourceError, match="cannot be started"):
        list(read_source(str(tmp_path), DocumentsSpec()))


def test_no_process_is_started_for_a_source_that_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(parser_module.subprocess, "Popen", refuse)
    (tmp_path / "a.md").write_text("# text")
    (tmp_path / "t.jsonl").write_text(json.dumps({"doc_id": "1", "text": "x"}))
    assert len(list(read_source(str(tmp_path), DocumentsSpec()))) == 2


def test_a_reading_that_is_given_up_ends_its_process(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        (tmp_path / name).write_bytes(page("good"))
    reading = read_source(str(tmp_path), DocumentsSpec())
    next(reading)
    assert len(running()) == 1
    reading.close()
    assert running() == []


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_parser_ends_when_the_run_is_killed() -> None:
    code = (
        "import os, signal; from isospace.ingest.parsers.subprocess_parser import Parser; parser = Parser();"
        "parser.parse('html', b'<html><body><p>words of a page</p></body></html>', 'a');"
        "print(parser._child.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    left, deadline = int(done.stdout), time.monotonic() + 20
    while psutil.pid_exists(left) and psutil.Process(left).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "it goes on without its parent"
        time.sleep(0.05)


@pytest.mark.usefixtures("hostile")
def test_a_hung_parser_whose_run_was_killed_ends_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    # The parent never kills it here; the child's own alarm has to.
    monkeypatch.setattr(parser_module.threading.Timer, "start", lambda self: None)
    monkeypatch.setattr(parser_module, "_BOOT", _with_alarm_after(0.5))
    assert reason_of("HANG", ParseLimits(seconds=0.5)) == "killed the parser (signal 14)"


def _with_alarm_after(seconds: float) -> str:
    return parser_module._BOOT.replace(
        "import serve;", f"import serve; import isospace.ingest.parsers.child as c; c._ALONE_SECONDS = {seconds};"
    )


def zipped_pdf(megabytes: int) -> bytes:
    """A PDF of some kilobytes whose one page holds so many megabytes of text."""
    content = b"BT /F1 12 Tf 20 50 Td " + b"(Text) Tj " * (megabytes * 100_000) + b"ET"
    stream = zlib.compress(zlib.compress(content, 9), 9)
    return b"".join(
        [
            b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n",
            b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 100]/Contents 4 0 R/Resources<</Font<</F1 5 0 "
            b"R>>>>>>endobj\n",
            f"4 0 obj<</Length {len(stream)}/Filter[/FlateDecode/FlateDecode]>>stream\n".encode(),
            stream,
            b"\nendstream endobj\n5 0 obj<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>endobj\ntrailer<</Root 1 0 "
            b"R>>\n",
        ]
    )


@pytest.mark.integration
@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_real_bombs_are_set_aside_and_what_lies_beside_them_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_bytes(page("before"))
    bomb = zipped_pdf(200)
    assert len(bomb) < 10_000
    (tmp_path / "bomb.pdf").write_bytes(bomb)
    attributes = " ".join(f"a{n}='x'" for n in range(400_000))
    (tmp_path / "many.html").write_text(f"<html><body><p {attributes}>x</p></body></html>")
    (tmp_path / "wide.html").write_text("<html><body>" + "<p>some words</p>" * 1_000_000 + "</body></html>")
    (tmp_path / "z.html").write_bytes(page("after"))
    items = list(read_source(str(tmp_path), DocumentsSpec(), LIMITS))
    assert [item.doc_id for item in items if isinstance(item, Document)] == ["a.html", "z.html"]
    reasons = {item.uri: item.reason for item in items if isinstance(item, QuarantineEntry)}
    assert reasons == {
        "bomb.pdf": "killed the parser (signal 6): it may need more than 128 MB",
        "many.html": "took more than 2 s to parse",
        "wide.html": "needs more than 128 MB to parse",
    }
    assert running() == []


@pytest.mark.integration
@pytest.mark.usefixtures("hostile")
def test_a_run_embeds_the_good_ones_and_sets_the_bad_ones_aside(tmp_path: Path, configure: Configure) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a", "c", "e", "g"):
        (source / f"{name}.html").write_bytes(page(f"the cell of {name}"))
    (source / "b.html").write_bytes(page("HANG"))
    (source / "d.html").write_bytes(page("ALLOCATE"))
    (source / "f.html").write_bytes(page("DIE"))
    limits = {"parse_seconds": 3.0, "parse_megabytes": 64, "max_quarantined_share": 0.5}
    config = configure(source, runtime=limits)
    report = embed_inline(config)
    assert (report.documents, report.quarantined) == (4, 3)
    assert report.promoted == "production"
    store = open_store(config.runtime.store)
    assert store.root is not None
    assert report.quarantine is not None
    rows = pq.read_table(store.root / report.quarantine).to_pylist()
    assert {row["uri"]: row["reason"] for row in rows} == {
        "b.html": "took more than 3 s to parse",
        "d.html": "needs more than 64 MB to parse",
        "f.html": "killed the parser (signal 11)",
    }
    assert running() == []


def test_the_limit_of_a_text_is_what_the_test_of_long_ones_assumes() -> None:
    assert child_module.MAX_TEXT_CHARACTERS == 20_000_000
