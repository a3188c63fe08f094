"""Compare two encoders on one judged corpus, with raw vectors and exact search."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from isospace.errors import ConfigError
from isospace.evaluation.comparison import Difference, difference
from isospace.evaluation.metrics import Run, per_query
from isospace.evaluation.query_sets import EvaluationSet
from isospace.finetuning.config import BenchmarkSpec
from isospace.finetuning.pairs import passages_of
from isospace.ingest.query_files import Judgements, read_columns, read_ids, read_judgements, read_queries
from isospace.search.view import View
from isospace.transform.affine import Role
from isospace.transform.isotropy import Isotropy, measure_isotropy
from isospace.transform.vectors import Float32, unit

MEASURES = ("nDCG@10", "R@10", "R@100")
_DEPTH = 100
_SAMPLE = 2_000
_BLOCK = 256


class TextEncoder(Protocol):
    """What a benchmark needs from an encoder."""

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """Return the (n, d) float32 raw vectors of n texts."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A corpus with judged queries.

    Attributes
    ----------
    name
        Display name.
    texts, owners
        n texts as they are embedded, and the doc_id of each.
    queries, judgements
        Texts and relevance judgements, by query_id.
    remainders
        For pseudo-queries, by query_id: the source text without the part that became the query.
    """

    name: str
    texts: tuple[str, ...]
    owners: tuple[str, ...]
    queries: Mapping[str, str]
    judgements: Judgements
    remainders: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EncoderComparison:
    """The results of two encoders on one benchmark.

    Attributes
    ----------
    name, texts, queries
        Name of the benchmark, and its number of texts and queries.
    measures
        Differences by metric, with confidence interval and p-value.
    isotropy
        Isotropy of the document vectors, before and after.
    values
        nDCG@10 of every query, before and after.
    """

    name: str
    texts: int
    queries: int
    measures: dict[str, Difference]
    isotropy: tuple[Isotropy, Isotropy]
    values: tuple[dict[str, float], dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Return the results as a dictionary, without the values of single queries."""
        return {name: value for name, value in asdict(self).items() if name != "values"}


def benchmark_from_view(view: View, query_set: EvaluationSet, *, most: int, seed: int) -> Benchmark:
    """Build a benchmark from an evaluation set and chunks of its collection.

    It has every chunk of a relevant document, and random others up to `most` chunks in all.

    Raises
    ------
    ConfigError
        If the set has no relevance judgements, or none of its relevant documents is in the collection.
    """
    judged = query_set.judged
    if not judged:
        raise ConfigError(
            f"finetune.evaluation = {query_set.name!r}: has no judgements; expected a set of judged queries, needed to "
            "measure the improvement. Add one with `isospace sets add`, or create one with `isospace sets make`."
        )
    passages = passages_of(view)
    relevant = query_set.relevant
    rows = [row for row, passage in enumerate(passages) if passage.doc_id in relevant]
    if not rows:
        raise ConfigError(
            f"finetune.evaluation = {query_set.name!r}: the collection has none of its {len(relevant)} relevant "
            "documents. Use a set that was made for this collection."
        )
    relevant_rows = set(rows)
    others = [row for row in range(len(passages)) if row not in relevant_rows]
    rows += random.Random(seed).sample(others, min(len(others), max(0, most - len(rows))))
    selected = [passages[row] for row in sorted(rows)]
    return Benchmark(
        query_set.name,
        tuple(p.prefix + p.text for p in selected),
        tuple(p.doc_id for p in selected),
        {name: query_set.queries[name] for name in judged},
        judged,
        query_set.remainders,
    )


def benchmark_from_files(spec: BenchmarkSpec) -> Benchmark:
    """Read a judged corpus from files; the embedded texts are `title + " " + text`.

    Raises
    ------
    ConfigError
        If a file cannot be read, or no query is judged.
    """
    rows = read_columns(Path(spec.corpus), ["doc_id", "text"], optional=["title"])
    titles = rows.get("title", [""] * len(rows["text"]))
    texts = [f"{title or ''} {text or ''}".strip() for title, text in zip(titles, rows["text"], strict=True)]
    doc_ids = read_ids(Path(spec.corpus), rows["doc_id"], "doc_id")
    documents = [(doc, text) for doc, text in zip(doc_ids, texts, strict=True) if text]
    queries, judgements = read_queries(Path(spec.queries)), read_judgements(Path(spec.judgements))
    judged = {name: docs for name, docs in judgements.items() if name in queries and any(docs.values())}
    if not judged:
        raise ConfigError(
            f"finetune.outside.judgements = {spec.judgements!r}: no query of {spec.queries!r} has a relevant document. "
            "Check that both files use the same query_id."
        )
    return Benchmark(
        Path(spec.corpus).parent.name,
        tuple(text for _, text in documents),
        tuple(doc for doc, _ in documents),
        {name: queries[name] for name in judged},
        judged,
        {},
    )


def compare_encoders(bench: Benchmark, before: TextEncoder, after: TextEncoder) -> EncoderComparison:
    """Evaluate two encoders on a benchmark; the same encoder twice is evaluated once."""
    old_run, old_isotropy = _evaluate(bench, before)
    new_run, new_isotropy = (old_run, old_isotropy) if after is before else _evaluate(bench, after)
    old, new = (per_query(run, bench.judgements, MEASURES) for run in (old_run, new_run))
    return EncoderComparison(
        bench.name,
        len(bench.texts),
        len(bench.judgements),
        {name: difference(old[name], new[name]) for name in MEASURES},
        (old_isotropy, new_isotropy),
        (old[MEASURES[0]], new[MEASURES[0]]),
    )


def _evaluate(bench: Benchmark, encoder: TextEncoder) -> tuple[Run, Isotropy]:
    documents = unit(encoder.encode(list(bench.texts), "document"))
    rows = np.random.default_rng(0).permutation(len(documents))[:_SAMPLE]
    return rank_benchmark(bench, encoder, documents), measure_isotropy(documents[np.sort(rows)])


def rank_benchmark(bench: Benchmark, encoder: TextEncoder, documents: Float32) -> Run:
    """Rank documents by the cosine of their best text."""
    names = list(bench.queries)
    queries = unit(encoder.encode([bench.queries[name] for name in names], "query"))
    depth = min(len(documents), 10 * _DEPTH)
    run: Run = {}
    for start in range(0, len(names), _BLOCK):
        scores = queries[start : start + _BLOCK] @ documents.T
        best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        for name, rows, own in zip(names[start : start + _BLOCK], best, scores, strict=True):
            ranking: dict[str, float] = {}
            for row in rows[np.argsort(-own[rows], kind="stable")]:
                ranking.setdefault(bench.owners[row], float(own[row]))
            run[name] = dict(list(ranking.items())[:_DEPTH])
    if bench.remainders:
        _replace_own(bench, encoder, names, queries, run)
    return run


def _replace_own(bench: Benchmark, encoder: TextEncoder, names: Sequence[str], queries: Float32, run: Run) -> None:
    """Score a pseudo-query's source without the query's text; otherwise the query would find itself."""
    remainders = unit(encoder.encode([bench.remainders[name] for name in names], "document"))
    for name, score in zip(names, (remainders * queries).sum(axis=1), strict=True):
        for own in bench.judgements[name]:
            if own in run[name]:
                run[name][own] = min(run[name][own], float(score))
