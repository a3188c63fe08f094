"""The parser as its parent sees it: one child process, started when first needed, replaced when it is lost.

Bytes go in and JSON comes out, over a pipe. A document that takes too long, needs too much memory or kills the process
costs itself alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, cast

from isospace.errors import SourceError, install_command
from isospace.ingest.parsers.child import MAX_TEXT_CHARACTERS, MEMORY_STATUS
from isospace.ingest.parsers.formats import Kind, Parsed, UnreadableError
from isospace.ingest.parsers.framing import read_frame, write_frame

_FORMATS = "isospace.ingest.parsers.formats"
_START_SECONDS = 300.0
# A control character takes six bytes of JSON; titles and the like take little.
_MOST_ANSWER = 6 * MAX_TEXT_CHARACTERS + 2**24
# The child's modules are found where the parent's are. Not `-m`: that would import what lies in the working folder.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from isospace.ingest.parsers.child import serve; "
    "serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))"
)
# All that it gets of the environment: what holds keys and passwords stays here.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one document may take.

    Attributes
    ----------
    seconds
        Until the process that parses it is killed.
    megabytes
        Memory beyond what the process has at its start; held to where the system has RLIMIT_AS and /proc (Linux).
    """

    seconds: float = 60.0
    megabytes: int = 2_048


class _LostError(UnreadableError):
    """The process was lost over a document."""


class Parser:
    """Parses documents in a child process; used by one thread at a time, closed by whoever made it.

    Parameters
    ----------
    limits
        Of one document.
    """

    def __init__(self, limits: ParseLimits | None = None) -> None:
        self.limits = limits or ParseLimits()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Parser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def parse(self, kind: Kind, data: bytes, stem: str, *, keep_all: bool = False) -> Parsed:
        """Return title, text and metadata of one document; see `isospace.ingest.parsers.formats.parse`.

        Raises
        ------
        UnreadableError
            If it cannot be parsed, or not within the limits.
        SourceError
            If no process can be started.
        """
        asked = json.dumps({"kind": kind, "stem": stem, "keep_all": keep_all}).encode()
        was_used = self._child is not None
        try:
            return self._ask(asked, data)
        except _LostError:
            # What earlier documents left behind is not this one's fault.
            if not was_used:
                raise
        return self._ask(asked, data)

    def close(self) -> None:
        """Kill the process, whatever it is doing; the next document starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            # What was not sent yet can no longer be.
            with contextlib.suppress(OSError):
                cast("IO[bytes]", stream).close()

    def _ask(self, asked: bytes, data: bytes) -> Parsed:
        child = self._child or self._start()
        try:
            with _killed_after(child, self.limits.seconds) as late:
                answer = self._exchange(child, asked, data)
        except BaseException:
            # Interrupted while it waits, or answered with nonsense: the next answer would be taken for another
            # document's.
            self.close()
            raise
        if late.is_set():
            self.close()
            raise UnreadableError(f"took more than {self.limits.seconds:g} s to parse")
        if answer is None:
            raise _LostError(self._cause(child))
        if "unreadable" in answer:
            raise UnreadableError(str(answer["unreadable"])[:300])
        return _parsed(answer)

    def _exchange(self, child: subprocess.Popen[bytes], asked: bytes, data: bytes) -> dict[str, Any] | None:
        """Send a document and return the answer; None if the process ended over it."""
        # It may end before it has read all: what it ended with tells more than the pipe does.
        with contextlib.suppress(OSError):
            for part in (asked, data):
                write_frame(cast("IO[bytes]", child.stdin), part)
        try:
            answer = read_frame(cast("IO[bytes]", child.stdout), most=_MOST_ANSWER)
            return None if answer is None else dict(json.loads(answer.decode("utf-8", "surrogatepass")))
        except (ValueError, TypeError, RecursionError) as error:
            raise UnreadableError("made the parser answer with nonsense") from error

    def _cause(self, child: subprocess.Popen[bytes]) -> str:
        # It has closed its pipe: it ends by itself, or is hung in ending.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5.0)
        self.close()
        status = child.returncode
        if status == MEMORY_STATUS:
            return f"needs more than {self.limits.megabytes:,} MB to parse"
        if status == -signal.SIGKILL:
            return f"killed the parser (signal {-status}): the system may have run out of memory"
        if status == -signal.SIGABRT:
            # So pdfium ends where it gets no memory.
            return f"killed the parser (signal {-status}): it may need more than {self.limits.megabytes:,} MB"
        return f"killed the parser (signal {-status})" if status < 0 else f"ended the parser (exit status {status})"

    def _start(self) -> subprocess.Popen[bytes]:
        limits = self.limits
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        command = [sys.executable, "-P", "-c", _BOOT, json.dumps(path), _FORMATS]
        command += [str(limits.megabytes), str(limits.seconds)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            # A session of its own: Ctrl-C is for the run, which then ends what it has started.
            child = self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
            )
            with _killed_after(child, _START_SECONDS):
                greeting = read_frame(cast("IO[bytes]", child.stdout), most=2**16)
            failed = "it ended at once" if greeting is None else json.loads(greeting).get("failed")
        except (OSError, ValueError) as error:
            failed = str(error)
        except BaseException:
            self.close()
            raise
        if failed:
            self.close()
            raise SourceError(
                f"the process that parses HTML and PDF cannot be started ({failed}). Fix that "
                f"({install_command('pipeline')} brings what it imports), or leave such files out with recipe.documents.include."
            )
        return child


@contextlib.contextmanager
def _killed_after(child: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill a process that is not done in time: every read of its pipe then ends. The event tells whether it was."""
    late = threading.Event()

    def kill() -> None:
        late.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()


def _parsed(answer: dict[str, Any]) -> Parsed:
    """Check an answer: who has taken over the process could send anything."""
    title, text, metadata = answer.get("title"), answer.get("text"), answer.get("metadata")
    if not isinstance(title, str) or not isinstance(text, str) or not isinstance(metadata, dict):
        raise UnreadableError("made the parser answer with nonsense")
    known = {
        key: metadata[key] for key, kind in (("format", str), ("pages", int)) if isinstance(metadata.get(key), kind)
    }
    return title, text, known
