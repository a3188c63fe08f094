"""A sparse encoder beside BM25: retrieval quality, size, and latency on judged collections.

    OMP_NUM_THREADS=1 python -m benchmarks.sparse FOLDER_WITH_COLLECTIONS --model FOLDER [--work FOLDER] [--only NAME]

The pipeline embeds every collection with MiniLM, BM25, and the sparse encoder. Then, nDCG@10 and recall@100 are those
of searches, and latency is that of one search for ten hits, without encoding the query; the modes alternate query by
query. The effect of the grid is measured on the raw weights of documents, by exact products in float64.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.retrieval import CHUNKING_NONE, MODEL
from isospace.collection.sparse_vectors import gather_sparse
from isospace.collection.vector_files import vector_parts
from isospace.encoding.engine import Engine
from isospace.evaluation.metrics import Run, measure
from isospace.ingest.query_files import read_judgements, read_queries
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import search_options
from isospace.storage.parquet import read_parquet
from isospace.transform.sparse import SparseGrid, SparseVectors, fit_grid, quantize_sparse

MODES: dict[str, dict[str, Any]] = {
    "exact (dense)": {"mode": "exact"},
    "lexical (BM25)": {"mode": "lexical"},
    "sparse": {"mode": "sparse"},
    "hybrid: dense, BM25": {"mode": "hybrid", "sparse_weight": 0.0},
    "hybrid: dense, sparse": {"mode": "hybrid", "weights": (1.0, 0.0)},
    "hybrid: BM25, sparse": {"mode": "hybrid", "weights": (0.0, 1.0)},
    "hybrid: dense, BM25, sparse": {"mode": "hybrid"},
    "hybrid: all, sparse weighs half": {"mode": "hybrid", "sparse_weight": 0.5},
}


def embed(folder: Path, work: Path, model: str) -> None:
    """Embed a collection."""
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": MODEL},
        "sparse": {"model": model},
        "chunking": CHUNKING_NONE,
        "transform": {"representations": ["float32", "int8"]},
        "lexical": {"stemmer": "english", "stopwords": "english"},
    }
    runtime = {"store": str(work), "collection": folder.name, "source": str(folder / "corpus.parquet")}
    embed_corpus(PipelineConfig.model_validate({"recipe": recipe, "runtime": {**runtime, "report_chunks": 0}}))


def searched(index: Index, queries: dict[str, str], judgements: Any) -> None:
    """Print quality and latency by mode."""
    runs: dict[str, Run] = {name: {} for name in MODES}
    times: dict[str, list[float]] = {name: [] for name in MODES}
    for query_id, text in queries.items():
        for name, options in MODES.items():
            answer = index.answer(text, search_options({"k": 100, "depth": 100, **options}))
            runs[name][query_id] = {hit.doc_id: hit.score for hit in answer.hits[0]}
            seconds = index.answer(text, search_options({"k": 10, **options})).seconds
            times[name].append(1000 * seconds["search"])
    print("| mode | nDCG@10 | R@100 | search p50 | p99 (ms) |\n| --- | ---: | ---: | ---: | ---: |")
    for name, run in runs.items():
        figures = measure(run, judgements, ("nDCG@10", "R@100"))
        cells = [f"{value:.4f}" for value in figures.values()]
        cells += [f"{np.percentile(times[name], p):.2f}" for p in (50, 99)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def grids(index: Index, queries: dict[str, str], judgements: Any) -> None:
    """Print nDCG@10 of raw weights and of grids, and the bytes per chunk on disk and in memory."""
    store, manifest = index.store, index.manifest
    parts = [read_parquet(store, part.chunks.path, columns=["doc_id", "chunk_hash"]) for part in manifest.parts]
    hashes = [key for part in parts for key in part["chunk_hash"].to_pylist()]
    owners = [doc for part in parts for doc in part["doc_id"].to_pylist()]
    encoder_id = str(manifest.sparse_encoder_id)
    raw = gather_sparse(store, encoder_id, vector_parts(store, encoder_id), hashes)
    assert index.view.sparse is not None
    assert index.view.sparse.space is not None
    encoder = index.view.sparse.space.encoder
    started = time.perf_counter()
    asked = {name: encoder.encode([text], "query") for name, text in queries.items()}
    seconds = (time.perf_counter() - started) / len(queries)
    terms = np.mean([len(one.terms) for one in asked.values()])
    per_chunk = len(raw.terms) / len(raw)
    print(f"\nper chunk {per_chunk:.0f} weights, per query {terms:.1f}; a query takes {1000 * seconds:.1f} ms")
    largest = float(raw.values.max())
    disk = sum(part.sparse.size for part in manifest.parts if part.sparse is not None)
    print(f"largest weight {largest:.3f}; sparse segments: {disk / len(raw):.0f} bytes per chunk")
    print("| weights of documents | nDCG@10 | weights per chunk |\n| --- | ---: | ---: |")
    tried: dict[str, SparseGrid | None] = {
        "float32": None,
        "16 bits": fit_grid(largest, 16),
        "8 bits": fit_grid(largest, 8),
    }
    for steps in (4, 2):
        # The same rule with fewer bits, to see where it would begin to matter.
        name = f"8 bits, steps of 1/{steps}"
        tried[name] = SparseGrid(bits=8, document_exponent=int(np.log2(steps)))
    for name, grid in tried.items():
        codes = raw if grid is None else quantize_sparse(raw, grid, "document")[0]
        run = {query: ranked(codes, vector, owners, encoder.vocabulary) for query, vector in asked.items()}
        figure = measure(run, judgements, ("nDCG@10",))["nDCG@10"]
        print(f"| {name} | {figure:.4f} | {len(codes.terms) / len(codes):.0f} |", flush=True)


def ranked(codes: SparseVectors, query: SparseVectors, owners: list[str], vocabulary: int) -> dict[str, float]:
    """Return the hundred best documents of a query by exact products."""
    from scipy.sparse import csr_array

    matrix = csr_array((codes.values.astype(np.float64), codes.terms, codes.starts), shape=(len(codes), vocabulary))
    scores = matrix @ query.dense(vocabulary)[0]
    best = np.argsort(-scores, kind="stable")[:100]
    return {owners[row]: float(scores[row]) for row in best if scores[row] > 0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--work", type=Path, default=None)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-sparse-"))
    for qrels in sorted(arguments.folder.glob("*/qrels.parquet")):
        folder = qrels.parent
        if arguments.only not in folder.name:
            continue
        queries, judgements = read_queries(folder / "queries.parquet"), read_judgements(qrels)
        queries = {name: text for name, text in queries.items() if name in judgements}
        embed(folder, work, arguments.model)
        print(f"\n{folder.name}, {len(queries)} queries\n", flush=True)
        with open_index(str(work), folder.name, engine=Engine(threads=1)) as index:
            searched(index, queries, judgements)
            grids(index, queries, judgements)


if __name__ == "__main__":
    main()
