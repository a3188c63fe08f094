"""Parsers that the parser's subprocess loads in tests: the real ones, and documents that attack them as they say."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from isospace.ingest.notes import Note
from isospace.ingest.parsers import formats
from isospace.ingest.parsers.formats import load
from isospace.ingest.parsers.parsed import Kind, Parsed

__all__ = ["load", "parse"]
_PARSED: list[str] = []


def parse(kind: Kind, data: bytes, stem: str, *, keep_all: bool) -> Parsed:  # noqa: C901
    _PARSED.append(stem)
    if b"HANG" in data:
        # As a loop in a library's own code: no exception of Python's gets through.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
        time.sleep(600)
    if b"ALLOCATE" in data:
        hoard = []
        while True:
            hoard.append(bytearray(2**22))
    if b"DIE" in data:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"EXIT" in data:
        os._exit(3)
    if b"TIRED" in data and len(_PARSED) > 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    if b"CROWDED" in data and _has_siblings():
        os.kill(os.getpid(), signal.SIGKILL)
    if b"RAISE" in data:
        raise KeyError("something a library forgot")
    if b"LONG" in data:
        return Parsed("t", "x" * 20_000_001)
    if b"WRITE" in data:
        (Path(os.environ.get("TMPDIR", "/tmp")) / stem).write_text("what the document wants")
    if b"ENVIRONMENT" in data:
        words = " ".join([*os.environ, str(os.getpid())])
        notes = (Note("kind" * 200, "detail" * 200, warns=True),) * 1000
        return Parsed("t", words, {"format": "html", "more": [1], "pages": "x"}, notes)
    return formats.parse(kind, data, stem, keep_all=keep_all)


def _has_siblings() -> bool:
    parent = psutil.Process(os.getppid())
    return any(one.pid != os.getpid() and one.status() != psutil.STATUS_ZOMBIE for one in parent.children())
