"""Versions of the rules for words: retrieval on judged collections, size of the postings, and speed, alternating.

    python -m benchmarks.words FOLDER_WITH_COLLECTIONS [--rounds 5]

A document is its title and text, one row each. Speed is that of the process, on one core, the best of the rounds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from isospace.evaluation.metrics import per_query
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import EvaluationSet
from isospace.evaluation.significance import randomization_p
from isospace.search.bm25 import LexicalIndex
from isospace.search.postings import build_postings
from isospace.search.spec import LexicalSpec
from isospace.search.words import words_of

TOP = 10
VERSIONS = (2, 3)


def rules(tokenizer: int, language: str | None) -> LexicalSpec:
    """Return the settings of a version."""
    return LexicalSpec.model_validate({"tokenizer": tokenizer, "stemmer": language, "stopwords": language})


def ranking(index: LexicalIndex, query: str, names: Sequence[str]) -> dict[str, float]:
    """Return the scores of the best documents."""
    rows, scores = index.best(query, TOP)
    return {names[row]: float(score) for row, score in zip(rows, scores, strict=True)}


def retrieval(
    texts: Sequence[str], names: Sequence[str], asked: EvaluationSet, spec: LexicalSpec
) -> tuple[npt.NDArray[np.float64], int]:
    """Return nDCG@10 of each judged query, and the bytes of the postings."""
    postings = build_postings([texts], spec)
    index = LexicalIndex(spec, [postings])
    run = {query: ranking(index, text, names) for query, text in asked.queries.items()}
    found = per_query(run, asked.judged, ["nDCG@10"])["nDCG@10"]
    size = sum(array.nbytes for array in postings.arrays().values())
    return np.array([found[query] for query in asked.judged]), size


def speeds(texts: Sequence[str], language: str | None, rounds: int) -> dict[int, float]:
    """Return how many MB of UTF-8 each version splits in a second."""
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    best = dict.fromkeys(VERSIONS, 0.0)
    for _ in range(rounds):
        for version in VERSIONS:
            before = time.process_time()
            words_of(texts, rules(version, language), "document")
            best[version] = max(best[version], megabytes / (time.process_time() - before))
    return best


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for qrels in sorted(arguments.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        rows = pq.read_table(folder / "corpus.parquet").to_pylist()
        names, texts = [row["doc_id"] for row in rows], [f"{row['title']} {row['text']}" for row in rows]
        asked = load_set(folder.name, folder / "queries.parquet", qrels)
        for language in (None, "english"):
            speed = speeds(texts, language, arguments.rounds)
            found = [retrieval(texts, names, asked, rules(version, language)) for version in VERSIONS]
            p = randomization_p(found[1][0] - found[0][0], two_sided=True)
            cells = [f"{folder.name}, {language or 'words as they are'}", str(len(asked.judged))]
            cells += [f"{values.mean():.4f}" for values, _ in found] + [f"{p:.2g}"]
            cells += [f"{size / 1e6:.2f}" for _, size in found] + [f"{speed[version]:.1f}" for version in VERSIONS]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
