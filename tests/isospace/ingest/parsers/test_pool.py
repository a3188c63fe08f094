"""Documents are parsed side by side, and one that breaks its parser costs itself alone."""

from __future__ import annotations

import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from isospace.errors import SourceError
from isospace.ingest.parsers import subprocess_parser as parser_module
from isospace.ingest.parsers.parsed import Parsed, UnreadableError
from isospace.ingest.parsers.pool import ParserPool, parser_count
from isospace.ingest.parsers.subprocess_parser import ParseLimits
from tests.isospace.ingest.parsers.test_subprocess_parser import hostile, page, running

__all__ = ["hostile"]
PATIENT = ParseLimits(seconds=60.0, megabytes=128)


def begin(pool: ParserPool, threads: ThreadPoolExecutor, words: str) -> Future[Parsed]:
    return threads.submit(pool.parse, "html", page(words), "a")


def wait_for_processes(count: int) -> None:
    deadline = time.monotonic() + 60
    while len(running()) != count:
        assert time.monotonic() < deadline, f"{len(running())} processes; expected {count}"
        time.sleep(0.02)


@pytest.mark.usefixtures("hostile")
def test_a_document_that_hangs_holds_back_no_other() -> None:
    with ThreadPoolExecutor(3) as threads:
        with ParserPool(PATIENT, most=2) as pool:
            hung = begin(pool, threads, "HANG")
            others = [begin(pool, threads, f"number {n}") for n in range(20)]
            for number, other in enumerate(others):
                assert f"number {number}" in other.result(timeout=30).text
            assert not hung.done()
        assert isinstance(hung.exception(), RuntimeError)


@pytest.mark.usefixtures("hostile")
def test_documents_share_a_process_unless_they_wait_for_it_as_long_as_a_start_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start, measured = ParserPool._start, []

    def slow(self: ParserPool, parser: parser_module.Parser) -> None:
        start(self, parser)
        measured.append(self._start_seconds)
        self._start_seconds = 60.0

    monkeypatch.setattr(ParserPool, "_start", slow)
    with ThreadPoolExecutor(4) as threads, ParserPool(PATIENT, most=4) as pool:
        for parsed in [begin(pool, threads, f"number {n}") for n in range(8)]:
            parsed.result()
        assert len(running()) == 1
    assert measured[0] > 0.05


@pytest.mark.usefixtures("hostile")
def test_there_are_never_more_processes_than_allowed() -> None:
    with ThreadPoolExecutor(6) as threads, ParserPool(PATIENT, most=2) as pool:
        for _ in range(5):
            begin(pool, threads, "HANG")
        wait_for_processes(2)
        # Several times as long as a start takes.
        for _ in range(50):
            assert len(running()) <= 2
            time.sleep(0.05)
        pool.close()


@pytest.mark.usefixtures("hostile")
def test_a_document_whose_process_the_system_kills_is_parsed_again_when_no_other_is() -> None:
    with ThreadPoolExecutor(3) as threads, ParserPool(ParseLimits(seconds=4.0, megabytes=128), most=2) as pool:
        hung = begin(pool, threads, "HANG")
        wait_for_processes(1)
        crowded = [begin(pool, threads, f"CROWDED {n}") for n in range(2)]
        for number, one in enumerate(crowded):
            assert f"CROWDED {number}" in one.result().text
        assert hung.done()
        # The pool goes on as before.
        assert "after" in pool.parse("html", page("after"), "a").text


@pytest.mark.usefixtures("hostile")
def test_closing_ends_what_is_being_parsed_and_what_waits_for_it() -> None:
    with ThreadPoolExecutor(3) as threads:
        pool = ParserPool(PATIENT, most=2)
        busy = [begin(pool, threads, "HANG") for _ in range(3)]
        wait_for_processes(2)
        begun = time.monotonic()
        pool.close()
        assert running() == []
        for one in busy:
            with pytest.raises(RuntimeError, match="closed"):
                one.result()
        assert time.monotonic() - begun < 20
        with pytest.raises(RuntimeError, match="closed"):
            pool.parse("html", page("late"), "a")
    assert running() == []


@pytest.mark.usefixtures("hostile")
def test_no_process_outlives_a_pool_that_is_closed_while_it_starts() -> None:
    for delay in (0.0, 0.01, 0.1, 0.3):
        with ThreadPoolExecutor(2) as threads:
            pool = ParserPool(PATIENT, most=2)
            begun = [begin(pool, threads, "early") for _ in range(2)]
            time.sleep(delay)
            pool.close()
            for one in begun:
                one.exception()
        assert running() == []


def test_a_process_that_cannot_be_started_is_an_error_for_every_document(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with ThreadPoolExecutor(3) as threads, ParserPool(PATIENT, most=2) as pool:
        for one in [begin(pool, threads, "x") for _ in range(5)]:
            with pytest.raises(SourceError, match="cannot be started"):
                one.result()


def test_a_parser_is_not_started_after_its_end() -> None:
    parser = parser_module.Parser(PATIENT)
    parser.end()
    with pytest.raises(UnreadableError, match="reading was ended"):
        parser.start()
    assert running() == []


def test_memory_and_processors_bound_the_parsers() -> None:
    assert [parser_count(16, 512), parser_count(2, 512), parser_count(16, 2_048)] == [8, 2, 16]
    assert parser_count(1, 64) == 1
