"""Search a snapshot for the queries of an evaluation set; documents rank by their best chunk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError
from isospace.evaluation.metrics import Run
from isospace.evaluation.query_sets import EvaluationSet
from isospace.search.hits import RankedRows
from isospace.search.options import TEXT_MODES, WORD_MODES, SearchOptions
from isospace.search.vector.topk import Rows
from isospace.search.view import View
from isospace.transform.vectors import Float32

DEPTH = 1000
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class SetRun:
    """The results of one snapshot for an evaluation set.

    Attributes
    ----------
    documents
        Scores of the best chunks, by query_id and doc_id.
    absent
        Number of the set's relevant documents that are not in the snapshot.
    """

    snapshot: int
    snapshot_id: str
    space_id: str
    set_id: str
    documents: Run
    absent: int

    def ranking(self, query_id: str, depth: int = 100) -> list[str]:
        """Return the documents of a query, best first; equal scores are ordered by name."""
        scores = self.documents[query_id]
        return sorted(scores, key=lambda doc: (-scores[doc], doc))[:depth]


def answer_set(
    view: View, query_set: EvaluationSet, options: SearchOptions, *, depth: int = DEPTH, within: Rows | None = None
) -> SetRun:
    """Search for every query of a set.

    The document that a pseudo-query was taken from ranks by the rest of its chunk.

    Parameters
    ----------
    view
        An opened snapshot.
    query_set
        The queries.
    options
        Search options; `depth` replaces their `k`.
    depth
        Number of chunks per query.
    within
        Ascending int64 rows to search; by default, all.

    Raises
    ------
    QueryError
        If the options ask for a reranker, a page, diversity, a threshold, or a mode that pseudo-queries do not support.
    """
    if query_set.remainders and (options.mode in TEXT_MODES or options.metric != "cosine"):
        raise QueryError(
            f"mode {options.mode} with metric {options.metric} does not work with pseudo-queries, whose words are in "
            "the chunk that they were taken from; expected a vector mode with cosine. Use real queries or another mode."
        )
    if options.rerank:
        raise QueryError("evaluation sets are searched without a reranker. Leave rerank out of the search options.")
    if options.offset is not None or options.diversity or options.min_score is not None:
        raise QueryError(
            f"offset = {options.offset}, diversity = {options.diversity}, min_score = {options.min_score}: evaluation "
            "sets are searched without pages, and for all of the most relevant hits. Leave these options out."
        )
    names, texts = list(query_set.queries), list(query_set.queries.values())
    vectors = view.space.embed(texts, "query") if options.mode not in WORD_MODES else None
    wanted = options.model_copy(update={"k": min(depth, len(view.copy)) or 1})
    names_of = _names(view)
    run: Run = {}
    for start in range(0, len(texts), _BLOCK):
        part = slice(start, start + _BLOCK)
        ranked = view.rank(texts[part], None if vectors is None else vectors[part], wanted, within=within)
        for name, hits in zip(names[part], ranked, strict=True):
            run[name] = _best(hits, *names_of)
    if query_set.remainders and vectors is not None:
        _replace_own(view, query_set, names, vectors, run)
    present = set(names_of[1])
    judged = query_set.relevant
    manifest = view.manifest
    return SetRun(
        manifest.sequence, manifest.snapshot_id, manifest.space_id, query_set.set_id, run, absent=len(judged - present)
    )


def latencies(
    sides: Sequence[tuple[View, SearchOptions]], query_set: EvaluationSet, *, k: int = 10, rounds: int = 3
) -> list[npt.NDArray[np.float64]]:
    """Time single searches for a set's queries, alternating between snapshots.

    Returns
    -------
    list of numpy.ndarray
        (m,) seconds for each snapshot: the fastest round of each query, without embedding.
    """
    texts = list(query_set.queries.values())
    embedded = {
        view.space.space_id: view.space.embed(texts, "query")
        for view, options in sides
        if options.mode not in WORD_MODES
    }
    seconds = [np.full(len(texts), np.inf) for _ in sides]
    for _ in range(rounds):
        for number, text in enumerate(texts):
            for place, (view, options) in enumerate(sides):
                vectors = embedded.get(view.space.space_id)
                started = time.perf_counter()
                view.rank(
                    [text],
                    None if vectors is None else vectors[number : number + 1],
                    options.model_copy(update={"k": k}),
                )
                seconds[place][number] = min(seconds[place][number], time.perf_counter() - started)
    return seconds


def _names(view: View) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Return the document of each chunk, and the names of the documents."""
    return view.copy.owners, view.copy.documents["doc_id"].to_pylist()


def _best(ranked: RankedRows, owners: npt.NDArray[np.int32], names: list[str]) -> dict[str, float]:
    best: dict[str, float] = {}
    for row, score in ranked.rows:
        best.setdefault(names[owners[row]], score)
    return best


def _replace_own(view: View, query_set: EvaluationSet, names: Sequence[str], vectors: Float32, run: Run) -> None:
    """Rank the document that a query was taken from by the remainder of its chunk, so that no query finds itself.

    The score never exceeds that of the stored vector: lost documents and wrong vectors must show.
    """
    remainders = view.space.embed([query_set.remainders[name] for name in names], "document").astype(np.float64)
    lengths = np.linalg.norm(remainders, axis=1) * (
        1.0 if view.finest.squares is None else np.linalg.norm(vectors, axis=1)
    )
    scores = (remainders * vectors).sum(axis=1) / np.maximum(lengths, 1e-30)
    for name, score in zip(names, scores, strict=True):
        (own,) = query_set.judgements[name]
        if own in run[name]:
            run[name][own] = min(run[name][own], float(score))
