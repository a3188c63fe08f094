"""Measure the wall time of the stages of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from isospace.pipeline.executor import PARALLEL, Executor, P, Reporter, Stage, T


class TimedExecutor:
    """Runs stages with another executor, and adds up how long each took.

    Attributes
    ----------
    seconds
        Wall time by name of the stage, in the order in which they began.
    """

    def __init__(self, executor: Executor) -> None:
        self.seconds: dict[str, float] = {}
        self._executor = executor

    @property
    def reporter(self) -> Reporter:
        """The reporter of the run."""
        return self._executor.reporter

    @property
    def address(self) -> str:
        """URL of the page on which people watch the run; empty if there is none."""
        return self._executor.address

    def run(self, stage: Stage[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Run a stage and return its result."""
        with self._timed(stage.name):
            return self._executor.run(stage, *arguments, **keywords)

    def map(self, stage: Stage[Any, T], items: Sequence[tuple[Any, ...]], *, limit: int = PARALLEL) -> list[T]:
        """Run a stage once per item, at most `limit` at a time; return the results in the order of the items."""
        if not items:
            return []
        with self._timed(stage.name):
            return self._executor.map(stage, items, limit=limit)

    def stream(self, stage: Stage[Any, T], items: Iterable[tuple[Any, ...]], *, limit: int) -> Iterator[T]:
        """Run a stage once per tuple of arguments, at most `limit` at a time; yield results as they complete."""
        with self._timed(stage.name):
            yield from self._executor.stream(stage, items, limit=limit)

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        self.seconds.setdefault(name, 0.0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - started
