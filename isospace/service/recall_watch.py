"""Search a share of the approximately answered queries exactly, and compare.

This never delays an answer: a separate thread takes queries from a queue, which drops them when it is full.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from isospace.errors import ConfigError
from isospace.search.answer import Answer
from isospace.search.approximate.evidence import ALARM, RecallEvidence
from isospace.search.index import Index
from isospace.search.options import SearchOptions
from isospace.search.remote_view import RemoteView
from isospace.search.view import View

_LOG = logging.getLogger(__name__)
_WAITING = 100


@dataclass(frozen=True, slots=True)
class _Observed:
    view: View
    text: str
    options: SearchOptions
    scores: tuple[float, ...]
    declared: float


class RecallWatch:
    """Watch the recall of approximate searches.

    Attributes
    ----------
    counts
        Numbers of answers that were `compared`, `dropped` because the queue was full, or that `failed` to be compared.
    evidence
        What was observed, by declared recall. It starts anew with every snapshot, whose rules may be others.
    """

    def __init__(self, index: Index, *, share: float, seed: int | None = None) -> None:
        if not 0.0 < share <= 1.0:
            raise ConfigError(f"--watch-recall {share:g}: expected more than 0, and at most 1.")
        self.counts: Counter[str] = Counter()
        self.evidence: dict[float, RecallEvidence] = {}
        self._index, self._share, self._chance = index, share, random.Random(seed)
        self._snapshot = ""
        self._warned: set[float] = set()
        self._waiting: queue.Queue[_Observed | None] = queue.Queue(_WAITING)
        self._worker = threading.Thread(target=self._work, name="isospace-recall", daemon=True)
        self._worker.start()

    def submit(self, view: View, texts: Sequence[str], options: SearchOptions, answers: Sequence[Answer]) -> None:
        """Queue a share of the queries that were searched approximately; returns at once.

        Hits that were fused, reranked, grouped, or selected by other rules are not compared, and neither are those of
        an index without a local copy: an exact search would read all codes from the store.
        """
        chosen_later = options.rerank or options.group_by or options.diversity or options.min_score is not None
        if (
            options.mode not in ("auto", "approximate")
            or chosen_later
            or options.offset
            or isinstance(view, RemoteView)
        ):
            return
        for text, answer in zip(texts, answers, strict=True):
            visited = answer.visited[0] if answer.visited else None
            if visited is None or visited.recall >= 1.0 or self._chance.random() >= self._share:
                continue
            scores = tuple(hit.score for hit in answer.hits[0])
            try:
                self._waiting.put_nowait(_Observed(view, text, options, scores, visited.recall))
            except queue.Full:
                self.counts["dropped"] += 1

    def close(self, seconds: float = 10.0) -> None:
        """Stop, after what is queued or after `seconds`."""
        try:
            self._waiting.put(None, timeout=seconds)
            self._worker.join(seconds)
        except queue.Full:
            _LOG.warning("some queued queries were not compared with an exact search")

    def _work(self) -> None:
        while (seen := self._waiting.get()) is not None:
            try:
                self._compare(seen)
                self.counts["compared"] += 1
            except Exception as error:  # watching must not end the service
                self.counts["failed"] += 1
                _LOG.warning("an answer could not be compared with an exact search: %s", error)

    def _compare(self, seen: _Observed) -> None:
        view = seen.view
        if view.digest != self._snapshot:
            self._snapshot, self.evidence, self._warned = view.digest, {}, set()
        recall = exact_share(view, self._index, seen.text, seen.options, seen.scores)
        if recall is None:
            return
        evidence = self.evidence.setdefault(seen.declared, RecallEvidence(seen.declared))
        evidence.add(recall)
        if evidence.wealth >= ALARM and seen.declared not in self._warned:
            self._warned.add(seen.declared)
            _LOG.warning(
                "approximate searches of snapshot %d find %.4f of the exact hits over %d queries, below the declared "
                "%g: give real queries to the gate and run the pipeline with runtime.refit=true, or raise "
                "recipe.search.recall",
                view.manifest.sequence,
                evidence.mean,
                evidence.count,
                seen.declared,
            )


def exact_share(view: View, index: Index, text: str, options: SearchOptions, scores: Sequence[float]) -> float | None:
    """Return the share of the exact hits that an approximate search found; None if there are no hits at all.

    Scores of both searches have the same bits, so that hits are compared by them: of several that tie with the last
    exact one, any may be found.
    """
    vectors = index.cache.embed(view.space, [text])
    ((_, exact),) = view.nearest(
        view.finest_name,
        view.finest_name,
        vectors,
        options.k,
        metric=options.metric,
        rescore=0,
        rows=view.passing(options.filter, options.scope),
    )
    count = min(options.k, len(exact))
    if not count:
        return None
    lowest = np.partition(exact, len(exact) - count)[len(exact) - count]
    found = sum(bool(score >= lowest) for score in scores)
    return min(count, found) / count
