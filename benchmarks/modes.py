"""All search modes on judged collections: retrieval quality, and latency on one thread.

    OMP_NUM_THREADS=1 python -m benchmarks.modes FOLDER_WITH_COLLECTIONS [--work FOLDER] [--reranker FOLDER]

nDCG@10 and latency are measured on searches for ten hits, recall@100 on searches for a hundred; a reranked search is
run once, for a hundred. Latency is that of one query at a time, from text to hits, without caches; the modes alternate
query by query. `--only NAME` measures only the modes whose names contain NAME.
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
from isospace.encoding.engine import Engine
from isospace.evaluation.metrics import Run, measure
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import search_options
from isospace.search.query_cache import CacheConfig
from isospace.search.reranker import open_reranker

REPRESENTATIONS = [
    "float32",
    "float16",
    "int8",
    "binary",
    "rabitq",
    {"kind": "pq", "subvectors": 48},
    {"kind": "short", "dimensions": 64},
]
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
    """Embed a collection; two calls differ only in the stemming of the lexical index."""
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": MODEL},
        "chunking": CHUNKING_NONE,
        "transform": {"representations": REPRESENTATIONS},
        "lexical": LEXICAL[words],
    }
    runtime = {"store": str(work), "collection": folder.name, "source": str(folder / "corpus.parquet")}
    embed_corpus(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))


Runs = dict[str, dict[int, Run]]


def measured(
    index: Index, queries: dict[str, str], modes: dict[str, dict[str, Any]]
) -> tuple[Runs, dict[str, dict[str, list[float]]]]:
    """Return rankings by mode, number of hits, and query, and milliseconds of each stage for ten hits."""
    runs: Runs = {name: {10: {}, 100: {}} for name in modes}
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in modes}
    for query_id, text in queries.items():
        for name, options in modes.items():
            depths = (100,) if options.get("rerank") else (10, 100)
            for k in depths:
                answer = index.answer(text, search_options({"k": k, **options}))
                runs[name][k][query_id] = {hit.doc_id: hit.score for hit in answer.hits[0]}
                if k == depths[0]:
                    seconds = answer.seconds
                    times[name]["search"].append(1000 * (sum(seconds.values()) - seconds["embed"]))
                    times[name]["all"].append(1000 * sum(seconds.values()))
    return runs, times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--reranker", type=Path, default=None)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-modes-"))
    reranker = open_reranker(arguments.reranker) if arguments.reranker else None
    modes = {**MODES, **({"exact, reranked": {"mode": "exact", "rerank": True}} if reranker else {})}
    for qrels in sorted(arguments.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        queries, judgements = read_queries(folder / "queries.parquet"), read_judgements(qrels)
        queries = {name: text for name, text in queries.items() if name in judgements}
        print(
            f"\n{folder.name}, {len(queries)} queries\n\n| mode | nDCG@10 | R@100 | search p50 | p99 | all p50 | p99 "
            "(ms) |"
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
                runs, times = measured(index, queries, {k: v for k, v in chosen.items() if arguments.only in k})
            for name, found in runs.items():
                figures = measure(found[10] or found[100], judgements, ("nDCG@10",)) | measure(
                    found[100], judgements, ("R@100",)
                )
                shown = [np.percentile(times[name][stage], p) for stage in ("search", "all") for p in (50, 99)]
                title = name if words == "english" else f"{name}, words as they are"
                cells = [f"{v:.4f}" for v in figures.values()] + [f"{t:.2f}" for t in shown]
                print(f"| {title} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
