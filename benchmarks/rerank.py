"""The effect of a reranker on judged collections: exact search alone, and with the best 100 reranked.

    python -m benchmarks.rerank RERANKER FOLDER [FOLDER ...] [--work STORE] [--queries N]

Each folder has corpus.parquet, queries.parquet, and qrels.parquet, as for benchmarks.retrieval. Documents are not
split, so R@100 is the same with and without the reranker, which only reorders the hits.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchmarks.retrieval import CHUNKING_NONE, MODEL, print_row
from flows.embed_corpus import embed_corpus
from isospace.evaluation.metrics import Run, measure
from isospace.ingest.query_files import Judgements, read_judgements, read_queries
from isospace.pipeline.config import PipelineConfig
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.reranker import open_reranker

DEPTH = 100
MEASURES = ("nDCG@10", "R@10", "R@100")


def compare(index: Index, queries: Mapping[str, str], judgements: Judgements) -> dict[str, dict[str, float]]:
    """Measure exact search without and with the index's reranker, and print the rows of a table."""
    found = {}
    for name, rerank in (("exact", False), (f"exact, best {DEPTH} reranked", True)):
        begun = time.perf_counter()
        run = search_run(index, queries, rerank=rerank)
        each = (time.perf_counter() - begun) / len(queries)
        found[name] = measure(run, {query: judgements[query] for query in queries}, MEASURES)
        print_row(f"{name} ({each:.2f} s a query)", found[name])
    return found


def search_run(index: Index, queries: Mapping[str, str], *, rerank: bool) -> Run:
    """Rank documents by the best of their chunks among the hits."""
    hits = index.search(list(queries.values()), DEPTH, mode="exact", rerank=rerank, depth=DEPTH)
    run: Run = {}
    for name, found in zip(queries, hits, strict=True):
        best: dict[str, float] = {}
        for hit in found:
            best[hit.doc_id] = max(hit.score, best.get(hit.doc_id, hit.score))
        run[name] = best
    return run


def judged_queries(folder: Path, most: int, *, seed: int = 0) -> tuple[dict[str, str], Judgements]:
    """Read the queries with judgements: all if `most` is 0, else a fixed sample of at most that many."""
    judgements = read_judgements(folder / "qrels.parquet")
    queries = {name: text for name, text in read_queries(folder / "queries.parquet").items() if name in judgements}
    if most and len(queries) > most:
        chosen = set(random.Random(seed).sample(sorted(queries), most))
        queries = {name: text for name, text in queries.items() if name in chosen}
    return queries, judgements


def embed(folder: Path, store: str) -> None:
    """Embed a collection without splitting its documents, as the first row of benchmarks.retrieval does."""
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": MODEL},
        "chunking": CHUNKING_NONE,
        "transform": {"representations": ["float32", "int8", "binary"]},
    }
    runtime = {"store": store, "collection": folder.name, "source": str(folder / "corpus.parquet")}
    embed_corpus(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reranker", type=Path)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--work", default=None, help="store of the embedded collections, new or existing")
    parser.add_argument("--queries", type=int, default=0, help="maximum number of queries per collection; 0 for all")
    arguments = parser.parse_args()
    store = arguments.work or tempfile.mkdtemp(prefix="isospace-rerank-")
    reranker = open_reranker(arguments.reranker)
    for folder in arguments.folders:
        embed(folder, store)
        queries, judgements = judged_queries(folder, arguments.queries)
        print(f"\n{folder.name}, {len(queries)} queries: {', '.join(MEASURES)}\n", flush=True)
        compare(open_index(store, folder.name, reranker=reranker), queries, judgements)


if __name__ == "__main__":
    main()
