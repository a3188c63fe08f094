"""What a static model keeps of its teacher, on texts that it was not fitted to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isospace.encoding.encoder import SentenceEncoder
from isospace.evaluation.comparison import Difference, difference
from isospace.evaluation.metrics import per_query
from isospace.finetuning.benchmark import Benchmark, TextEncoder, rank_benchmark
from isospace.finetuning.distillation.evaluated import Evaluated
from isospace.finetuning.distillation.texts import TaughtTexts
from isospace.ingest.pseudo_queries import make_pseudo_queries
from isospace.transform.vectors import Float32, row_cosines, unit

MEASURE = "nDCG@10"
_TOP, _QUERIES, _TIMED, _REPEATS = 10, 300, 256, 5


@dataclass(frozen=True, slots=True)
class Retrieval:
    """nDCG@10 on the collection's evaluation set.

    Attributes
    ----------
    name, queries
        The set, and the number of its queries that were measured.
    alone
        Static queries and static documents, compared with the teacher's.
    as_query
        Static queries and the teacher's documents, compared with the teacher's queries; None if dimensions differ.
    unseen
        Whether the documents that answer the queries were left out of the fit.
    described
        What was measured, in words.
    """

    name: str
    queries: int
    alone: Difference
    as_query: Difference | None
    unseen: bool
    described: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a static model keeps of its teacher.

    Attributes
    ----------
    cosine
        Mean cosine of held-out texts with the teacher's vectors; None if dimensions differ.
    overlap, overlap_as_query
        Share of the teacher's ten nearest texts that are found, for sentences of held-out texts (or these texts, where
        they have no several sentences): with static queries
        and texts, and with static queries among the teacher's vectors (None if dimensions differ).
    retrieval
        nDCG@10, if the collection has a judged evaluation set.
    speed
        Texts per second, as a multiple of the teacher's, on the same texts and this machine.
    tokens_per_second
        The static model's own tokens.
    """

    cosine: float | None
    overlap: float
    overlap_as_query: float | None
    retrieval: Retrieval | None
    speed: float
    tokens_per_second: float

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def measure_kept(
    taught: TaughtTexts,
    teacher: SentenceEncoder,
    student: SentenceEncoder,
    evaluated: Evaluated | None,
) -> Kept:
    """Measure a static model on held-out texts, and on the queries of an evaluation set if there is one."""
    documents = student.encode(taught.texts, "document")
    same = documents.shape[1] == taught.vectors.shape[1]
    held = taught.held_out
    speed, rate = measure_speed([taught.texts[row] for row in held[:_TIMED]], teacher, student)
    alone, as_query = _overlaps(taught, teacher, student, documents, same=same)
    cosine = float(row_cosines(documents[held], taught.vectors[held]).mean()) if same else None
    retrieval = None
    if evaluated is not None:
        retrieval = _retrieval(taught, teacher, student, documents, evaluated)
    return Kept(cosine, alone, as_query, retrieval, speed, rate)


def measure_speed(texts: Sequence[str], teacher: TextEncoder, student: SentenceEncoder) -> tuple[float, float]:
    """Return how many times as fast the student encodes texts, and its tokens per second."""
    seconds = {}
    for name, encoder, repeats in (("teacher", teacher, 1), ("student", student, _REPEATS)):
        encoder.encode(texts[:8], "document")
        best = np.inf
        for _ in range(repeats):
            started = time.perf_counter()
            encoder.encode(texts, "document")
            best = min(best, time.perf_counter() - started)
        seconds[name] = best
    tokens = sum(len(ids) for ids in student.tokenize(texts, "document"))
    return seconds["teacher"] / seconds["student"], tokens / seconds["student"]


def _overlaps(
    taught: TaughtTexts, teacher: TextEncoder, student: TextEncoder, documents: Float32, *, same: bool
) -> tuple[float, float | None]:
    held = [taught.passages[row] for row in taught.held_out]
    queries = [query.text for query in make_pseudo_queries(held, "sentences", size=_QUERIES, seed=0)]
    # Texts of a single sentence have none to spare: they ask themselves.
    queries = queries or [passage.prefix + passage.text for passage in held[:_QUERIES]]
    expected = _nearest(teacher.encode(queries, "query"), taught.vectors)
    static = student.encode(queries, "query")
    alone = _shared(expected, _nearest(static, documents))
    return alone, _shared(expected, _nearest(static, taught.vectors)) if same else None


def _nearest(queries: Float32, documents: Float32) -> list[set[int]]:
    scores = unit(queries) @ unit(documents).T
    top = min(_TOP, scores.shape[1])
    return [set(row.tolist()) for row in np.argpartition(-scores, top - 1, axis=1)[:, :top]]


def _shared(expected: Sequence[set[int]], found: Sequence[set[int]]) -> float:
    return float(np.mean([len(a & b) / len(a) for a, b in zip(expected, found, strict=True)]))


def _retrieval(
    taught: TaughtTexts,
    teacher: TextEncoder,
    student: TextEncoder,
    documents: Float32,
    evaluated: Evaluated,
) -> Retrieval:
    query_set = evaluated.query_set
    judged = query_set.judged
    bench = Benchmark(
        query_set.name,
        tuple(taught.texts),
        tuple(passage.doc_id for passage in taught.passages),
        {name: query_set.queries[name] for name in judged},
        judged,
        query_set.remainders,
    )

    def values(encoder: TextEncoder, vectors: Float32) -> dict[str, float]:
        return per_query(rank_benchmark(bench, encoder, unit(vectors)), judged, [MEASURE])[MEASURE]

    before = values(teacher, taught.vectors)
    as_query = None
    # Remainders of pseudo-queries would be encoded with the student, and compared with the teacher's documents.
    if documents.shape[1] == taught.vectors.shape[1] and not query_set.remainders:
        as_query = difference(before, values(student, taught.vectors))
    alone = difference(before, values(student, documents))
    return Retrieval(
        query_set.name, len(judged), alone, as_query, unseen=bool(evaluated.left_out), described=evaluated.describe()
    )
