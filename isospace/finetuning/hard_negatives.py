"""Hard negatives: texts that BM25 and the base model rank high for an anchor without answering it."""

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
from isospace.finetuning.examples import Example, examples_digest
from isospace.finetuning.workdir import read_negatives, write_negatives
from isospace.search.options import SearchOptions
from isospace.search.reranker import Reranker
from isospace.search.view import View
from isospace.storage.hashing import fingerprint

_MODES: Mapping[str, Literal["lexical", "auto"]] = {"lexical": "lexical", "dense": "auto"}
_BLOCK = 64
# Part of the key of cached negatives; increase it whenever the selection changes.
_MINING = 1


@dataclass(frozen=True, slots=True)
class MinedNegatives:
    """Examples with their hard negatives.

    Attributes
    ----------
    examples
        In their original order, without those that have too few negatives.
    short
        Number of examples left out because of that.
    refused
        Numbers of rejected candidates, by reason.
    key
        Fingerprint of everything that determines the negatives.
    """

    examples: tuple[Example, ...]
    short: int
    refused: dict[str, int]
    key: str


def mining_key(
    view: View, examples: Sequence[Example], spec: NegativesSpec, excluded: Set[str], reranker: Reranker | None
) -> str:
    """Return the fingerprint of everything that determines the negatives."""
    record = view.space.encoder.record
    return fingerprint(
        {
            "mining": _MINING,
            "encoder_id": record.encoder_id,
            "prompts": dict(record.prompts),
            "space_id": view.space.space_id,
            "snapshot_id": view.manifest.snapshot_id,
            "examples": examples_digest(examples),
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
) -> MinedNegatives:
    """Find hard negatives for examples, or return those that an earlier run on this machine has cached.

    Negatives that an example already has come first.

    Parameters
    ----------
    view
        The collection, opened with its encoder.
    examples
        Training pairs; each anchor is searched as a query.
    spec
        `finetune.negatives`.
    excluded
        Documents that are never used: those of the evaluation set and of held-out pairs.
    reranker
        A second filter: a candidate that it scores above the positive counts as an answer.

    Raises
    ------
    ConfigError
        If a source needs a word index that the collection lacks, or no example has enough negatives.
    """
    _require_searchable(view, spec)
    key = mining_key(view, examples, spec, excluded, reranker)
    if (cached := read_negatives(key)) is not None:
        return MinedNegatives(key=key, **cached)
    answers = _answers(examples)
    owners, names = view.copy.owners, view.copy.documents["doc_id"].to_pylist()
    refused = {"answers": 0, "excluded": 0, "margin": 0, "near-duplicate": 0, "reranker": 0}
    mined: list[Example] = []
    short = 0
    for start in range(0, len(examples), _BLOCK):
        block = examples[start : start + _BLOCK]
        anchors = [e.anchor for e in block]
        queries = view.space.embed(anchors, "query")
        candidates = _candidates(view, anchors, queries, spec)
        positives = view.space.embed([e.positive for e in block], "document")
        for example, rows, query, positive in zip(block, candidates, queries, positives, strict=True):
            documents = [names[owners[row]] for row in rows]
            allowed = _without_documents(rows, documents, answers[example.anchor], excluded, refused)
            distant = _without_near_answers(view, allowed, query, positive, spec, refused)
            with_negatives = _add_negatives(view, distant, example, spec, reranker, refused)
            if len(with_negatives.negatives) < spec.count:
                short += 1
            else:
                mined.append(with_negatives)
    if not mined:
        raise ConfigError(
            f"finetune.negatives: none of {len(examples)} pairs has {spec.count} negatives within the ranks "
            f"{list(spec.ranks)} (rejected: {refused}). Widen the ranks, lower the margin, or set count to 0."
        )
    write_negatives(key, mined, short=short, refused=refused)
    return MinedNegatives(tuple(mined), short, refused, key)


def _require_searchable(view: View, spec: NegativesSpec) -> None:
    if "lexical" in spec.sources and view.lexical is None:
        raise ConfigError(
            "finetune.negatives.sources includes lexical, but the snapshot has no word index. Set recipe.lexical and "
            "run `isospace run`, or leave lexical out."
        )


def _answers(examples: Sequence[Example]) -> dict[str, set[str]]:
    documents: dict[str, set[str]] = {}
    for example in examples:
        documents.setdefault(example.anchor, set()).add(example.doc_id)
    return documents


def _candidates(
    view: View, anchors: list[str], queries: npt.NDArray[np.float32], spec: NegativesSpec
) -> list[list[int]]:
    """Rank with each source, cut to the configured ranks, and interleave the sources."""
    first, last = spec.ranks
    ranked = []
    for source in spec.sources:
        mode = _MODES[source]
        vectors = queries if mode != "lexical" else None
        options = SearchOptions(mode=mode, k=min(last, len(view.copy)))
        rankings = view.rank(anchors, vectors, options)
        ranked.append([[row for row, _ in ranking.rows][first - 1 :] for ranking in rankings])
    candidates = []
    for number in range(len(anchors)):
        lists = [by_anchor[number] for by_anchor in ranked]
        longest = max(map(len, lists), default=0)
        interleaved = [rows[rank] for rank in range(longest) for rows in lists if rank < len(rows)]
        candidates.append(list(dict.fromkeys(interleaved)))
    return candidates


def _without_documents(
    rows: Sequence[int], documents: Sequence[str], answers: Set[str], excluded: Set[str], refused: dict[str, int]
) -> list[int]:
    allowed = []
    for row, doc in zip(rows, documents, strict=True):
        if doc in answers:
            refused["answers"] += 1
        elif doc in excluded:
            refused["excluded"] += 1
        else:
            allowed.append(row)
    return allowed


def _without_near_answers(
    view: View,
    rows: list[int],
    query: npt.NDArray[np.float32],
    positive: npt.NDArray[np.float32],
    spec: NegativesSpec,
    refused: dict[str, int],
) -> list[int]:
    """Remove possible answers: texts as close to the anchor as the positive, and near-duplicates of it."""
    if not rows:
        return []
    vectors = vectors_at(view, np.array(rows, np.int64))
    own = float(query @ positive)
    near = vectors @ query > own - spec.margin * abs(own)
    same = vectors @ positive >= spec.duplicate
    refused["margin"] += int(near.sum())
    refused["near-duplicate"] += int((same & ~near).sum())
    return [row for row, drop in zip(rows, near | same, strict=True) if not drop]


def _add_negatives(
    view: View,
    rows: list[int],
    example: Example,
    spec: NegativesSpec,
    reranker: Reranker | None,
    refused: dict[str, int],
) -> Example:
    # A cross-encoder is slow, so it scores only twice as many texts as are needed.
    most = 2 * spec.count if reranker else spec.count
    texts = list(example.negatives[:most])
    answer = phrases(example.positive)
    for row in rows:
        if len(texts) == most:
            break
        # Read one text at a time: the first candidates are nearly always good enough.
        (text,) = view.texts([row])
        if is_near_duplicate(text, answer):
            refused["near-duplicate"] += 1
        else:
            texts.append(text)
    if reranker is None:
        return replace(example, negatives=tuple(texts))
    scores = reranker.scores(example.anchor, [example.positive, *texts])
    margins = [float(scores[0] - score) for score in scores[1:]]
    below_positive = [(text, margin) for text, margin in zip(texts, margins, strict=True) if margin > 0]
    refused["reranker"] += len(texts) - len(below_positive)
    best = below_positive[: spec.count]
    return replace(example, negatives=tuple(t for t, _ in best), margins=tuple(m for _, m in best))
