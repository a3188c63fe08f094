"""BM25 is Lucene's, over all live rows, however they are grouped; and equal to a computation without shortcuts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isospace.errors import IntegrityError
from isospace.evaluation.metrics import measure
from isospace.search import maxscore
from isospace.search.bm25 import LexicalIndex
from isospace.search.postings import build_postings, checked_postings
from isospace.search.spec import LexicalSpec
from isospace.search.words import document_words, query_weights, words_of
from tests.conftest import corpora

TEXTS = ["the gene of the cell", "a protein", "the cell"]


def index_of(
    texts: Sequence[str], cuts: Sequence[int] = (), live: Sequence[bool] | None = None, **spec: Any
) -> LexicalIndex:
    """Return the index of texts in groups, which are cut at some rows."""
    edges = [0, *sorted(min(cut, len(texts)) for cut in cuts), len(texts)]
    rules = LexicalSpec(**spec)
    groups = [build_postings([texts[start:stop]], rules) for start, stop in pairwise(edges)]
    return LexicalIndex(rules, groups, None if live is None else np.array(live, np.bool_))


def plain_scores(texts: Sequence[str], live: Sequence[bool], query: str, spec: LexicalSpec) -> dict[int, float]:
    """Return the scores of the live rows that share a word with a query: the formula, row by row."""
    own = {row: document_words([text], spec)[0] for row, text in enumerate(texts) if live[row]}
    rows, lengths = (
        {row: Counter(words) for row, (words, _) in own.items()},
        {row: one.length for row, one in own.items()},
    )
    average = sum(lengths.values()) / max(len(rows), 1) or 1.0
    base, per_word = spec.k1 * (1.0 - spec.b), spec.k1 * spec.b / average
    terms = []
    for word, times in query_weights(query, spec).items():
        if df := sum(word in words for words in rows.values()):
            terms.append((-times * math.log1p((len(rows) - df + 0.5) / (df + 0.5)), word))
    found = {}
    for row, words in rows.items():
        score = 0.0
        for bound, word in sorted(terms):
            if words[word]:
                score += -bound * (words[word] / (words[word] + (base + per_word * lengths[row])))
        if any(words[word] for _, word in terms):
            found[row] = score
    return found


def best_of(scores: dict[int, float], count: int, rows: Sequence[int] | None) -> dict[int, float]:
    """Return the best of some rows, and those that tie with the last of them."""
    allowed = {row: score for row, score in scores.items() if rows is None or row in rows}
    last = sorted(allowed.values(), reverse=True)[:count][-1:]
    return {row: score for row, score in allowed.items() if last and score >= last[0]}


def as_dict(found: tuple[Any, Any]) -> dict[int, float]:
    rows, scores = found
    assert (rows.dtype, scores.dtype) == (np.int64, np.float64)
    assert rows.tolist() == sorted(set(rows.tolist()))
    return dict(zip(rows.tolist(), scores.tolist(), strict=True))


WORDS = st.sampled_from([*"aaaaaaabbbbcc", "d", "e"])
TEXT = st.lists(WORDS, max_size=7).map(" ".join)
ROWS = st.one_of(st.none(), st.lists(st.integers(0, 39), max_size=30).map(lambda rows: sorted(set(rows))))


@settings(max_examples=500, deadline=None)
@given(
    texts=st.lists(TEXT, max_size=40),
    query=st.lists(st.sampled_from([*"abcde", "nowhere"]), max_size=6).map(" ".join),
    count=st.integers(1, 5),
    rows=ROWS,
    dead=st.sets(st.integers(0, 39)),
    cuts=st.lists(st.integers(0, 40), max_size=4),
    sizes=st.tuples(st.sampled_from([2, 5, 64]), st.sampled_from([1, 3, 64]), *(st.sampled_from([1, 8]),) * 3),
    k1=st.sampled_from([0.0, 1.2, 10.0]),
    b=st.sampled_from([0.0, 0.75, 1.0]),
)
@example(["a"] * 9, "a", 2, None, set(), [3], (2, 1, 1, 1, 1), 1.2, 0.75)
@example(["a b", "a", "b a", "c a", "c"] * 3, "a c", 1, [0, 1, 4, 8, 14], {3, 9}, [4], (5, 1, 1, 1, 1), 1.2, 0.75)
def test_nothing_but_the_rows_the_query_and_the_live_rows_decides_a_score(
    texts: list[str],
    query: str,
    count: int,
    rows: list[int] | None,
    dead: set[int],
    cuts: list[int],
    sizes: tuple[int, ...],
    k1: float,
    b: float,
) -> None:
    live = [row not in dead for row in range(len(texts))]
    index = index_of(texts, cuts, live if dead else None, k1=k1, b=b)
    chosen = None if rows is None else [row for row in rows if row < len(texts)]
    expected = best_of(plain_scores(texts, live, query, index.spec), count, chosen)
    with pytest.MonkeyPatch.context() as patch:
        # Sizes at which every shortcut is taken in a few rows.
        for name, size in zip(("_WINDOW", "_BLOCK", "_MANY", "_SEARCH", "_FEW"), sizes, strict=True):
            patch.setattr(maxscore, name, size)
        # Bit for bit.
        found = index.best(query, count, None if chosen is None else np.array(chosen, np.int64))
        assert as_dict(found) == expected


def test_rows_that_cannot_be_among_the_best_are_not_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200,000 rows with a common word, those before the threshold is known are scored, and candidates."""
    rare = {7: "rare rare common", 150_000: "rare common", 199_999: "rare common filler"}
    index = index_of([rare.get(row, "common filler words") for row in range(200_000)], [100_000])
    looked_at = 0
    original = maxscore._Window._add

    def counting(self: Any, bound: float, places: Any, counts: Any) -> None:
        nonlocal looked_at
        looked_at += len(places)
        original(self, bound, places, counts)

    monkeypatch.setattr(maxscore._Window, "_add", counting)
    assert list(as_dict(index.best("rare common", 1))) == [7]
    assert looked_at < 10


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("k1", "b"), [(1.2, 0.75), (0.5, 0.0), (2.0, 1.0)])
def test_scores_are_those_of_the_library_bm25s(seed: int, k1: float, b: float) -> None:
    rng = np.random.default_rng(seed)
    words = [f"w{number}" for number in range(50)]
    weights = 1 / np.arange(1, 51)
    texts = [" ".join(rng.choice(words, rng.integers(1, 30), p=weights / weights.sum())) for _ in range(300)]
    model = bm25s.BM25(k1=k1, b=b, method="lucene")
    model.index([text.split() for text in texts], show_progress=False)
    index = index_of(texts, [100, 101], k1=k1, b=b)
    # A word that a query has twice counts twice.
    for query in ("w0", "w0 w1 w40", "w3 w3 w9", " ".join(words)):
        expected = model.get_scores(query.split())
        found = as_dict(index.best(query, len(texts)))
        assert sorted(found) == np.flatnonzero(expected > 0).tolist()
        assert list(found.values()) == pytest.approx(expected[expected > 0].tolist(), rel=1e-5)


