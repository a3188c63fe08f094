"""Hard negatives: what BM25 and the base model rank high for an anchor, and is none of its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from isospace.errors import ConfigError
from isospace.evaluation.norms import vectors_at
from isospace.finetuning.config import NegativesSpec
from isospace.finetuning.decontaminate import is_near_duplicate, phrases
from isospace.finetuning.examples import Example, digest_of
from isospace.finetuning.workdir import keep_negatives, kept_negatives
from isospace.search.options import SearchOptions
from isospace.search.reranker import Reranker
from isospace.search.view import View
from isospace.storage.hashing import fingerprint

_MODES: Mapping[str, Literal["lexical", "auto"]] = {"lexical": "lexical", "dense": "auto"}
_BLOCK = 64
# Raised with every change of what is taken: what was mined before is found by it.
_MINING = 1


@dataclass(frozen=True, slots=True)
class Mined:
    """Examples with their negatives.

    Attributes
    ----------
    examples
        In the order they were given; those for which too few were found are left out.
    short
        How many were left out.
    refused
        Candidates that were not taken, by reason.
    key
        Fingerprint of everything that decides which texts were taken.
    """

    examples: tuple[Example, ...]
    short: int
    refused: dict[str, int]
    key: str


def mining_key(
    view: View, examples: Sequence[Example], spec: NegativesSpec, excluded: Set[str], reranker: Reranker | None
) -> str:
    """Return the fingerprint of what decides which negatives are mined: model, prompts, snapshot, pairs, parameters."""
    record = view.space.encoder.record
    return fingerprint(
        {
            "mining": _MINING,
            "encoder_id": record.encoder_id,
            "prompts": dict(record.prompts),
            "space_id": view.space.space_id,
            "snapshot_id": view.manifest.snapshot_id,
            "examples": digest_of(examples),
            "spec": spec.model_dump(mode="json", exclude={"reranker"}),
            "excluded": sorted(excluded),
            "reranker_id": reranker.reranker_id if reranker else None,
            "words": None if view.lexical is None else view.lexical.spec.model_dump(mode="json"),
        }
    )


def mine_negatives(
    view: View,
    examples: Sequence[Example],
    spec: NegativesSpec,
    *,
    excluded: Set[str] = frozenset(),
    reranker: Reranker | None = None,
) -> Mined:
    """Find hard negatives for examples that have none of their own, or return those that were found on this machine before.

    Parameters
    ----------
    view
        The collection, opened with its encoder.
    examples
        What they are for; each anchor is searched as a query.
    spec
        How.
    excluded
        Documents that are never taken: those of the evaluation set and the held-out ones.
    reranker
        Filters too: a candidate that it scores above the positive is an answer.

    Returns
    -------
    Mined

    Raises
    ------
    ConfigError
        If the collection has no word index, or no float vectors, that a source needs, or no example is left.
    """
    _require_searchable(view, spec)
    key = mining_key(view, examples, spec, excluded, reranker)
    if (kept_before := kept_negatives(key)) is not None:
        return Mined(key=key, **kept_before)
    known = _answers(examples)
    owners, names = view.copy.chunks["document"].to_numpy(), view.copy.documents["doc_id"].to_pylist()
    refused = {"answers": 0, "excluded": 0, "margin": 0, "near-duplicate": 0, "reranker": 0}
    found: list[Example] = []
    short = 0
    for start in range(0, len(examples), _BLOCK):
        block = examples[start : start + _BLOCK]
        anchors = [e.anchor for e in block]
        queries = view.space.embed(anchors, "query")
        candidates = _candidates(view, anchors, queries, spec)
        positives = view.space.embed([e.positive for e in block], "document")
        for example, rows, query, positive in zip(block, candidates, queries, positives, strict=True):
            barred = known[example.anchor]
            kept = _allowed(rows, [names[owners[row]] for row in rows], barred, excluded, refused)
            kept = _apart(view, kept, query, positive, spec, refused)
            chosen = _chosen(view, kept, example, spec, reranker, refused)
            if len(chosen.negatives) < spec.count:
                short += 1
            else:
                found.append(chosen)
    if not found:
        raise ConfigError(
            f"finetune.negatives: none of {len(examples)} pairs has {spec.count} negatives within the ranks "
            f"{list(spec.ranks)} (left out: {refused}). Widen the ranks, lower the margin, or set count to 0."
        )
    keep_negatives(key, found, short=short, refused=refused)
    return Mined(tuple(found), short, refused, key)


def _require_searchable(view: View, spec: NegativesSpec) -> None:
    if "lexical" in spec.sources and view.lexical is None:
        raise ConfigError(
            "finetune.negatives.sources has lexical, and the snapshot has no word index. Set recipe.lexical, or "
            "leave it out."
        )


def _answers(examples: Sequence[Example]) -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for example in examples:
        known.setdefault(example.anchor, set()).add(example.doc_id)
    return known


def _candidates(
    view: View, anchors: list[str], queries: npt.NDArray[np.float32], spec: NegativesSpec
) -> list[list[int]]:
    """Rank by each source, cut to the wanted ranks, and take turns between the sources."""
    first, last = spec.ranks
    ranked = []
    for source in spec.sources:
        mode = _MODES[source]
        vectors = queries if mode != "lexical" else None
        options = SearchOptions(mode=mode, k=min(last, len(view.copy)))
        ranked.append([[row for row, _ in one.rows][first - 1 :] for one in view.rank(anchors, vectors, options)])
    found = []
    for number in range(len(anchors)):
        lists = [one[number] for one in ranked]
        turns = [rows[place] for place in range(max(map(len, lists), default=0)) for rows in lists if place < len(rows)]
        found.append(list(dict.fromkeys(turns)))
    return found


def _allowed(
    rows: Sequence[int], documents: Sequence[str], barred: Set[str], excluded: Set[str], refused: dict[str, int]
) -> list[int]:
    kept = []
    for row, doc in zip(rows, documents, strict=True):
        if doc in barred:
            refused["answers"] += 1
        elif doc in excluded:
            refused["excluded"] += 1
        else:
            kept.append(row)
    return kept


def _apart(
    view: View,
    rows: list[int],
    query: npt.NDArray[np.float32],
    positive: npt.NDArray[np.float32],
    spec: NegativesSpec,
    refused: dict[str, int],
) -> list[int]:
    """Leave out what may be an answer: as near the anchor as the positive is, or nearly the positive itself."""
    if not rows:
        return []
    vectors = vectors_at(view, np.array(rows, np.int64))
    own = float(query @ positive)
    near = vectors @ query > own - spec.margin * abs(own)
    same = vectors @ positive >= spec.duplicate
    refused["margin"] += int(near.sum())
    refused["near-duplicate"] += int((same & ~near).sum())
    return [row for row, drop in zip(rows, near | same, strict=True) if not drop]


def _chosen(
    view: View,
    rows: list[int],
    example: Example,
    spec: NegativesSpec,
    reranker: Reranker | None,
    refused: dict[str, int],
) -> Example:
    # A cross-encoder is slow: it reads twice as many as are wanted.
    most = 2 * spec.count if reranker else spec.count
    texts = list(example.negatives[:most])
    answer = phrases(example.positive)
    for row in rows:
        if len(texts) == most:
            break
        # One at a time: of dozens that could be, the first ones nearly always do.
        (text,) = view.texts([row])
        if is_near_duplicate(text, answer):
            refused["near-duplicate"] += 1
        else:
            texts.append(text)
    if reranker is None:
        return replace(example, negatives=tuple(texts))
    scores = reranker.scores(example.anchor, [example.positive, *texts])
    margins = [float(scores[0] - score) for score in scores[1:]]
    kept = [(text, margin) for text, margin in zip(texts, margins, strict=True) if margin > 0]
    refused["reranker"] += len(texts) - len(kept)
    best = kept[: spec.count]
    return replace(example, negatives=tuple(t for t, _ in best), margins=tuple(m for _, m in best))
