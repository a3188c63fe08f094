"""Tokenizer fertility: which words are split into many tokens, and whether that hurts retrieval."""

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
from isospace.evaluation.reports.quotes import quote_of
from isospace.evaluation.runs import answer_set
from isospace.finetuning.benchmark import Benchmark, benchmark_from_view, rank_benchmark
from isospace.finetuning.pairs import passages_of
from isospace.search.options import SearchOptions
from isospace.search.view import View
from isospace.transform.vectors import unit

_WORD = re.compile(r"[^\W\d_]\w+")
_SHOWN, _SEARCHED = 40, 100
# A word that occurs in more documents than this is too common to be a query for them.
_MAX_DOCUMENTS = 10
_MEASURE = "nDCG@10"
_BENCH_TEXTS = 1_000


@dataclass(frozen=True, slots=True)
class WordPieces:
    """A word and its tokens.

    Attributes
    ----------
    word
        The word in its most frequent spelling.
    count, documents
        Number of occurrences, and of documents with the word.
    pieces
        Tokens of the word.
    holders
        Some of the documents with the word, see `isospace.evaluation.reports.quotes`.
    """

    word: str
    count: int
    documents: int
    pieces: tuple[str, ...]
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tokenization:
    """How a tokenizer splits the words of a corpus.

    Attributes
    ----------
    words, occurrences
        Numbers of distinct words, and of all words.
    pieces_a_word
        Tokens per word, averaged over all occurrences (fertility).
    shares
        Shares of occurrences that are split into 1, 2, 3, and 4 or more tokens.
    worst
        Words with the most extra tokens over all occurrences, in descending order.
    asked
        Number of over-segmented words in few documents that were searched, each as a query of its own.
    retrieval
        nDCG@10 of these searches, for `dense`, `lexical`, and `hybrid`; and on at most 1,000 chunks for `mean pooling`
        and `subword pooling`, which first pools tokens to words. Modes that the collection does not support are
        missing.
    """

    words: int
    occurrences: int
    pieces_a_word: float
    shares: tuple[float, float, float, float]
    worst: tuple[WordPieces, ...]
    asked: int
    retrieval: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Return the results as a dictionary."""
        return asdict(self)


def report_tokenization(view: View, encoder: SentenceEncoder) -> Tokenization:
    """Measure how a snapshot's words are split, and search for the over-segmented ones."""
    passages = passages_of(view)
    counted = count_words(((p.doc_id, p.prefix + p.text) for p in passages), encoder.tokenizer)
    query_set = _word_queries(counted)
    retrieval = _retrieval(view, encoder, query_set) if query_set.queries else {}
    words = [word for word, _ in counted]
    occurrences = sum(word.count for word in words)
    shares = [
        sum(word.count for word in words if min(max(len(word.pieces), 1), 4) == pieces) / max(1, occurrences)
        for pieces in range(1, 5)
    ]
    split = [(word, documents) for word, documents in counted if len(word.pieces) > 1][:_SHOWN]
    worst = [replace(word, holders=holders) for word, documents in split for holders in quote_of(documents)]
    return Tokenization(
        words=len(words),
        occurrences=occurrences,
        pieces_a_word=sum(word.count * len(word.pieces) for word in words) / max(1, occurrences),
        shares=(shares[0], shares[1], shares[2], shares[3]),
        worst=tuple(worst),
        asked=len(query_set.queries),
        retrieval=retrieval,
    )


def count_words(texts: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> list[tuple[WordPieces, frozenset[str]]]:
    """Count the words of (doc_id, text), each with its documents; most extra tokens first."""
    written: dict[str, Counter[str]] = {}
    documents: dict[str, set[str]] = {}
    for doc_id, text in texts:
        for word in _WORD.findall(text):
            key = word.lower()
            written.setdefault(key, Counter())[word] += 1
            documents.setdefault(key, set()).add(doc_id)
    forms = {key: counts.most_common(1)[0][0] for key, counts in written.items()}
    pieces = _pieces(list(forms.values()), tokenizer)
    counted = [
        (
            WordPieces(forms[key], sum(counts.values()), len(documents[key]), pieces[forms[key]]),
            frozenset(documents[key]),
        )
        for key, counts in written.items()
    ]
    return sorted(counted, key=lambda item: (-item[0].count * (len(item[0].pieces) - 1), item[0].word))


def _pieces(words: Sequence[str], tokenizer: Tokenizer) -> dict[str, tuple[str, ...]]:
    """Tokenize words as in running text, after a space."""
    pieces = tokenizer.pieces([f" {word}" for word in words])
    return {word: tuple(tokens) for word, tokens in zip(words, pieces, strict=True)}


def _word_queries(counted: Sequence[tuple[WordPieces, frozenset[str]]]) -> EvaluationSet:
    """Make each over-segmented word a query for the documents that contain it."""
    selected = [
        (word, documents)
        for word, documents in counted
        if len(word.pieces) > 1 and word.count > 1 and len(documents) <= _MAX_DOCUMENTS
    ][:_SEARCHED]
    names = [f"w{number:03d}" for number in range(len(selected))]
    return EvaluationSet(
        "over-segmented words",
        "judged",
        {name: word.word for name, (word, _) in zip(names, selected, strict=True)},
        {name: dict.fromkeys(documents, 1) for name, (_, documents) in zip(names, selected, strict=True)},
    )


def _retrieval(view: View, encoder: SentenceEncoder, query_set: EvaluationSet) -> dict[str, float]:
    modes: Mapping[str, SearchOptions] = {"dense": SearchOptions()}
    if view.lexical is not None:
        modes = {**modes, "lexical": SearchOptions(mode="lexical"), "hybrid": SearchOptions(mode="hybrid")}
    scores = {
        name: measure(answer_set(view, query_set, options, depth=100).documents, query_set.judged, [_MEASURE])[_MEASURE]
        for name, options in modes.items()
    }
    if encoder.record.pooling == ("mean",):
        bench = benchmark_from_view(view, query_set, most=_BENCH_TEXTS, seed=0)
        # Both use the same graph, since pooling weights are an input.
        by_words = replace(encoder, record=encoder.record.model_copy(update={"pooling": ("subword",)}))
        scores["mean pooling"], scores["subword pooling"] = (_score(bench, one) for one in (encoder, by_words))
    return scores


def _score(bench: Benchmark, encoder: SentenceEncoder) -> float:
    documents = unit(encoder.encode(list(bench.texts), "document"))
    return measure(rank_benchmark(bench, encoder, documents), bench.judgements, [_MEASURE])[_MEASURE]
