"""Parse HTML and PDF in a subprocess that is started when first needed and replaced when it fails.

Bytes go in and JSON comes out, over a pipe. A document that takes too long, needs too much memory, or kills the process
fails on its own.
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
from isospace.ingest.headings import MAX_HEADING_CHARACTERS, MOST_HEADINGS, Heading, heading_text
from isospace.ingest.notes import Note
from isospace.ingest.parsers.child import MAX_TEXT_CHARACTERS, MEMORY_STATUS
from isospace.ingest.parsers.framing import read_frame, write_frame
from isospace.ingest.parsers.parsed import Kind, Parsed, UnreadableError

_FORMATS = "isospace.ingest.parsers.formats"
_START_SECONDS = 300.0
# A control character needs six bytes of JSON; the rest is for the title, the metadata, and the headings.
_MAX_ANSWER_BYTES = 6 * MAX_TEXT_CHARACTERS + 2**24 + MOST_HEADINGS * (6 * MAX_HEADING_CHARACTERS + 100)
_LOWEST_LEVEL = 6
_METADATA = (("format", str), ("pages", int), ("pages_without_text", int))
_MOST_NOTES, _MOST_NOTE_CHARACTERS = 100, 300
# The child uses the import path of the parent. `-m` would also import modules from the working folder.
_BOOT = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from isospace.ingest.parsers.child import serve; "
    "serve(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))"
)
# The only environment variables that the child gets, since others may contain keys and passwords.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR")


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """Limits for parsing one document.

    Attributes
    ----------
    seconds
        Time until the process is killed.
    megabytes
        Memory in addition to what the process uses after its start. Enforced only on systems with RLIMIT_AS and /proc
        (Linux).
    """

    seconds: float = 60.0
    megabytes: int = 2_048


class _LostError(UnreadableError):
    """The process died while it parsed a document."""


class KilledError(_LostError):
    """The system killed the process, as it does when memory runs out."""


class Parser:
    """Parse documents in a child process; for one thread at a time. The creator must close it."""

    def __init__(self, limits: ParseLimits | None = None) -> None:
        self.limits = limits or ParseLimits()
        self._child: subprocess.Popen[bytes] | None = None
        # Held while a process is started or ended, so that none is started after the end.
        self._lock = threading.Lock()
        self._is_ended = False

    def __enter__(self) -> Parser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def parse(self, kind: Kind, data: bytes, stem: str, *, keep_all: bool = False) -> Parsed:
        """Return title, text, metadata, and notes of one document; see `isospace.ingest.parsers.formats.parse`.

        Raises
        ------
        UnreadableError
            If it cannot be parsed, or not within the limits.
        SourceError
            If the process cannot be started.
        """
        request = json.dumps({"kind": kind, "stem": stem, "keep_all": keep_all}).encode()
        was_used = self._child is not None
        try:
            return self._ask(request, data)
        except _LostError:
            # Earlier documents may have corrupted the process: try once more with a new one.
            if not was_used:
                raise
        return self._ask(request, data)

    def start(self) -> None:
        """Start the process, if there is none, so that the first document does not wait for it.

        Raises
        ------
        SourceError
            If the process cannot be started.
        """
        if self._child is None:
            self._start()

    def end(self) -> None:
        """Kill the process for good, from any thread: a document that is parsed now fails, and so do all others."""
        with self._lock:
            self._is_ended = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """Kill the process, even if it is busy; the next document starts another."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            # Closing flushes data that can no longer be sent.
            with contextlib.suppress(OSError):
                cast("IO[bytes]", stream).close()

    def _ask(self, request: bytes, data: bytes) -> Parsed:
        child = self._child or self._start()
        try:
            with _killed_after(child, self.limits.seconds) as timed_out:
                answer = self._exchange(child, request, data)
        except BaseException:
            # After an interruption or an invalid answer, the next answer could be that of an earlier document.
            self.close()
            raise
        if timed_out.is_set():
            self.close()
            raise UnreadableError(f"took more than {self.limits.seconds:g} s to parse")
        if answer is None:
            raise self._cause(child)
        if "unreadable" in answer:
            raise UnreadableError(str(answer["unreadable"])[:300])
        return _checked_answer(answer)

    def _exchange(self, child: subprocess.Popen[bytes], request: bytes, data: bytes) -> dict[str, Any] | None:
        """Send a document and return the answer; None if the process died."""
        # The process may die before it has read everything. Its exit status says more than the broken pipe.
        with contextlib.suppress(OSError):
            for part in (request, data):
                write_frame(cast("IO[bytes]", child.stdin), part)
        try:
            answer = read_frame(cast("IO[bytes]", child.stdout), limit=_MAX_ANSWER_BYTES)
            return None if answer is None else dict(json.loads(answer.decode("utf-8", "surrogatepass")))
        except (ValueError, TypeError, RecursionError) as error:
            raise UnreadableError("made the parser return an invalid answer") from error

    def _cause(self, child: subprocess.Popen[bytes]) -> _LostError:
        # The process has closed its pipe, so it is about to exit, unless it hangs.
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(5.0)
        self.close()
        status = child.returncode
        if status == MEMORY_STATUS:
            return _LostError(f"needs more than {self.limits.megabytes:,} MB to parse")
        if status == -signal.SIGKILL:
            return KilledError(f"killed the parser (signal {-status}): the system may have run out of memory")
        if status == -signal.SIGABRT:
            # pdfium aborts if it cannot allocate memory.
            return _LostError(
                f"killed the parser (signal {-status}): it may need more than {self.limits.megabytes:,} MB"
            )
        died = f"killed the parser (signal {-status})" if status < 0 else f"ended the parser (exit status {status})"
        return _LostError(died)

    def _start(self) -> subprocess.Popen[bytes]:
        limits = self.limits
        path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109
        command = [sys.executable, "-P", "-c", _BOOT, json.dumps(path), _FORMATS]
        command += [str(limits.megabytes), str(limits.seconds)]
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            with self._lock:
                if self._is_ended:
                    raise UnreadableError("was not parsed, since reading was ended")
                # In a new session, so that Ctrl-C reaches only the run, which then ends this process.
                child = self._child = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
                )
            with _killed_after(child, _START_SECONDS):
                greeting = read_frame(cast("IO[bytes]", child.stdout), limit=2**16)
            failed = "it exited immediately" if greeting is None else json.loads(greeting).get("failed")
        except (OSError, ValueError) as error:
            failed = str(error)
        except BaseException:
            self.close()
            raise
        if failed:
            self.close()
            raise SourceError(
                f"the process that parses HTML and PDF cannot be started ({failed}). Fix that "
                f"({install_command('pipeline')} brings what it imports), or leave such files out with "
                "recipe.documents.include."
            )
        return child