@pytest.mark.corpora
@pytest.mark.skipif(
    corpora() is None, reason="the evaluation corpora are not beside the checkout; set ISOSPACE_CORPORA"
)
@pytest.mark.parametrize("name", ["scifact", "cranfield"])
def test_rankings_of_judged_collections_are_those_of_bm25s(name: str) -> None:
    folder = Path(str(corpora())) / name
    documents, queries, judged = (pq.read_table(folder / f"{kind}.parquet") for kind in ("corpus", "queries", "qrels"))
    # The library knows no words that count less in a query, and none that are left out of a length.
    spec = LexicalSpec(tokenizer=2, stemmer="english", stopwords="english")
    texts = [f"{row['title']} {row['text']}" for row in documents.to_pylist()]
    index = index_of(texts, [500, 900], **spec.model_dump(exclude={"kind"}))
    model = bm25s.BM25(k1=spec.k1, b=spec.b, method="lucene")
    model.index(words_of(texts, spec, "document"), show_progress=False)
    names = documents["doc_id"].to_pylist()
    mine: dict[str, dict[str, float]] = {}
    theirs: dict[str, dict[str, float]] = {}
    for query in queries.to_pylist():
        found = as_dict(index.best(query["text"], 100))
        expected = model.get_scores(words_of([query["text"]], spec, "query")[0])
        assert list(found.values()) == pytest.approx(expected[list(found)].tolist(), rel=1e-5)
        mine[query["query_id"]] = {names[row]: score for row, score in found.items()}
        last = np.sort(expected)[-100]
        theirs[query["query_id"]] = {names[row]: float(expected[row]) for row in np.flatnonzero(expected >= last)}
    judgements: dict[str, dict[str, int]] = {}
    for row in judged.to_pylist():
        judgements.setdefault(row["query_id"], {})[row["doc_id"]] = int(row["relevance"])
    values = [ndcg(run, judgements) for run in (mine, theirs)]
    assert values[0] == pytest.approx(values[1], abs=5e-5)
    assert values[0] > 0.35


def ndcg(run: dict[str, dict[str, float]], judgements: dict[str, dict[str, int]]) -> float:
    return float(measure(run, judgements, ["nDCG@10"])["nDCG@10"])


def test_the_share_of_live_chunks_with_a_word() -> None:
    shares = ("the", "gene", "cell", "xylophone")
    assert [index_of(TEXTS).share(word) for word in shares] == [2 / 3, 1 / 3, 2 / 3, 0.0]
    assert [index_of(TEXTS, [1], [False, True, True]).share(word) for word in shares] == [0.5, 0.0, 0.5, 0.0]
    assert index_of(TEXTS, [], [False] * 3).share("the") == 0.0
    assert index_of([]).share("the") == 0.0


@pytest.mark.parametrize("query", ["", "!?", "xylophone", "\ud800", "x" * 100_000])
def test_a_query_that_shares_no_word_finds_nothing(query: str) -> None:
    assert as_dict(index_of(TEXTS).best(query, 5)) == {}


def test_nothing_is_found_in_nothing_and_none_are_found_if_none_are_wanted() -> None:
    for empty in (index_of([]), index_of(TEXTS, [], [False] * 3), LexicalIndex(LexicalSpec(), [])):
        assert as_dict(empty.best("the cell", 5)) == {}
    assert as_dict(index_of(TEXTS).best("cell", 0)) == {}
    assert as_dict(index_of(TEXTS).best("cell", 5, np.zeros(0, np.int64))) == {}


def test_an_index_is_opened_from_its_arrays() -> None:
    postings = build_postings([TEXTS], LexicalSpec())
    opened = LexicalIndex(LexicalSpec(), (checked_postings(postings.arrays(), "p"),))
    assert as_dict(opened.best("cell", 5)) == as_dict(index_of(TEXTS).best("cell", 5))
    with pytest.raises(IntegrityError, match="lacks starts, counts"):
        checked_postings(
            {name: array for name, array in postings.arrays().items() if name not in ("starts", "counts")}, "p"
        )


def test_a_mask_of_other_rows_is_refused() -> None:
    with pytest.raises(IntegrityError, match=r"has the shape \(2,\), expected \(3,\)"):
        index_of(TEXTS, [], [True, False])
