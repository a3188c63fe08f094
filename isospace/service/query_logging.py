"""Log a sample of the answers and, if there is a candidate snapshot, search it for the same queries.

This never delays an answer: a separate thread takes answers from a queue, which drops them when it is full.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from isospace.errors import ConfigError
from isospace.evaluation.rank_agreement import rank_biased_overlap, top_overlap
from isospace.operations.audit.query_log import AnswerLog, LoggedAnswer, query_hash
from isospace.search.hits import Hit
from isospace.search.index import Index
from isospace.search.options import TEXT_MODES, WORD_MODES, SearchOptions
from isospace.search.view import View

_LOG = logging.getLogger(__name__)
_WAITING = 1_000
_LOGGED_HITS, _COMPARED = 10, 100
_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Observed:
    at: datetime
    view: View
    text: str
    options: SearchOptions
    documents: tuple[str, ...]
    scores: tuple[float, ...]


class Watcher:
    """Log a share of the answers, and compare a candidate on them.

    Attributes
    ----------
    counts
        Numbers of answers that were `seen`, `skipped` because they are not in the sample, `dropped` because the queue
        was full, or that `failed` to be logged; and of those that the candidate could not answer, `candidate_failed`.
    """

    def __init__(
        self,
        index: Index,
        log: AnswerLog,
        *,
        share: float = 1.0,
        keep_texts: bool = True,
        candidate: Index | None = None,
        seed: int | None = None,
    ) -> None:
        if not 0.0 < share <= 1.0:
            raise ConfigError(f"--log-share {share:g}: expected more than 0, and at most 1.")
        self.counts: Counter[str] = Counter()
        self._index, self._log, self._candidate = index, log, candidate
        self._share, self._keep_texts, self._chance = share, keep_texts, random.Random(seed)
        self._waiting: queue.Queue[_Observed | None] = queue.Queue(_WAITING)
        self._worker = threading.Thread(target=self._work, name="isospace-watch", daemon=True)
        self._worker.start()

    def submit(self, view: View, texts: Sequence[str], options: SearchOptions, hits: Sequence[Sequence[Hit]]) -> None:
        """Queue the answers to some queries; returns at once."""
        for text, query_hits in zip(texts, hits, strict=True):
            self.counts["seen"] += 1
            if self._chance.random() >= self._share:
                self.counts["skipped"] += 1
                continue
            try:
                self._waiting.put_nowait(_observed(view, text, options, query_hits))
            except queue.Full:
                self.counts["dropped"] += 1

    def outcomes(self) -> Counter[str]:
        """Return the number of answers by outcome: `counts`, those `logged` and `lost`, and those still `waiting`."""
        counts = Counter({**self.counts, "logged": self._log.written, "lost": self._log.lost})
        ended = sum(counts[name] for name in ("skipped", "dropped", "failed", "logged", "lost"))
        counts["waiting"] = max(counts["seen"] - ended, 0)
        return counts

    def flush(self) -> None:
        """Write what has been logged so far, without waiting until there is more."""
        self._log.flush()

    def close(self, seconds: float = 10.0) -> None:
        """Process the queued answers for at most `seconds`, and write the log."""
        try:
            self._waiting.put(None, timeout=seconds)
            self._worker.join(seconds)
        except queue.Full:
            _LOG.warning("some queued answers were not logged: the candidate is too slow")
        self._log.flush()

    def _work(self) -> None:
        while True:
            try:
                seen = self._waiting.get(timeout=_IDLE_SECONDS)
            except queue.Empty:
                self._log.flush_old()
                continue
            if seen is None:
                return
            try:
                self._log.add(self._log_row(seen))
            except Exception as error:  # a log must not end the service
                self.counts["failed"] += 1
                _LOG.warning("an answer could not be logged: %s", error)

    def _log_row(self, seen: _Observed) -> LoggedAnswer:
        manifest, options = seen.view.manifest, seen.options
        vector = None
        if options.mode not in WORD_MODES:
            vector = self._index.cache.embed(seen.view.space, [seen.text])[0]
        documents = list(dict.fromkeys(seen.documents))
        candidate, theirs = self._ask_candidate(seen)
        return LoggedAnswer(
            at=seen.at,
            snapshot=manifest.sequence,
            snapshot_id=manifest.snapshot_id,
            space_id=manifest.space_id,
            alias=self._index.alias,
            verified=self._index.verified,
            mode=options.mode,
            cosine=_are_cosines(options),
            query_sha256=query_hash(seen.text),
            text=seen.text if self._keep_texts else None,
            vector=vector,
            doc_ids=seen.documents[:_LOGGED_HITS],
            scores=seen.scores[:_LOGGED_HITS],
            candidate=candidate,
            candidate_doc_ids=None if theirs is None else tuple(theirs[:_LOGGED_HITS]),
            overlap=None if theirs is None else top_overlap(documents, theirs, _LOGGED_HITS),
            rbo=None if theirs is None else rank_biased_overlap(documents, theirs),
        )

    def _ask_candidate(self, seen: _Observed) -> tuple[int | None, list[str] | None]:
        """Search the candidate for the same query; return its snapshot number and documents.

        Both are None if there is no candidate, if the candidate itself gave the answer, or if its search failed.
        """
        if self._candidate is None:
            return None, None
        view = self._candidate.view
        if view.manifest.snapshot_id == seen.view.manifest.snapshot_id:
            return None, None
        asked = seen.options.model_copy(update={"rerank": False, "snapshot_id": None})
        try:
            answer = self._candidate.answer(seen.text, asked, view=view)
        except Exception as error:  # if the candidate fails, the answer is still logged
            self.counts["candidate_failed"] += 1
            _LOG.warning("candidate snapshot %d could not answer: %s", view.manifest.sequence, error)
            return None, None
        return view.manifest.sequence, list(dict.fromkeys(hit.doc_id for hit in answer.hits[0]))


def _observed(view: View, text: str, options: SearchOptions, hits: Sequence[Hit]) -> _Observed:
    # Only documents and scores: a thousand queued answers must not hold the texts of their hits in memory.
    first = hits[:_COMPARED]
    documents, scores = tuple(hit.doc_id for hit in first), tuple(hit.score for hit in first)
    return _Observed(datetime.now(UTC), view, text, options, documents, scores)


def _are_cosines(options: SearchOptions) -> bool:
    is_by_vectors = options.mode not in TEXT_MODES and options.metric == "cosine"
    # Diverse hits are not the nearest ones, and with a threshold, low scores are missing.
    is_whole = not options.diversity and options.min_score is None
    return is_by_vectors and is_whole and not options.rerank
