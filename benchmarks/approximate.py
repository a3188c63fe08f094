"""Approximate search: isospace against faiss and usearch at equal measured recall, interleaved in one run.

    python -m benchmarks.approximate FOLDER [--cells 4096] [--only NAME …] [--recalls 0.95 0.99 0.999]

FOLDER has vectors.npy and queries.npy, such as from `python -m benchmarks.clustered`. Half of the queries choose each
contestant's parameter: the cheapest with which it reaches the recall on them. For isospace that is the recall it
declares. The other half are searched one at a time, the contestants in turn. Recall is the share of the exact top 10.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from isospace.search.approximate.index import ApproximateIndex
from isospace.search.approximate.learn import learn_recall
from isospace.search.approximate.lists import open_lists, write_lists
from isospace.search.vector.kernels import Codes
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.representations import Float32Spec, Int8Spec

K, BLOCK = 10, 65_536
Search = Callable[[Any, Any], Any]
"""From one (1, k) query and a parameter to the rows of the hits."""


@dataclass(frozen=True)
class Contestant:
    """An index that is ready, and what building it took."""

    search: Search
    parameters: Sequence[Any]
    seconds: float
    megabytes: float
    batch: Search


def anonymous_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous")) / 1024


def blocks(vectors: Any) -> Any:
    return (np.ascontiguousarray(vectors[first : first + BLOCK]) for first in range(0, len(vectors), BLOCK))


def exact_rows(vectors: Any, queries: Any) -> Any:
    scores, rows = np.full((len(queries), K), -2.0, np.float32), np.zeros((len(queries), K), np.int64)
    first = 0
    for block in blocks(vectors):
        here = queries @ block.T
        own = np.argpartition(-here, K, axis=1)[:, :K]
        both = np.concatenate([scores, np.take_along_axis(here, own, 1)], axis=1)
        places = np.concatenate([rows, own + first], axis=1)
        order = np.argsort(-both, axis=1)[:, :K]
        scores, rows = np.take_along_axis(both, order, 1), np.take_along_axis(places, order, 1)
        first += len(block)
    return rows


def isospace(vectors: Any, queries: Any, cells: int, folder: Path, form: str) -> Contestant:
    """Fit cells, write the files of a local copy, and learn; `form` is what scores are computed from."""
    sample = np.ascontiguousarray(vectors[:: max(1, len(vectors) // 131_072)][:131_072])
    begun = time.perf_counter()
    quantizer = fit_cells(CellsSpec(count=cells), sample, cells, spherical=True).quantizer
    fitted = time.perf_counter()
    homes = np.concatenate([quantizer.encode(block) for block in blocks(vectors)])
    assigned = time.perf_counter()
    write_lists(folder / "cells.faiss", blocks(vectors), homes, quantizer)
    written = time.perf_counter()
    spec = Float32Spec() if form == "float32" else Int8Spec()
    scorer = fit_quantizer(spec, sample)
    stored: Any = np.load(folder / "vectors.npy", mmap_mode="c")
    if form == "int8":
        path = folder / "int8.npy"
        codes = np.lib.format.open_memmap(path, mode="w+", dtype=np.int8, shape=vectors.shape)
        for number, block in enumerate(blocks(vectors)):
            codes[number * BLOCK : number * BLOCK + len(block)] = scorer.encode(block)
        codes.flush()
        stored = np.load(path, mmap_mode="c")
    last = Codes(form, scorer, stored)
    np.save(folder / "cells.npy", homes)
    lists = open_lists(folder / "cells.faiss", np.load(folder / "cells.npy", mmap_mode="c"))
    before = anonymous_mb()
    plain = ApproximateIndex([lists], quantizer, None, None)
    learned = learn_recall(plain, last, last, queries, source="set", space_id="", snapshot=1, kernels="fast")
    done = time.perf_counter()
    laps = {"fit": fitted - begun, "assign": assigned - fitted, "lists": written - assigned, "learn": done - written}
    print(f"isospace {form}: {', '.join(f'{name} {lap:.0f} s' for name, lap in laps.items())}", flush=True)
    for one in learned.measured:
        if one.neighbors == K:
            print(
                f"  declared {one.declared}: {one.recall:.4f} ({one.low:.4f} to {one.high:.4f}), "
                f"{one.cells:.0f} cells, {one.rows:,.0f} rows",
                flush=True,
            )
    index = ApproximateIndex([lists], quantizer, learned, None)

    def search(query: Any, recall: float) -> Any:
        found, _ = index.nearest(last, query, K, metric="cosine", recall=recall, rows=None)
        return [rows[np.lexsort((rows, -scores))[:K]] for rows, scores in found]

    size = (folder / "cells.faiss").stat().st_size + homes.nbytes
    search(queries[:1], 0.9)
    print(f"  anonymous memory of the index after a search: {anonymous_mb() - before:.0f} MB", flush=True)
    rules = sorted({rule.recall for rule in learned.rules if rule.neighbors == K})
    return Contestant(search, rules, done - begun, size / 1e6, search)


def rescored(vectors: Any, query: Any, rows: Any) -> Any:
    rows = rows[rows >= 0]
    scores = vectors[rows] @ query
    return rows[np.argsort(-scores)[:K]]


def faiss_ivf(vectors: Any, cells: int, kind: str) -> Contestant:
    import faiss

    dimension = vectors.shape[1]
    begun, before = time.perf_counter(), anonymous_mb()
    coarse = faiss.IndexFlatIP(dimension)
    index: Any
    if kind == "flat":
        index = faiss.IndexIVFFlat(coarse, dimension, cells, faiss.METRIC_INNER_PRODUCT)
    elif kind == "rabitq":
        index = faiss.IndexIVFRaBitQFastScan(coarse, dimension, cells, faiss.METRIC_INNER_PRODUCT)
    else:
        index = faiss.IndexIVFPQFastScan(coarse, dimension, cells, dimension // 4, 4, faiss.METRIC_INNER_PRODUCT)
    index.cp.max_points_per_centroid, index.cp.niter = 32, 10
    index.train(np.ascontiguousarray(vectors[:: max(1, len(vectors) // 131_072)][:131_072]))
    for block in blocks(vectors):
        index.add(block)
    spent = time.perf_counter() - begun

    def search(queries: Any, parameter: tuple[int, int]) -> Any:
        index.nprobe, depth = parameter
        if kind == "flat":
            return index.search(queries, K)[1]
        near = index.search(queries, depth)[1]
        return [rescored(vectors, query, rows) for query, rows in zip(queries, near, strict=True)]

    depths = (1,) if kind == "flat" else (100, 200, 400, 800)
    grid = [(probes, depth) for probes in (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384) for depth in depths]
    return Contestant(search, grid, spent, anonymous_mb() - before, search)


def faiss_hnsw(vectors: Any) -> Contestant:
    import faiss

    begun, before = time.perf_counter(), anonymous_mb()
    index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    for block in blocks(vectors):
        index.add(block)
    spent = time.perf_counter() - begun

    def search(queries: Any, breadth: int) -> Any:
        index.hnsw.efSearch = breadth
        return index.search(queries, K)[1]

    return Contestant(search, (16, 32, 64, 128, 256, 512, 1024), spent, anonymous_mb() - before, search)


def usearch_hnsw(vectors: Any) -> Contestant:
    from usearch.index import Index

    begun, before = time.perf_counter(), anonymous_mb()
    index = Index(ndim=vectors.shape[1], metric="ip", dtype="f32", connectivity=32, expansion_add=80)
    first = 0
    for block in blocks(vectors):
        index.add(np.arange(first, first + len(block)), block, threads=os.cpu_count() or 1)
        first += len(block)
    spent = time.perf_counter() - begun

    def search(queries: Any, breadth: int) -> Any:
        index._compiled.expansion_search = breadth
        return np.asarray(index.search(queries, K).keys).reshape(len(queries), -1)

    return Contestant(search, (16, 32, 64, 128, 256, 512, 1024), spent, anonymous_mb() - before, search)


def recall_of(search: Search, queries: Any, truth: Any, parameter: Any) -> float:
    found = [search(query[None], parameter)[0] for query in queries]
    return float(np.mean([np.isin(own, near).mean() for near, own in zip(found, truth, strict=True)]))


def cheapest(contestant: Contestant, queries: Any, truth: Any, wanted: float) -> Any | None:
    """Return the fastest parameter that reaches a recall; isospace takes what it declares."""
    best = None
    for parameter in contestant.parameters:
        begun = time.perf_counter()
        reached = recall_of(contestant.search, queries, truth, parameter)
        spent = time.perf_counter() - begun
        if reached >= wanted and (best is None or spent < best[0]):
            best = (spent, parameter)
    return None if best is None else best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=4096)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--recalls", nargs="*", type=float, default=[0.95, 0.99, 0.999])
    parser.add_argument("--form", default="float32", choices=["float32", "int8"])
    arguments = parser.parse_args()
    vectors: Any = np.load(arguments.folder / "vectors.npy", mmap_mode="c")
    queries = np.load(arguments.folder / "queries.npy")
    queries = np.ascontiguousarray(queries[np.random.default_rng(0).permutation(len(queries))])
    truth = exact_rows(vectors, queries)
    learned, held_out = slice(0, None, 2), slice(1, None, 2)
    made: dict[str, Callable[[], Contestant]] = {
        "isospace": lambda: isospace(vectors, queries, arguments.cells, arguments.folder, arguments.form),
        "faiss IVF RaBitQ fast scan, rescored": lambda: faiss_ivf(vectors, arguments.cells, "rabitq"),
        "faiss IVF PQ fast scan, rescored": lambda: faiss_ivf(vectors, arguments.cells, "pq"),
        "faiss IVF flat": lambda: faiss_ivf(vectors, arguments.cells, "flat"),
        "faiss HNSW": lambda: faiss_hnsw(vectors),
        "usearch HNSW": lambda: usearch_hnsw(vectors),
    }
    ready = {}
    for name, make in made.items():
        if not arguments.only or name in arguments.only:
            ready[name] = make()
            print(f"{name}: built in {ready[name].seconds:.0f} s, {ready[name].megabytes:,.0f} MB", flush=True)
    names = ("numpy", "faiss-cpu", "usearch")
    print(f"{len(vectors):,} x {vectors.shape[1]}; {', '.join(f'{name} {version(name)}' for name in names)}\n")
    print("| recall@10 wanted | search | parameter | recall@10 | p50 ms | p99 ms | 100 at once, ms per query |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: |")
    for wanted in arguments.recalls:
        chosen = {}
        for name, one in ready.items():
            own = wanted if name == "isospace" and wanted in one.parameters else None
            chosen[name] = own or cheapest(one, queries[learned], truth[learned], wanted)
        times: dict[str, list[float]] = {name: [] for name in ready}
        found: dict[str, list[Any]] = {name: [] for name in ready}
        for query in queries[held_out]:
            for name, one in ready.items():
                if chosen[name] is not None:
                    begun = time.perf_counter()
                    rows = one.search(query[None], chosen[name])[0]
                    times[name].append(1000 * (time.perf_counter() - begun))
                    found[name].append(rows)
        for name, one in ready.items():
            if chosen[name] is None:
                print(f"| {wanted} | {name} | not reached | | | | |")
                continue
            hits = [np.isin(own, near).mean() for near, own in zip(found[name], truth[held_out], strict=True)]
            begun = time.perf_counter()
            one.batch(queries[:100], chosen[name])
            batch = 10 * (time.perf_counter() - begun)
            p50, p99 = np.percentile(times[name], [50, 99])
            print(
                f"| {wanted} | {name} | {chosen[name]} | {np.mean(hits):.4f} | {p50:.2f} | {p99:.2f} | {batch:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
