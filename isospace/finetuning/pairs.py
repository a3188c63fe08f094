"""Collect training pairs from the documents themselves, from judged queries, and from files."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from isospace.errors import ConfigError
from isospace.evaluation.norms import vectors_at
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet
from isospace.finetuning.config import CorpusPairs, FilePairs, JudgedPairs
from isospace.finetuning.examples import Example, read_examples
from isospace.ingest.pseudo_queries import Passage, make_pseudo_queries
from isospace.search.local.copy import take_rows
from isospace.search.view import View

_HEADING = re.compile(r"#{1,6}[ \t]+(?P<heading>[^\n]+?)[ \t#]*\n+(?P<body>.+)", re.DOTALL)
_MIN_WORDS = 4


def collect_pairs(view: View, spec: CorpusPairs | JudgedPairs | FilePairs, *, seed: int) -> list[Example]:
    """Make the pairs of one source.

    Parameters
    ----------
    view
        The collection, opened with its encoder.
    spec
        The source.
    seed
        Seed for the random choice of documents.

    Raises
    ------
    ConfigError
        If a file cannot be read, or has an invalid pair.
    """
    match spec:
        case CorpusPairs():
            return _from_corpus(view, spec, seed)
        case JudgedPairs():
            return _from_judgements(view, spec)
        case FilePairs():
            return read_examples(Path(spec.path))


def passages_of(view: View) -> list[Passage]:
    """Return every chunk of a snapshot with its document."""
    chunks = take_rows(view.copy.chunks, view.copy.rows)
    documents = view.copy.documents.select(["doc_id", "title"]).to_pydict()
    owners, prefixes, texts = (chunks[name].to_pylist() for name in ("document", "prefix", "text"))
    return [
        Passage(documents["doc_id"][owner], documents["title"][owner], prefix, text)
        for owner, prefix, text in zip(owners, prefixes, texts, strict=True)
    ]


def _from_corpus(view: View, spec: CorpusPairs, seed: int) -> list[Example]:
    passages = passages_of(view)
    if spec.kind == "headings":
        return _from_headings(passages, spec.most, seed)
    queries = make_pseudo_queries(passages, spec.kind, size=spec.most, seed=seed)
    return [Example(query.text, query.remainder, passages[query.passage].doc_id, spec.kind) for query in queries]


def _from_headings(passages: Sequence[Passage], most: int, seed: int) -> list[Example]:
    """Pair headings with their sections, from chunks that begin with a heading."""
    examples, seen = [], set()
    order = list(range(len(passages)))
    random.Random(seed).shuffle(order)
    for row in order:
        passage = passages[row]
        parts = _HEADING.match(passage.text)
        if parts is None or passage.doc_id in seen or len(parts["body"].split()) < 2 * _MIN_WORDS:
            continue
        seen.add(passage.doc_id)
        # A heading such as "Usage" says nothing without the title.
        anchor = f"{passage.prefix}{parts['heading']}".strip()
        if len(anchor.split()) >= _MIN_WORDS:
            examples.append(Example(anchor, parts["body"].strip(), passage.doc_id, "headings"))
        if len(examples) == most:
            break
    return examples


def _from_judgements(view: View, spec: JudgedPairs) -> list[Example]:
    judgements = Path(spec.judgements) if spec.judgements else None
    query_set = load_set("training", Path(spec.queries), judgements, split=spec.split)
    if not query_set.judged:
        raise ConfigError(
            f"finetune.pairs, queries {spec.queries!r}: no query has a relevant document. Set judgements to a file "
            "with relevance judgements for these queries."
        )
    return judged_examples(view, query_set)


def judged_examples(view: View, query_set: EvaluationSet) -> list[Example]:
    """Pair each judged query with each relevant document, by the chunk closest to the query."""
    rows_of = _chunks_of(view, {doc for judgements in query_set.judged.values() for doc in judgements})
    names = list(query_set.judged)
    vectors = view.space.embed([query_set.queries[name] for name in names], "query")
    examples = []
    for name, query in zip(names, vectors, strict=True):
        for doc, relevance in query_set.judged[name].items():
            rows = rows_of.get(doc)
            if relevance > 0 and rows is not None:
                best = int(rows[int(np.argmax(vectors_at(view, rows) @ query))])
                examples.append(Example(query_set.queries[name], next(iter(view.texts([best]))), doc, "judged"))
    return examples


def _chunks_of(view: View, doc_ids: set[str]) -> dict[str, npt.NDArray[np.int64]]:
    names = view.copy.documents["doc_id"].to_pylist()
    rows: dict[str, list[int]] = defaultdict(list)
    for row in view.copy.rows:
        if (name := names[view.copy.owners[row]]) in doc_ids:
            rows[name].append(int(row))
    return {doc: np.array(numbers, np.int64) for doc, numbers in rows.items()}
