"""Functions for processes that work on parts: those of a test module would import pytest there."""

from __future__ import annotations

import logging
import os
import sys
import time
from pathlib import Path

from isospace.errors import CheckError
from isospace.pipeline.executor import Reporter


class TwoPartError(Exception):
    """An error that cannot be rebuilt from what it says."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


def tell(reporter: Reporter, number: int) -> tuple[int, int]:
    """Report and log, and return the process and a number."""
    logging.getLogger("isospace.pipeline.chunk").warning("part %d is odd", number)
    logging.getLogger("isospace.pipeline.chunk").debug("part %d in detail", number)
    reporter.info(f"cut part {number}")
    reporter.progress("chunk", number, 9, "some")
    reporter.warning(f"part {number} is long")
    return os.getpid(), number


def fail(reporter: Reporter, kind: str) -> None:
    """Report, and raise an error."""
    reporter.warning("about to fail")
    raise {"check": CheckError("part 7: damaged"), "full": OSError(28, "No space left on device", "/data/x")}.get(
        kind, TwoPartError("part", kind)
    )


def die(reporter: Reporter, marker: Path) -> str:
    """Kill the process, unless a file says that it was done before."""
    if not marker.exists():
        marker.touch()
        os.kill(os.getpid(), 9)
    return "done"


def sleep(reporter: Reporter, started: Path, seconds: float) -> None:
    """Name this process in a file, and sleep."""
    started.with_suffix(".new").write_text(str(os.getpid()))
    started.with_suffix(".new").rename(started)
    time.sleep(seconds)


def imported(reporter: Reporter) -> tuple[str | None, list[str]]:
    """Return the file of the main module, and the import path."""
    return getattr(sys.modules["__main__"], "__file__", None), sys.path


def meet(reporter: Reporter, folder: Path, name: str, others: int) -> int:
    """Wait until so many others are here; return how many were here at most."""
    (folder / name).touch()
    deadline, most = time.monotonic() + 30, 0
    while most < others and time.monotonic() < deadline:
        most = max(most, len(list(folder.iterdir())))
        time.sleep(0.01)
    time.sleep(0.1)
    most = max(most, len(list(folder.iterdir())))
    (folder / name).unlink()
    return most
