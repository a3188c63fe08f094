"""The parser process: parses one document at a time, within limits, until its input ends.

Documents are untrusted, so the process has no credentials, writes no files, and is replaced when it fails.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from isospace.ingest.parsers.framing import read_frame, write_frame
from isospace.ingest.parsers.parsed import Parsed, UnreadableError

# Exit status when the memory limit is reached.
MEMORY_STATUS = 71
MOST_BYTES = 1 << 30
# A document with more text is a dump or an attack, even if its file is small.
MAX_TEXT_CHARACTERS = 20_000_000
# The parent kills this process at the deadline. If the parent is dead, the process ends itself this much later.
_ALONE_SECONDS = 10.0


def serve(formats: str, megabytes: int, seconds: float) -> None:
    """Parse the documents that arrive on standard input; write the results to standard output.

    Parameters
    ----------
    formats
        Module with `load` and `parse`.
    megabytes
        Memory that may be allocated in addition to what is in use after loading.
    seconds
        Time limit for each document.
    """
    requests, answers = _take_streams()
    try:
        parsers = importlib.import_module(formats)
        parsers.load()
    except Exception as error:
        write_frame(answers, json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        return
    _limit(megabytes)
    write_frame(answers, b"{}")
    try:
        while (head := read_frame(requests, limit=MOST_BYTES)) is not None:
            data = read_frame(requests, limit=MOST_BYTES)
            if data is None:
                return
            _alarm(seconds + _ALONE_SECONDS)
            answer = _answer(parsers.parse, data, json.loads(head))
            _alarm(0.0)
            write_frame(answers, answer)
    except MemoryError:
        # The state of a process that ran out of memory cannot be trusted.
        os._exit(MEMORY_STATUS)
    except BrokenPipeError:
        os._exit(0)


def _answer(parse: Any, data: bytes, request: dict[str, Any]) -> bytes:
    try:
        parsed: Parsed = parse(request["kind"], data, request["stem"], keep_all=request["keep_all"])
        if len(parsed.text) > MAX_TEXT_CHARACTERS:
            raise UnreadableError(f"has {len(parsed.text):,} characters; one document may have {MAX_TEXT_CHARACTERS:,}")
        answer = asdict(parsed)
    except UnreadableError as error:
        answer = {"unreadable": str(error)}
    except MemoryError:
        raise
    except Exception as error:
        # The libraries may raise anything. No document may fail the run.
        answer = {"unreadable": f"cannot be parsed ({type(error).__name__})"}
    return json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Reserve the two pipes for messages, and give libraries the null device instead."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    return requests, answers


def _limit(megabytes: int) -> None:
    sys.dont_write_bytecode = True
    try:
        import resource
    except ImportError:
        return  # Windows has no such limits; the deadline remains.
    with contextlib.suppress(OSError):
        # If the machine runs out of memory, the system kills this process first.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # No files and no core dumps, since a document could control their content.
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = used + megabytes * 2**20
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (OSError, ValueError, AttributeError):
        return  # macOS and others cannot limit memory; the deadline remains.


def _alarm(seconds: float) -> None:
    """Have the system end this process after so many seconds, even inside a library; 0 cancels."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
