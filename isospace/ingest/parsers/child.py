"""The child process: parses one document after the other, within its limits, until nobody asks any more.

What a document does to it must not matter: it holds no credentials, writes no file, and is thrown away when it fails.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

from isospace.ingest.parsers.formats import UnreadableError
from isospace.ingest.parsers.framing import read_frame, write_frame

# What it ends with when the memory is used up.
MEMORY_STATUS = 71
MOST_BYTES = 1 << 30
# One document with more text than this is a dump or an attack, however small its file is.
MAX_TEXT_CHARACTERS = 20_000_000
# The parent kills at the deadline; where the parent is gone, the child itself ends this much later.
_ALONE_SECONDS = 10.0


def serve(formats: str, megabytes: int, seconds: float) -> None:
    """Answer on standard output what is asked on standard input.

    Parameters
    ----------
    formats
        Module with `load` and `parse`.
    megabytes
        Memory that may be allocated beyond what is by now.
    seconds
        A document's deadline.
    """
    questions, answers = _take_streams()
    try:
        parsers = importlib.import_module(formats)
        parsers.load()
    except Exception as error:
        write_frame(answers, json.dumps({"failed": f"{type(error).__name__}: {error}"}).encode())
        return
    _limit(megabytes)
    write_frame(answers, b"{}")
    try:
        while (head := read_frame(questions, most=MOST_BYTES)) is not None:
            data = read_frame(questions, most=MOST_BYTES)
            if data is None:
                return
            _alarm(seconds + _ALONE_SECONDS)
            answer = _answer(parsers.parse, data, json.loads(head))
            _alarm(0.0)
            write_frame(answers, answer)
    except MemoryError:
        # Nothing more is tried: what is left of a process without memory is not to be relied on.
        os._exit(MEMORY_STATUS)
    except BrokenPipeError:
        os._exit(0)


def _answer(parse: Any, data: bytes, asked: dict[str, Any]) -> bytes:
    try:
        title, text, metadata = parse(asked["kind"], data, asked["stem"], keep_all=asked["keep_all"])
        if len(text) > MAX_TEXT_CHARACTERS:
            raise UnreadableError(f"has {len(text):,} characters; one document may have {MAX_TEXT_CHARACTERS:,}")
        answer = {"title": title, "text": text, "metadata": metadata}
    except UnreadableError as error:
        answer = {"unreadable": str(error)}
    except MemoryError:
        raise
    except Exception as error:
        # Libraries raise whatever their parts raise; none of it is worth a run.
        answer = {"unreadable": f"cannot be parsed ({type(error).__name__})"}
    return json.dumps(answer, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _take_streams() -> tuple[IO[bytes], IO[bytes]]:
    """Keep the two pipes for messages alone: what a library prints goes nowhere, and reads nothing."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    return questions, answers


def _limit(megabytes: int) -> None:
    sys.dont_write_bytecode = True
    try:
        import resource
    except ImportError:
        return  # Windows: the deadline is what there is.
    with contextlib.suppress(OSError):
        # Where the machine itself runs out of memory, the system takes this process before any other.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # No file is written, no core dumped: they would hold what the document had it hold.
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(kind, (0, 0))
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = used + megabytes * 2**20
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    except (OSError, ValueError, AttributeError):
        return  # macOS and others neither tell nor limit it: the deadline is what there is.


def _alarm(seconds: float) -> None:
    """Have the system end this process after so many seconds, in the midst of a library's own code too."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
