"""Words that the tokenizer shatters: where a domain's vocabulary is not the model's, and whether that hurts retrieval."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.tokenizer import Tokenizer
from isospace.evaluation.metrics import measure
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.runs import answer_set
from isospace.finetuning.benchmark import Bench, bench_of_view, rank_bench
from isospace.finetuning.pairs import passages_of
from isospace.search.options import SearchOptions
from isospace.search.view import View
from isospace.transform.vectors import unit

_WORD = re.compile(r"[^\W\d_]\w+")
_SHOWN, _ASKED = 40, 100
# A word of more documents than this asks for none of them.
_MOST_DOCUMENTS = 10
_MEASURE = "nDCG@10"
_BENCH_TEXTS = 1_000


@dataclass(frozen=True, slots=True)
class Shattered:
    """A word, and what the tokenizer makes of it.

    Attributes
    ----------
    word
        As it is most often written.
    count, documents
        How often it occurs, and in how many documents.
    pieces
        What it is cut into.
    """

    word: str
    count: int
    documents: int
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Tokenization:
    """How a tokenizer cuts the words of a corpus.

    Attributes
    ----------
    words, occurrences
        Distinct words, and all of them.
    pieces_a_word
        Mean over occurrences.
    shares
        Share of occurrences cut into 1, 2, 3, and 4 or more pieces.
    worst
        Most pieces too many, over all occurrences, first.
    asked
        How many shattered words of few documents were searched, each alone.
    retrieval
        nDCG@10 of these searches, by `dense`, `lexical`, `hybrid`; and of at most 1,000 chunks, by `mean pooling` and
        by `subword pooling`, which pools pieces to words first. What cannot be had is missing.
    """

    words: int
    occurrences: int
    pieces_a_word: float
    shares: tuple[float, float, float, float]
    worst: tuple[Shattered, ...]
    asked: int
    retrieval: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures by name."""
        return asdict(self)


def report_tokenization(view: View, encoder: SentenceEncoder) -> Tokenization:
    """Count the words of a snapshot, and search by those that are shattered.

    Parameters
    ----------
    view
        The collection.
    encoder
        Its encoder.
    """
    passages = passages_of(view)
    found = count_words(((p.doc_id, p.prefix + p.text) for p in passages), encoder.tokenizer)
    given = _terms(found)
    retrieval = _retrieval(view, encoder, given) if given.queries else {}
    occurrences = sum(one.count for one, _ in found)
    shares = [
        sum(one.count for one, _ in found if _few(len(one.pieces)) == pieces) / max(1, occurrences)
        for pieces in range(1, 5)
    ]
    worst = [one for one, _ in found if len(one.pieces) > 1][:_SHOWN]
    return Tokenization(
        words=len(found),
        occurrences=occurrences,
        pieces_a_word=sum(one.count * len(one.pieces) for one, _ in found) / max(1, occurrences),
        shares=(shares[0], shares[1], shares[2], shares[3]),
        worst=tuple(worst),
        asked=len(given.queries),
        retrieval=retrieval,
    )


def count_words(texts: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> list[tuple[Shattered, frozenset[str]]]:
    """Count words of (doc_id, text), with the documents of each; most pieces too many first."""
    written: dict[str, Counter[str]] = {}
    documents: dict[str, set[str]] = {}
    for doc_id, text in texts:
        for word in _WORD.findall(text):
            key = word.lower()
            written.setdefault(key, Counter())[word] += 1
            documents.setdefault(key, set()).add(doc_id)
    forms = {key: counts.most_common(1)[0][0] for key, counts in written.items()}
    cut = _pieces(list(forms.values()), tokenizer)
    found = [
        (
            Shattered(forms[key], sum(counts.values()), len(documents[key]), cut[forms[key]]),
            frozenset(documents[key]),
        )
        for key, counts in written.items()
    ]
    return sorted(found, key=lambda one: (-one[0].count * (len(one[0].pieces) - 1), one[0].word))


def _pieces(words: Sequence[str], tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    """Cut words as they stand in a text, after a space."""
    cut = tokenizer.pieces([f" {word}" for word in words])
    return {word: tuple(found) for word, found in zip(words, cut, strict=True)}


def _few(pieces: int) -> int:
    return min(max(pieces, 1), 4)


def _terms(found: Sequence[tuple[Shattered, frozenset[str]]]) -> EvaluationSet:
    """Ask for the documents of a shattered word by the word alone."""
    chosen = [
        (one, documents)
        for one, documents in found
        if len(one.pieces) > 1 and one.count > 1 and len(documents) <= _MOST_DOCUMENTS
    ][:_ASKED]
    names = [f"w{number:03d}" for number in range(len(chosen))]
    return EvaluationSet(
        "shattered words",
        "judged",
        {name: one.word for name, (one, _) in zip(names, chosen, strict=True)},
        {name: dict.fromkeys(documents, 1) for name, (_, documents) in zip(names, chosen, strict=True)},
    )


def _retrieval(view: View, encoder: SentenceEncoder, given: EvaluationSet) -> dict[str, float]:
    modes: Mapping[str, SearchOptions] = {"dense": SearchOptions()}
    if view.lexical is not None:
        modes = {**modes, "lexical": SearchOptions(mode="lexical"), "hybrid": SearchOptions(mode="hybrid")}
    found = {
        name: measure(answer_set(view, given, options, depth=100).documents, given.judged, [_MEASURE])[_MEASURE]
        for name, options in modes.items()
    }
    if encoder.record.pooling == ("mean",):
        bench = bench_of_view(view, given, most=_BENCH_TEXTS, seed=0)
        # The same graph: how tokens are weighed comes from outside of it.
        by_words = replace(encoder, record=encoder.record.model_copy(update={"pooling": ("subword",)}))
        found["mean pooling"], found["subword pooling"] = (_ranked(bench, one) for one in (encoder, by_words))
    return found


def _ranked(bench: Bench, encoder: SentenceEncoder) -> float:
    documents = unit(encoder.encode(list(bench.texts), "document"))
    return measure(rank_bench(bench, encoder, documents), bench.judgements, [_MEASURE])[_MEASURE]
