"""Every mode of search on judged collections: retrieval, and latency on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.modes FOLDER_WITH_COLLECTIONS [--work FOLDER] [--reranker FOLDER]

Latency is that of one query at a time, from its text to its hits, nothing cached; the modes take turns, query by query.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval import CHUNKING_NONE, MODEL
from flows.embed_corpus import embed_corpus
from isospace.config import PipelineConfig
from isospace.engine import Engine
from isospace.evaluation import Run, measure
from isospace.index import Index, open_index
from isospace.queries import read_judgements, read_queries
from isospace.retrieval.options import search_options
from isospace.retrieval.query_cache import CacheConfig
from isospace.retrieval.rerank import open_reranker

DEPTH = 100
REPRESENTATIONS = [
    "float32", "float16", "int8", "binary", "rabitq", {"kind": "pq", "subvectors": 48}, {"kind": "short", "dimensions": 64},
]  # fmt: skip
LEXICAL = {"english": {"stemmer": "english", "stopwords": "english"}, "plain": {}}
MODES: dict[str, dict[str, Any]] = {
    "exact, float32": {"mode": "exact"},
    "exact, float16": {"mode": "exact", "representation": "float16"},
    "int8": {"mode": "quantized", "representation": "int8", "rescore": 0},
    "int8, rescored x 4": {"mode": "quantized", "representation": "int8"},
    "binary": {"mode": "quantized", "representation": "binary", "rescore": 0},
    "binary, rescored x 4": {"mode": "quantized", "representation": "binary"},
    "binary, rescored x 10": {"mode": "quantized", "representation": "binary", "rescore": 10},
    "RaBitQ, rescored x 4": {"mode": "quantized", "representation": "rabitq"},
    "PQ 48, rescored x 4": {"mode": "quantized", "representation": "pq48"},
    "tiered, 64 components, x 4": {"mode": "tiered"},
    "lexical": {"mode": "lexical"},
    "hybrid, RRF": {"mode": "hybrid"},
    "hybrid, weighted .7/.3": {"mode": "hybrid", "fusion": "weighted", "weights": (0.7, 0.3)},
}


def embed(folder: Path, work: Path, words: str) -> None:
    """Embed a collection; only the words of the lexical index differ between two calls."""
    recipe = {
        "documents": {"title_column": "title"}, "encoder": {"model": MODEL}, "chunking": CHUNKING_NONE,
        "transform": {"representations": REPRESENTATIONS}, "lexical": LEXICAL[words],
    }  # fmt: skip
    runtime = {"store": str(work), "collection": folder.name, "source": str(folder / "corpus.parquet")}
    embed_corpus(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))


def measured(
    index: Index, queries: dict[str, str], modes: dict[str, dict[str, Any]]
) -> tuple[dict[str, Run], dict[str, dict[str, list[float]]]]:
    """Return the ranking of documents by mode and query, and the seconds of each stage."""
    runs: dict[str, Run] = {name: {} for name in modes}
    seconds: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in modes}
    for query_id, text in queries.items():
        for name, options in modes.items():
            answer = index.answer(text, search_options({"k": DEPTH, **options}))
            runs[name][query_id] = {hit.doc_id: hit.score for hit in answer.hits[0]}
            for stage, value in answer.seconds.items():
                seconds[name][stage].append(1000 * value)
            seconds[name]["all"].append(1000 * sum(answer.seconds.values()))
    return runs, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--reranker", type=Path, default=None)
    given = parser.parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="isospace-modes-"))
    reranker = open_reranker(given.reranker) if given.reranker else None
    modes = {**MODES, **({"exact, reranked": {"mode": "exact", "rerank": True}} if reranker else {})}
    for qrels in sorted(given.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        queries, judgements = read_queries(folder / "queries.parquet"), read_judgements(qrels)
        queries = {name: text for name, text in queries.items() if name in judgements}
        print(
            f"\n{folder.name}, {len(queries)} queries\n\n| mode | nDCG@10 | R@100 | search p50 | p99 | all p50 | p99 (ms) |"
        )
        print("| --- |" + " ---: |" * 6, flush=True)
        for words in LEXICAL:
            embed(folder, work, words)
            with open_index(
                str(work), folder.name, engine=Engine(threads=1), cache=CacheConfig(size=0), reranker=reranker
            ) as index:
                chosen = (
                    modes if words == "english" else {k: v for k, v in modes.items() if "xical" in k or "ybrid" in k}
                )
                runs, seconds = measured(index, queries, chosen)
            for name, run in runs.items():
                figures = measure(run, judgements, ("nDCG@10", "R@100"))
                times = [np.percentile(seconds[name][s], p) for s in ("search", "all") for p in (50, 99)]
                title = name if words == "english" else f"{name}, words as they are"
                cells = [f"{v:.4f}" for v in figures.values()] + [f"{t:.2f}" for t in times]
                print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
