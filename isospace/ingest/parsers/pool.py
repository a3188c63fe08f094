"""Parse documents in several child processes, for any number of threads.

A child is started when a document has waited for one as long as the last start took: a few small files share one child,
and a large source soon has them all. While children start, at most as many more start as serve.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from isospace.ingest.parsers.parsed import Kind, Parsed
from isospace.ingest.parsers.subprocess_parser import KilledError, ParseLimits, Parser

# A child that has parsed ordinary files has 40 to 60 MB of its own.
_ORDINARY_MB = 64


def parser_count(cpus: int, memory_mb: int) -> int:
    """Return how many documents are parsed at a time with so many processors and so much memory."""
    return max(1, min(cpus, memory_mb // _ORDINARY_MB))


class ParserPool:
    """Parse documents in at most `most` child processes, from any thread. The creator must close it.

    Each child has the whole of the limits. A document whose child the system kills may have lacked the memory that
    others took, so it is parsed once more while no other document is.
    """

    def __init__(self, limits: ParseLimits | None = None, *, most: int = 1) -> None:
        self.limits, self.most = limits, most
        self._changed = threading.Condition()
        self._parsers: list[Parser] = []
        self._idle: list[Parser] = []
        self._starting = 0
        self._start_seconds = 0.0
        self._last_start = 0.0
        self._is_alone = False
        self._is_closed = False

    def __enter__(self) -> ParserPool:
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
            If a process cannot be started.
        RuntimeError
            If the pool is closed, also while the document is parsed.
        """
        try:
            with self._borrowed() as parser:
                return parser.parse(kind, data, stem, keep_all=keep_all)
        except KilledError:
            if self.most == 1:
                raise
        with self._alone() as parser:
            return parser.parse(kind, data, stem, keep_all=keep_all)

    def close(self) -> None:
        """Kill the processes, even if they are busy, and wait for the threads that use them to notice."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            for parser in self._parsers:
                parser.end()
            self._changed.wait_for(lambda: len(self._idle) == len(self._parsers))
            for parser in self._parsers:
                parser.close()

    @contextmanager
    def _borrowed(self) -> Iterator[Parser]:
        """Give a parser that nobody else uses: the one that was used last, or a new one if that is worth its start."""
        parser, is_new = self._take()
        try:
            with self._closing_known():
                if is_new:
                    self._start(parser)
                yield parser
        finally:
            with self._changed:
                self._idle.append(parser)
                self._changed.notify_all()

    def _take(self) -> tuple[Parser, bool]:
        with self._changed:
            arrived = time.monotonic()
            while True:
                self._require_open()
                if self._idle and not self._is_alone:
                    return self._idle.pop(), False
                patience = None
                if self._may_start():
                    patience = max(arrived, self._last_start) + self._start_seconds - time.monotonic()
                    if patience <= 0:
                        return self._add(), True
                self._changed.wait(patience)

    def _may_start(self) -> bool:
        serving = len(self._parsers) - self._starting
        return not self._is_alone and len(self._parsers) < self.most and self._starting < max(serving, 1)

    def _add(self) -> Parser:
        parser = Parser(self.limits)
        self._parsers.append(parser)
        self._starting += 1
        return parser

    def _start(self, parser: Parser) -> None:
        begun = time.monotonic()
        try:
            parser.start()
        finally:
            with self._changed:
                self._starting -= 1
                self._last_start = time.monotonic()
                self._start_seconds = self._last_start - begun
                self._changed.notify_all()

    @contextmanager
    def _alone(self) -> Iterator[Parser]:
        """Wait until no document is parsed; give the only parser that then has a process."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_alone or self._is_closed)
            self._is_alone = True
            self._changed.wait_for(lambda: len(self._idle) == len(self._parsers) or self._is_closed)
            self._require_open()
            for other in self._idle:
                other.close()
            parser = self._idle.pop()
        try:
            with self._closing_known():
                yield parser
        finally:
            with self._changed:
                self._idle.append(parser)
                self._is_alone = False
                self._changed.notify_all()

    @contextmanager
    def _closing_known(self) -> Iterator[None]:
        """Raise what happens to a document because the pool is closed as such."""
        try:
            yield
        except Exception as error:
            if self._is_closed:
                raise RuntimeError("the parsers were closed while a document was parsed") from error
            raise

    def _require_open(self) -> None:
        if self._is_closed:
            raise RuntimeError("the parsers are closed; make new ones")
