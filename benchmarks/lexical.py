"""Lexical search of a corpus by Zipf's law: latency beside bm25s, alternating, on the same postings.

    python -m benchmarks.lexical [--chunks 1000000] [--queries 60]

Words of queries are drawn as they occur in texts, from those that fewer than 5 % of the chunks have, and from the ten
most common. The scores of both are compared.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import bm25s
import numpy as np

from isospace.search.bm25 import LexicalIndex
from isospace.search.postings import Postings, postings_of_ids
from isospace.search.spec import LexicalSpec

WORDS, EXPONENT, TOP = 500_000, 1.05, 10


def corpus(chunks: int) -> Postings:
    """Return the postings of chunks of 61 words on average."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.0, 0.5, chunks), 5, 400).astype(np.int32)
    chances = np.cumsum(1 / np.arange(1, WORDS + 1) ** EXPONENT)
    drawn = np.searchsorted(chances, rng.random(int(lengths.sum())) * chances[-1])
    used, ids = np.unique(drawn, return_inverse=True)
    return postings_of_ids([f"w{number:06d}".encode() for number in used], ids.astype(np.int64), lengths)


def library_index(postings: Postings, spec: LexicalSpec) -> Any:
    """Return an index of bm25s with the scores that the library computes for these postings."""
    frequencies, chunks = np.diff(postings.starts), len(postings)
    idf = np.log(1 + (chunks - frequencies + 0.5) / (frequencies + 0.5))
    lengths = postings.lengths[postings.rows] / postings.lengths.mean()
    below = spec.k1 * (1 - spec.b + spec.b * lengths) + postings.counts
    data = (np.repeat(idf, frequencies) * postings.counts / below).astype(np.float32)
    model = bm25s.BM25(k1=spec.k1, b=spec.b, method="lucene", backend="numpy", csc_backend="numpy", auto_compile=False)
    model.scores = {"data": data, "indices": postings.rows, "indptr": postings.starts, "num_docs": chunks}
    model.nonoccurrence_array = None
    return model


def drawn(postings: Postings, kind: str, words: int, rng: np.random.Generator) -> list[int]:
    """Return the numbers of the words of a query."""
    frequencies = np.diff(postings.starts)
    if kind == "common":
        return [int(number) for number in np.argsort(-frequencies)[rng.integers(0, 10, words)]]
    found: list[int] = []
    while len(found) < words:
        number = int(np.searchsorted(postings.starts, rng.integers(0, postings.starts[-1]), side="right")) - 1
        if kind == "any" or frequencies[number] < 0.05 * len(postings):
            found.append(number)
    return found


def main() -> None:
    """Print a table of medians and 99th percentiles in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=60)
    arguments = parser.parse_args()
    spec, postings, rng = LexicalSpec(), corpus(arguments.chunks), np.random.default_rng(1)
    index, model = LexicalIndex(spec, [postings]), library_index(postings, spec)
    index.best("w000000", TOP)
    for kind in ("any", "rare", "common"):
        for words in (2, 5, 10):
            seconds: list[tuple[float, float]] = []
            for _ in range(arguments.queries):
                numbers = drawn(postings, kind, words, rng)
                text = " ".join(postings.word(number).decode() for number in numbers)
                started = time.perf_counter()
                rows, scores = index.best(text, TOP)
                between = time.perf_counter()
                every = model.get_scores_from_ids(numbers)
                best = np.argpartition(every, -TOP)[-TOP:]
                best = best[np.argsort(-every[best])]
                seconds.append((between - started, time.perf_counter() - between))
                np.testing.assert_allclose(every[rows], scores, rtol=2e-5)
                np.testing.assert_allclose(np.sort(scores)[::-1][:TOP], every[best][: len(scores)], rtol=2e-5)
            (mine, theirs), (mine_99, theirs_99) = np.percentile(1_000 * np.array(seconds), [50, 99], axis=0)
            print(f"| {words} {kind} | {mine:.1f} | {mine_99:.1f} | {theirs:.1f} | {theirs_99:.1f} |", flush=True)


if __name__ == "__main__":
    main()
