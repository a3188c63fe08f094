"""Pairs from where they can be had: the documents themselves, judged queries, files."""

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
from isospace.search.view import View

_HEADING = re.compile(r"#{1,6}[ \t]+(?P<heading>[^\n]+?)[ \t#]*\n+(?P<body>.+)", re.DOTALL)
_FEWEST_WORDS = 4


def collect_pairs(view: View, spec: CorpusPairs | JudgedPairs | FilePairs, *, seed: int) -> list[Example]:
    """Make the pairs of one source.

    Parameters
    ----------
    view
        The collection, opened with its encoder.
    spec
        The source.
    seed
        Of what is drawn.

    Raises
    ------
    ConfigError
        If a file cannot be read, or holds what is no pair.
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
    owners = view.copy.chunks["document"].to_numpy()
    documents = view.copy.documents.select(["doc_id", "title"]).to_pydict()
    prefixes, texts = (view.copy.chunks[name].to_pylist() for name in ("prefix", "text"))
    return [
        Passage(documents["doc_id"][owner], documents["title"][owner], prefix, text)
        for owner, prefix, text in zip(owners, prefixes, texts, strict=True)
    ]


def _from_corpus(view: View, spec: CorpusPairs, seed: int) -> list[Example]:
    passages = passages_of(view)
    if spec.kind == "headings":
        return _from_headings(passages, spec.most, seed)
    made = make_pseudo_queries(passages, spec.kind, size=spec.most, seed=seed)
    return [Example(query.text, query.remainder, passages[query.passage].doc_id, spec.kind) for query in made]


def _from_headings(passages: Sequence[Passage], most: int, seed: int) -> list[Example]:
    """Take chunks that begin with a heading: under it stands what it asks for."""
    found, seen = [], set()
    order = list(range(len(passages)))
    random.Random(seed).shuffle(order)
    for row in order:
        passage = passages[row]
        parts = _HEADING.match(passage.text)
        if parts is None or passage.doc_id in seen or len(parts["body"].split()) < 2 * _FEWEST_WORDS:
            continue
        seen.add(passage.doc_id)
        # A heading such as Usage asks for nothing without its title.
        anchor = f"{passage.prefix}{parts['heading']}".strip()
        if len(anchor.split()) >= _FEWEST_WORDS:
            found.append(Example(anchor, parts["body"].strip(), passage.doc_id, "headings"))
        if len(found) == most:
            break
    return found


def _from_judgements(view: View, spec: JudgedPairs) -> list[Example]:
    judgements = Path(spec.judgements) if spec.judgements else None
    given = load_set("training", Path(spec.queries), judgements, split=spec.split)
    if not given.judged:
        raise ConfigError(
            f"finetune.pairs, queries {spec.queries!r}: no query has a relevant document. Give its judgements."
        )
    return judged_examples(view, given)


def judged_examples(view: View, given: EvaluationSet) -> list[Example]:
    """Pair each judged query with each document that answers it: with the chunk that the base model finds nearest."""
    rows_of = _chunks_of(view, {doc for found in given.judged.values() for doc in found})
    names = list(given.judged)
    vectors = view.space.embed([given.queries[name] for name in names], "query")
    found = []
    for name, query in zip(names, vectors, strict=True):
        for doc, relevance in given.judged[name].items():
            rows = rows_of.get(doc)
            if relevance > 0 and rows is not None:
                best = int(rows[int(np.argmax(vectors_at(view, rows) @ query))])
                found.append(Example(given.queries[name], next(iter(view.texts([best]))), doc, "judged"))
    return found


def _chunks_of(view: View, doc_ids: set[str]) -> dict[str, npt.NDArray[np.int64]]:
    names = view.copy.documents["doc_id"].to_pylist()
    rows: dict[str, list[int]] = defaultdict(list)
    owners = view.copy.chunks["document"].to_numpy()
    for row, owner in enumerate(owners):
        if names[owner] in doc_ids:
            rows[names[owner]].append(row)
    return {doc: np.array(found, np.int64) for doc, found in rows.items()}