@contextlib.contextmanager
def _killed_after(child: subprocess.Popen[bytes], seconds: float) -> Iterator[threading.Event]:
    """Kill a process that is not done in time, which ends every read of its pipe, and then set the event."""
    timed_out = threading.Event()

    def kill() -> None:
        timed_out.set()
        child.kill()

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield timed_out
    finally:
        timer.cancel()


def _checked_answer(answer: dict[str, Any]) -> Parsed:
    """Check an answer, since a document that controls the process could send anything."""
    title, text, metadata = answer.get("title"), answer.get("text"), answer.get("metadata")
    if not isinstance(title, str) or not isinstance(text, str) or not isinstance(metadata, dict):
        raise UnreadableError("made the parser return an invalid answer")
    known = {key: metadata[key] for key, kind in _METADATA if isinstance(metadata.get(key), kind)}
    notes = tuple(_checked_notes(answer.get("notes")))
    return Parsed(title, text, known, notes, tuple(_checked_headings(answer.get("headings"), len(text))))


def _checked_headings(headings: Any, length: int) -> Iterator[Heading]:
    """Yield the headings of an answer, which stand in the text one after another."""
    first = 0
    for heading in headings if isinstance(headings, list) else ():
        match heading:
            case {"start": int(start), "level": int(level), "text": str(text)} if (
                first <= start < length and 1 <= level <= _LOWEST_LEVEL
            ):
                yield Heading(start, level, heading_text(text))
                first = start + 1
            case _:
                raise UnreadableError("made the parser return an invalid answer")


def _checked_notes(notes: Any) -> Iterator[Note]:
    """Yield the notes of an answer, few and short."""
    for note in notes[:_MOST_NOTES] if isinstance(notes, list) else ():
        match note:
            case {"kind": str(kind), "detail": str(detail), "warns": bool(warns), "amount": int() | float() as amount}:
                yield Note(kind[:_MOST_NOTE_CHARACTERS], detail[:_MOST_NOTE_CHARACTERS], warns, float(amount))
            case _:
                raise UnreadableError("made the parser return an invalid answer")
