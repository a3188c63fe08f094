"""Declared against achieved recall, on queries that the rules were not learned from.

    python -m benchmarks.declared collections MODEL DATA WORK
    python -m benchmarks.declared filters FOLDER [--cells 4096]

`collections` embeds each collection of DATA (folders with corpus.parquet and queries.parquet, or with files) in chunks
of 128 tokens, as a run does, which learns the rules from pseudo-queries. Then it searches with the collection's own
queries; those of plain files are the headings in them.

`filters` takes the vectors and queries of `python -m benchmarks.clustered`. Three quarters of the queries teach the
rules. The others search all rows, and rows that pass a filter: at random, nearest to one topic, or farthest from it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.approximate_own import fitted_cells, opened_index
from benchmarks.approximate_rows import K, Rows, blocks
from isospace import embed_corpus
from isospace.pipeline.config import PipelineConfig
from isospace.search.approximate.learn import interval
from isospace.search.index import Index
from isospace.search.open_index import open_index
from isospace.search.options import SearchOptions

DECLARED = (0.8, 0.9, 0.95, 0.98, 0.99)
SHARES = (0.5, 0.1, 0.01, 0.001)


def collections(model: str, data: Path, work: Path) -> None:
    """Print a line for each collection and recall."""
    print("| collection | chunks | queries | declared | achieved | cells visited of all |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for folder in sorted(path for path in data.iterdir() if path.is_dir()):
        table = folder / "corpus.parquet"
        documents: dict[str, Any] = {}
        if table.exists():
            documents = {"id_column": "doc_id", "text_columns": ["text"]}
        recipe = {
            "documents": documents,
            "encoder": {"model": model},
            "chunking": {"max_tokens": 128, "overlap_tokens": 0},
            "transform": {"representations": ["float32", "int8"], "cells": "auto"},
        }
        source = str(table if documents else folder)
        runtime = {"store": str(work / folder.name), "collection": "c", "source": source}
        embed_corpus(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
        with open_index(str(work / folder.name), "c") as index:
            texts = pq.read_table(folder / "queries.parquet")["text"].to_pylist() if documents else headings(index)
            _collection(folder.name, index, texts)


def headings(index: Index) -> list[str]:
    """Return up to 300 different headings of the chunks."""
    paths = index.chunks["heading_path"].to_pylist()
    texts = sorted({path[-1] for path in paths if path})
    return [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:300]]


def _collection(name: str, index: Index, texts: list[str]) -> None:
    exact = [[hit.chunk_id for hit in hits] for hits in index.search(texts, K, mode="exact")]
    approximate = index.view.approximate
    cells = 0 if approximate is None else approximate.quantizer.count
    for recall in DECLARED:
        answer = index.answer(texts, SearchOptions(k=K, mode="approximate", recall=recall))
        shares = np.array(
            [
                len(set(own) & {hit.chunk_id for hit in hits}) / len(own)
                for own, hits in zip(exact, answer.hits, strict=True)
            ]
        )
        visited = [one.cells for one in answer.visited if one is not None]
        low, high = interval(shares)
        where = f"{np.mean(visited):.1f} of {cells}" if visited else "all rows scored"
        print(
            f"| {name} | {len(index.view.copy):,} | {len(texts)} | {recall} | {shares.mean():.4f} "
            f"({low:.4f} to {high:.4f}) | {where} |",
            flush=True,
        )


def filters(folder: Path, cells: int) -> None:
    """Print a line for each filter and recall."""
    rows = Rows(np.load(folder / "vectors.npy", mmap_mode="c"))
    queries = np.load(folder / "queries.npy")
    queries = np.ascontiguousarray(queries[np.random.default_rng(0).permutation(len(queries))])
    quantizer, homes = fitted_cells(rows, cells, folder)
    taught = 3 * len(queries) // 4
    index, last, _ = opened_index(rows, queries[:taught], quantizer, homes, folder, str(rows.file.dtype))
    print("| passing | which | declared | achieved | p50 ms |")
    print("| ---: | --- | ---: | ---: | ---: |")
    searched = queries[taught:]
    topic = np.concatenate([block @ queries[0] for block in blocks(rows.file)])
    for share, which, passing in _passing(topic, SHARES):
        truth = _exact(rows, searched, passing)
        asked = passing if share < 1.0 else None
        for recall in (0.95, 0.99):
            if not index.can_search(recall, K, asked):
                print(f"| {share:.1%} | {which} | {recall} | all of {len(passing):,} rows scored | |", flush=True)
                continue
            found, times = [], []
            index.nearest(last, searched[:1], K, metric="cosine", recall=recall, rows=asked, keep=True)
            for query in searched:
                begun = time.perf_counter()
                scored, _ = index.nearest(last, query[None], K, metric="cosine", recall=recall, rows=asked, keep=True)
                times.append(1000 * (time.perf_counter() - begun))
                near, scores = scored[0]
                found.append(near[np.lexsort((near, -scores))[:K]])
            shares = np.array([np.isin(own, near).mean() for own, near in zip(truth, found, strict=True)])
            low, high = interval(shares)
            print(
                f"| {share:.1%} | {which} | {recall} | {shares.mean():.4f} ({low:.4f} to {high:.4f}) | "
                f"{np.median(times):.1f} |",
                flush=True,
            )


def _passing(topic: Any, shares: tuple[float, ...]) -> Iterator[tuple[float, str, Any]]:
    order = np.argsort(-topic, kind="stable")
    yield 1.0, "all", np.arange(len(topic), dtype=np.int64)
    chance = np.random.default_rng(2)
    for share in shares:
        count = int(share * len(topic))
        yield share, "at random", np.sort(chance.choice(len(topic), count, replace=False)).astype(np.int64)
        yield share, "nearest to a topic", np.sort(order[:count]).astype(np.int64)
        yield share, "farthest from it", np.sort(order[-count:]).astype(np.int64)


def _exact(rows: Rows, queries: Any, passing: Any) -> Any:
    scores, found = np.full((len(queries), K), -2.0, np.float32), np.zeros((len(queries), K), np.int64)
    for first in range(0, len(passing), 65_536):
        some = passing[first : first + 65_536]
        both = np.concatenate([scores, queries @ rows[some].T], axis=1)
        places = np.concatenate([found, np.broadcast_to(some, (len(queries), len(some)))], axis=1)
        order = np.argsort(-both, axis=1, kind="stable")[:, :K]
        scores, found = np.take_along_axis(both, order, 1), np.take_along_axis(places, order, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    real = kinds.add_parser("collections")
    real.add_argument("model")
    real.add_argument("data", type=Path)
    real.add_argument("work", type=Path)
    made = kinds.add_parser("filters")
    made.add_argument("folder", type=Path)
    made.add_argument("--cells", type=int, default=4096)
    arguments = parser.parse_args()
    if arguments.kind == "collections":
        collections(arguments.model, arguments.data, arguments.work)
    else:
        filters(arguments.folder, arguments.cells)


if __name__ == "__main__":
    main()
