"""The access log: one JSON object per line and request, without texts and keys."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from isospace.errors import ConfigError

STDOUT = "-"
_WAITING = 10_000
_LOG = logging.getLogger(__name__)


class AccessLog:
    """Write lines to a file, or to standard output, in a thread: a slow disk delays no answer.

    A file is appended to, and opened again after it was moved or removed, as logrotate does.

    Attributes
    ----------
    dropped
        Lines that were not written, because the disk or the reader of standard output was too slow, or the disk full.

    Raises
    ------
    ConfigError
        If the file cannot be written.
    """

    def __init__(self, target: str) -> None:
        self.dropped = 0
        self._failed = False
        self._path = None if target == STDOUT else Path(target)
        self._stream = sys.stdout if self._path is None else _opened(self._path)
        self._waiting: queue.Queue[Mapping[str, Any] | None] = queue.Queue(_WAITING)
        self._worker = threading.Thread(target=self._work, name="isospace-access-log", daemon=True)
        self._worker.start()

    def write(self, record: Mapping[str, Any]) -> None:
        """Queue a line; returns at once."""
        try:
            self._waiting.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def close(self, seconds: float = 5.0) -> None:
        """Write what is queued, for at most `seconds`."""
        try:
            self._waiting.put(None, timeout=seconds)
            self._worker.join(seconds)
        except queue.Full:
            _LOG.warning("some lines of the access log were not written: its disk or reader is too slow")

    def _work(self) -> None:
        is_open = True
        while is_open:
            records = [self._waiting.get()]
            while len(records) < _WAITING and not self._waiting.empty():
                records.append(self._waiting.get_nowait())
            # A request that was canceled may still have queued a line behind the end.
            is_open = None not in records
            self._write_lines([json.dumps(record, ensure_ascii=True) for record in records if record is not None])
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._stream.close()

    def _write_lines(self, lines: list[str]) -> None:
        if not lines:
            return
        try:
            # In one piece, so that the lines of two services in one file do not mix.
            self._open_again()
            self._stream.write("".join(f"{line}\n" for line in lines))
            self._stream.flush()
            self._failed = False
        except (OSError, ValueError, ConfigError) as error:
            self.dropped += len(lines)
            if not self._failed:
                _LOG.warning("the access log cannot be written: %s", error)
            self._failed = True
            if self._path is not None:
                # Otherwise the lines would be written when there is room again, some of them cut.
                with contextlib.suppress(OSError):
                    self._stream.close()

    def _open_again(self) -> None:
        """Open the file again if another one, or none, has its name by now."""
        if self._path is None:
            return
        if not self._stream.closed and self._path.exists():
            ours, named = os.fstat(self._stream.fileno()), self._path.stat()
            if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino):
                return
        with contextlib.suppress(OSError):
            self._stream.close()
        self._stream = _opened(self._path)


def _opened(path: Path) -> TextIO:
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"--access-log {path}: cannot be written ({error.strerror or error}). Give a file in an existing folder, "
            f"or {STDOUT} for standard output."
        ) from error
