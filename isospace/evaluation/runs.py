"""A snapshot's answers to an evaluation set: documents ranked by their best chunk, as its users would get them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from isospace.errors import QueryError
from isospace.evaluation.metrics import Run
from isospace.evaluation.query_sets import EvaluationSet
from isospace.search.options import SearchOptions
from isospace.search.vector.topk import Rows
from isospace.search.view import RankedRows, View
from isospace.transform.vectors import Float32

DEPTH = 1000
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class SetRun:
    """What one snapshot answered.

    Attributes
    ----------
    snapshot, snapshot_id, space_id
        Which snapshot.
    set_id
        Which queries.
    documents
        Scores by query_id and doc_id, of the best chunks.
    absent
        Relevant documents of the set that the snapshot does not have.
    """

    snapshot: int
    snapshot_id: str
    space_id: str
    set_id: str
    documents: Run

    absent: int

    def ranking(self, query_id: str, depth: int = 100) -> list[str]:
        """Return the documents of a query, best first, equal scores by name."""
        found = self.documents[query_id]
        return sorted(found, key=lambda doc: (-found[doc], doc))[:depth]


def answer_set(
    view: View, given: EvaluationSet, options: SearchOptions, *, depth: int = DEPTH, within: Rows | None = None
) -> SetRun:
    """Search every query of a set.

    Parameters
    ----------
    view
        An opened snapshot.
    given
        The queries.
    options
        How they are searched; `k` is `depth` here.
    depth
        Chunks a query. Of pseudo-queries, the document that one was taken from ranks by what is left of its chunk.
    within
        Ascending int64 rows that are searched; all if not given.

    Raises
    ------
    QueryError
        If the options ask for a reranker: it is compared with `benchmarks`, not gated.
    """
    if given.remainders and (options.mode in ("lexical", "hybrid") or options.metric != "cosine"):
        raise QueryError(
            f"pseudo-queries are searched by vectors and cosine, not mode {options.mode}, metric {options.metric}: "
            "their words stand in the chunk they were taken from. Use real queries, or another mode."
        )
    if options.rerank:
        raise QueryError(
            "an evaluation set is answered without a reranker. Leave rerank out of the gate's search options."
        )
    names, texts = list(given.queries), list(given.queries.values())
    vectors = view.space.embed(texts, "query") if options.mode != "lexical" else None
    wanted = options.model_copy(update={"k": min(depth, len(view.copy)) or 1})
    names_of = _names(view)
    run: Run = {}
    for start in range(0, len(texts), _BLOCK):
        part = slice(start, start + _BLOCK)
        ranked = view.rank(texts[part], None if vectors is None else vectors[part], wanted, within=within)
        for name, one in zip(names[part], ranked, strict=True):
            run[name] = _best(one, *names_of)
    if given.remainders and vectors is not None:
        _replace_own(view, given, names, vectors, run)
    present = set(names_of[1])
    judged = given.relevant
    manifest = view.manifest
    return SetRun(
        manifest.sequence, manifest.snapshot_id, manifest.space_id, given.set_id, run, absent=len(judged - present)
    )


def latencies(
    sides: Sequence[tuple[View, SearchOptions]], given: EvaluationSet, *, k: int = 10, rounds: int = 3
) -> list[npt.NDArray[np.float64]]:
    """Time single searches of a set's queries in several snapshots, turn by turn.

    Returns
    -------
    list of numpy.ndarray
        (m,) seconds for each snapshot: the quickest of the rounds of each query, without what embedding took.
    """
    texts = list(given.queries.values())
    embedded = {
        view.space.space_id: view.space.embed(texts, "query") for view, options in sides if options.mode != "lexical"
    }
    seconds = [np.full(len(texts), np.inf) for _ in sides]
    for _ in range(rounds):
        for number, text in enumerate(texts):
            for place, (view, options) in enumerate(sides):
                vectors = embedded.get(view.space.space_id)
                begun = time.perf_counter()
                view.rank(
                    [text],
                    None if vectors is None else vectors[number : number + 1],
                    options.model_copy(update={"k": k}),
                )
                seconds[place][number] = min(seconds[place][number], time.perf_counter() - begun)
    return seconds


def _names(view: View) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Return the document of each chunk, and the names of the documents."""
    return view.copy.chunks["document"].to_numpy(), view.copy.documents["doc_id"].to_pylist()


def _best(ranked: RankedRows, owners: npt.NDArray[np.int64], names: list[str]) -> dict[str, float]:
    best: dict[str, float] = {}
    for row, score in ranked.rows:
        best.setdefault(names[owners[row]], score)
    return best


def _replace_own(view: View, given: EvaluationSet, names: Sequence[str], vectors: Float32, run: Run) -> None:
    """Rank the document that a query was taken from by the remainder of its chunk: else the query would find itself.

    Never higher than by what is stored: a document that is lost, or a vector that is wrong, must not be found.
    """
    remainders = view.space.embed([given.remainders[name] for name in names], "document").astype(np.float64)
    lengths = np.linalg.norm(remainders, axis=1) * (
        1.0 if view.finest.squares is None else np.linalg.norm(vectors, axis=1)
    )
    scores = (remainders * vectors).sum(axis=1) / np.maximum(lengths, 1e-30)
    for name, score in zip(names, scores, strict=True):
        (own,) = given.judgements[name]
        if own in run[name]:
            run[name][own] = min(run[name][own], float(score))
