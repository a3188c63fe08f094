"""Two encoders on one judged corpus, by raw vectors and brute force: what was gained, and what was lost."""

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
from isospace.finetuning.config import BenchSpec
from isospace.finetuning.pairs import passages_of
from isospace.ingest.query_files import Judgements, read_columns, read_judgements, read_queries
from isospace.search.view import View
from isospace.transform.affine import Role
from isospace.transform.isotropy import Isotropy, measure_isotropy
from isospace.transform.vectors import Float32, unit

MEASURES = ("nDCG@10", "R@10", "R@100")
_DEPTH = 100
_SAMPLE = 2_000
_BLOCK = 256


class Encodes(Protocol):
    """What is asked of an encoder here."""

    def encode(self, texts: Sequence[str], role: Role) -> Float32:
        """(n, d) float32 raw vectors."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A judged corpus.

    Attributes
    ----------
    name
        Of it, for people.
    texts, owners
        n texts as they are embedded, and the document of each.
    queries, judgements
        By query_id.
    remainders
        For pseudo-queries: what is left of the text that one was taken from.
    """

    name: str
    texts: tuple[str, ...]
    owners: tuple[str, ...]
    queries: Mapping[str, str]
    judgements: Judgements
    remainders: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Measured:
    """Two encoders on one bench.

    Attributes
    ----------
    name, texts, queries
        The bench and its size.
    measures
        Differences by measure, with interval and p.
    isotropy
        Of the document vectors, before and after.
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
        """Return the figures, without those of every query."""
        return {name: value for name, value in asdict(self).items() if name != "values"}


def bench_of_view(view: View, given: EvaluationSet, *, most: int, seed: int) -> Bench:
    """Return an evaluation set over chunks of its collection: those of relevant documents, and others drawn, up to `most`.

    Raises
    ------
    ConfigError
        If the set has no judgements, or the collection none of its relevant documents.
    """
    judged = given.judged
    if not judged:
        raise ConfigError(
            f"finetune.evaluation = {given.name!r}: has no judgements; expected a set of judged queries, without which "
            "nobody knows what was gained. Freeze one with `isospace sets add`, or make one with `isospace sets make`."
        )
    passages = passages_of(view)
    relevant = given.relevant
    kept = [row for row, passage in enumerate(passages) if passage.doc_id in relevant]
    if not kept:
        raise ConfigError(
            f"finetune.evaluation = {given.name!r}: the collection has none of its {len(relevant)} relevant documents. "
            "Is it the set of another collection?"
        )
    wanted = set(kept)
    others = [row for row in range(len(passages)) if row not in wanted]
    kept += random.Random(seed).sample(others, min(len(others), max(0, most - len(kept))))
    chosen = [passages[row] for row in sorted(kept)]
    return Bench(
        given.name,
        tuple(p.prefix + p.text for p in chosen),
        tuple(p.doc_id for p in chosen),
        {name: given.queries[name] for name in judged},
        judged,
        given.remainders,
    )


def bench_of_files(spec: BenchSpec) -> Bench:
    """Read a judged corpus: texts are `title + " " + text`.

    Raises
    ------
    ConfigError
        If a file cannot be read, or no query is judged.
    """
    rows = read_columns(Path(spec.corpus), ["doc_id", "text"], optional=["title"])
    titles = rows.get("title", [""] * len(rows["text"]))
    texts = [f"{title or ''} {text or ''}".strip() for title, text in zip(titles, rows["text"], strict=True)]
    found = [(str(doc), text) for doc, text in zip(rows["doc_id"], texts, strict=True) if text]
    queries, judgements = read_queries(Path(spec.queries)), read_judgements(Path(spec.judgements))
    judged = {name: docs for name, docs in judgements.items() if name in queries and any(docs.values())}
    if not judged:
        raise ConfigError(f"finetune.outside.judgements = {spec.judgements!r}: judges none of the queries. Same ids?")
    return Bench(
        Path(spec.corpus).parent.name,
        tuple(text for _, text in found),
        tuple(doc for doc, _ in found),
        {name: queries[name] for name in judged},
        judged,
        {},
    )


def compare_encoders(bench: Bench, before: Encodes, after: Encodes) -> Measured:
    """Measure two encoders on a bench; one that is given twice is run once."""
    old_run, old_shape = _measured(bench, before)
    new_run, new_shape = (old_run, old_shape) if after is before else _measured(bench, after)
    old, new = (per_query(run, bench.judgements, MEASURES) for run in (old_run, new_run))
    return Measured(
        bench.name,
        len(bench.texts),
        len(bench.judgements),
        {name: difference(old[name], new[name]) for name in MEASURES},
        (old_shape, new_shape),
        (old[MEASURES[0]], new[MEASURES[0]]),
    )


def _measured(bench: Bench, encoder: Encodes) -> tuple[Run, Isotropy]:
    documents = unit(encoder.encode(list(bench.texts), "document"))
    rows = np.random.default_rng(0).permutation(len(documents))[:_SAMPLE]
    return rank_bench(bench, encoder, documents), measure_isotropy(documents[np.sort(rows)])


def rank_bench(bench: Bench, encoder: Encodes, documents: Float32) -> Run:
    """Rank documents by their best text, by cosine; ties by the order of ir-measures."""
    names = list(bench.queries)
    queries = unit(encoder.encode([bench.queries[name] for name in names], "query"))
    depth = min(len(documents), 10 * _DEPTH)
    run: Run = {}
    for start in range(0, len(names), _BLOCK):
        scores = queries[start : start + _BLOCK] @ documents.T
        best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
        for name, rows, own in zip(names[start : start + _BLOCK], best, scores, strict=True):
            found: dict[str, float] = {}
            for row in rows[np.argsort(-own[rows], kind="stable")]:
                found.setdefault(bench.owners[row], float(own[row]))
            run[name] = dict(list(found.items())[:_DEPTH])
    if bench.remainders:
        _replace_own(bench, encoder, names, queries, run)
    return run


def _replace_own(bench: Bench, encoder: Encodes, names: Sequence[str], queries: Float32, run: Run) -> None:
    """Rank what a pseudo-query was taken from by what is left of it: else the query would find itself."""
    left = unit(encoder.encode([bench.remainders[name] for name in names], "document"))
    for name, score in zip(names, (left * queries).sum(axis=1), strict=True):
        for own in bench.judgements[name]:
            if own in run[name]:
                run[name][own] = min(run[name][own], float(score))
