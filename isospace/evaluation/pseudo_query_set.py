"""Make an evaluation set of pseudo-queries from the corpus; they are easier than queries of people.

Sentences are taken from prose alone. Sets that exist stay as they are: they are stored.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa

from isospace.errors import ConfigError
from isospace.evaluation.query_sets import EvaluationSet
from isospace.ingest.prose import prose_sentences
from isospace.ingest.pseudo_queries import Passage, PseudoKind, PseudoQuery, choose_pseudo_kind, make_pseudo_queries
from isospace.search.local.copy import pick
from isospace.search.view import View

_POOL = 20_000
_FEWEST = 20


def make_set(
    view: View, name: str, *, kind: Literal["auto", "titles", "sentences"] = "auto", size: int = 300, seed: int = 0
) -> EvaluationSet:
    """Make queries from a sample of chunks: each is a sentence of the document that answers it, or its title.

    Parameters
    ----------
    view
        An opened snapshot.
    name
        Name of the set.
    kind
        What a query is made of; `auto` uses sentences if chunks have several.
    size
        Maximum number of queries, at most one per document.
    seed
        Seed of the sample and of the choice of sentences.

    Raises
    ------
    ConfigError
        If fewer than 20 queries can be queries.
    """
    places = sorted(random.Random(seed).sample(range(len(view.copy)), min(_POOL, len(view.copy))))
    rows = view.copy.rows[np.array(places, np.int64)]
    owners = view.copy.documents.select(["doc_id", "title"]).take(pa.array(view.copy.owners[rows])).to_pylist()
    texts = pick(view.copy.chunks.select(["prefix", "text"]), rows)
    passages = [Passage(d["doc_id"], d["title"], c["prefix"], c["text"]) for d, c in zip(owners, texts, strict=True)]
    chosen, queries = _made(passages, kind, size, seed)
    if len(queries) < _FEWEST:
        raise ConfigError(
            f"only {len(queries)} {chosen} of {len(passages)} chunks can serve as queries; expected {_FEWEST} or more. "
            "Give real queries with `isospace sets add`."
        )
    names = [f"p{number:05d}" for number in range(1, len(queries) + 1)]
    return EvaluationSet(
        name=name,
        kind="pseudo",
        queries={key: query.text for key, query in zip(names, queries, strict=True)},
        judgements={key: {passages[query.passage].doc_id: 1} for key, query in zip(names, queries, strict=True)},
        remainders={key: query.remainder for key, query in zip(names, queries, strict=True)},
    )


def _made(
    passages: Sequence[Passage], kind: Literal["auto", "titles", "sentences"], size: int, seed: int
) -> tuple[PseudoKind, list[PseudoQuery]]:
    """Return the queries, of whole sentences if there are enough: some corpora and scripts do without full stops."""
    for ended in (True, False):
        find = partial(prose_sentences, ended=ended)
        chosen = choose_pseudo_kind(passages, kind, find)
        queries = make_pseudo_queries(passages, chosen, size=size, seed=seed, find=find)
        if len(queries) >= _FEWEST:
            break
    return chosen, queries
