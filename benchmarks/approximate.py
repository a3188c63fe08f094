"""Approximate search: isospace against faiss, usearch, and LanceDB at equal measured recall, interleaved in one run.

    python -m benchmarks.approximate FOLDER [--cells 4096] [--only NAME …] [--recalls 0.95 0.99 0.999] [--replace 0.1]

FOLDER has vectors.npy and queries.npy, such as from `python -m benchmarks.clustered`. Half of the queries choose each
contestant's parameter: the fastest with which it reaches the recall on them. For isospace that is the recall it
declares. The other half are searched one at a time, the contestants in turn. Recall is the share of the exact top 10.

With `--replace`, this share of the rows is then deleted, and as many are added: rows between those of the file. The
parameters stay. The indexes of cells of faiss get the cells of isospace.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.approximate_own import fitted_cells, own_index
from benchmarks.approximate_peers import faiss_cells, faiss_hnsw, lance, usearch_hnsw
from benchmarks.approximate_rows import Contestant, Rows, Search, exact_rows

OWN = "isospace"


def recall_of(search: Search, queries: Any, truth: Any, parameter: Any) -> float:
    """Return the share of the true neighbors that are found."""
    found = [search(query[None], parameter)[0] for query in queries]
    return float(np.mean([np.isin(near, own).mean() for near, own in zip(truth, found, strict=True)]))


def cheapest(contestant: Contestant, queries: Any, truth: Any, wanted: float) -> Any | None:
    """Return the fastest parameter that reaches a recall: of each list the first one, found by halving."""
    best = None
    for line in contestant.parameters:
        low, high, spent = 0, len(line), 0.0
        while low < high:
            middle = (low + high) // 2
            begun = time.perf_counter()
            if recall_of(contestant.search, queries, truth, line[middle]) >= wanted:
                high, spent = middle, time.perf_counter() - begun
            else:
                low = middle + 1
        if low < len(line) and (best is None or spent < best[0]):
            best = (spent, line[low])
    return None if best is None else best[1]


def compare(
    ready: Mapping[str, Contestant], chosen: Mapping[str, Any], queries: Any, truth: Any, wanted: float
) -> None:
    """Search with all contestants in turn, and print a line for each."""
    times: dict[str, list[float]] = {name: [] for name in ready}
    found: dict[str, list[Any]] = {name: [] for name in ready}
    for query in queries:
        for name, one in ready.items():
            if chosen[name] is not None:
                begun = time.perf_counter()
                rows = one.search(query[None], chosen[name])[0]
                times[name].append(1000 * (time.perf_counter() - begun))
                found[name].append(rows)
    for name, one in ready.items():
        if chosen[name] is None:
            print(f"| {wanted} | {name} | not reached | | | | |", flush=True)
            continue
        hits = [np.isin(near, own).mean() for near, own in zip(truth, found[name], strict=True)]
        begun = time.perf_counter()
        one.search(queries[:100], chosen[name])
        batch = 10 * (time.perf_counter() - begun)
        p50, p99 = np.percentile(times[name], [50, 99])
        print(
            f"| {wanted} | {name} | {chosen[name]} | {np.mean(hits):.4f} | {p50:.2f} | {p99:.2f} | {batch:.2f} |",
            flush=True,
        )


def header() -> None:
    """Print the head of a table."""
    print("\n| recall@10 wanted | search | parameter | recall@10 | p50 ms | p99 ms | 100 at once, ms per query |")
    print("| ---: | --- | --- | ---: | ---: | ---: | ---: |", flush=True)


def replacements(rows: Rows, share: float) -> tuple[Any, Any]:
    """Return rows to delete, and vectors to add: means of two rows that are near each other, with their noise."""
    chance = np.random.default_rng(1)
    count = int(share * len(rows.file))
    deleted = np.sort(chance.choice(len(rows.file), count, replace=False))
    added = np.empty((count, rows.dimension), rows.file.dtype)
    for first in range(0, count, 10_000):
        some = rows[np.sort(chance.choice(len(rows.file), min(10_000, count - first), replace=False))]
        products = some @ some.T
        np.fill_diagonal(products, -1.0)
        mixed = some + some[products.argmax(axis=1)]
        added[first : first + len(some)] = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return deleted, added


def exact_once(rows: Rows, queries: Any, folder: Path) -> Any:
    """Return the neighbors among the rows of the file, from a file beside it if they have been found before."""
    kept = folder / "truth.npy"
    if not kept.exists():
        np.save(kept, exact_rows(rows, queries))
    return np.load(kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=4096)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--recalls", nargs="*", type=float, default=[0.95, 0.99, 0.999])
    parser.add_argument("--form", choices=["float32", "float16", "int8"])
    parser.add_argument("--replace", type=float, default=0.0)
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    rows = Rows(np.load(folder / "vectors.npy", mmap_mode="c"))
    queries = np.load(folder / "queries.npy")
    queries = np.ascontiguousarray(queries[np.random.default_rng(0).permutation(len(queries))])
    truth = exact_once(rows, queries, folder)
    learned, held_out = slice(0, None, 2), slice(1, None, 2)
    cells, homes = fitted_cells(rows, arguments.cells, folder)
    centroids = np.ascontiguousarray(cells.centroids())
    form = arguments.form or str(rows.file.dtype)
    made: dict[str, Callable[[], Contestant]] = {
        OWN: lambda: own_index(rows, queries, cells, homes, folder, form),
        "faiss IVF RaBitQ fast scan, rescored": lambda: faiss_cells(rows, centroids, homes, "rabitq"),
        "faiss IVF PQ fast scan, rescored": lambda: faiss_cells(rows, centroids, homes, "pq"),
        "faiss IVF flat": lambda: faiss_cells(rows, centroids, homes, "flat"),
        "LanceDB IVF_RQ, refined": lambda: lance(rows, arguments.cells, folder),
        "faiss HNSW": lambda: faiss_hnsw(rows),
        "usearch HNSW": lambda: usearch_hnsw(rows),
    }
    ready = {}
    for name, make in made.items():
        if not arguments.only or name in arguments.only:
            ready[name] = make()
            print(f"{name}: built in {ready[name].seconds:.0f} s, {ready[name].megabytes:,.0f} MB", flush=True)
    names = ("numpy", "faiss-cpu", "usearch", "lancedb")
    print(f"{len(rows):,} x {rows.dimension} {form}; {', '.join(f'{name} {version(name)}' for name in names)}")
    header()
    kept = {}
    for wanted in arguments.recalls:
        kept[wanted] = {
            name: wanted
            if name == OWN and wanted in one.parameters[0]
            else cheapest(one, queries[learned], truth[learned], wanted)
            for name, one in ready.items()
        }
        compare(ready, kept[wanted], queries[held_out], truth[held_out], wanted)
    if not arguments.replace:
        return
    deleted, added = replacements(rows, arguments.replace)
    rows.replace(deleted, added)
    truth = exact_rows(rows, queries)
    print(f"\n{len(added):,} rows replaced:", flush=True)
    still = {}
    for name, one in ready.items():
        if one.replace is None:
            print(f"{name}: cannot", flush=True)
            continue
        begun = time.perf_counter()
        try:
            one.replace(deleted, added)
        except RuntimeError as error:
            print(f"{name}: cannot ({str(error).splitlines()[0][:100]})", flush=True)
            continue
        print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)
        still[name] = one
    header()
    for wanted in arguments.recalls:
        compare(still, kept[wanted], queries[held_out], truth[held_out], wanted)


if __name__ == "__main__":
    main()
