"""Other indexes, each as its documentation says to build it."""

from __future__ import annotations

import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.approximate_rows import BLOCK, Contestant, K, Rows, anonymous_mb, blocks

PROBES = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384)
DEPTHS = (100, 200, 400, 800)
BREADTHS = (16, 32, 64, 128, 256, 512, 1024)


def rescored(rows: Rows, query: Any, near: Any) -> Any:
    """Return the K best of some rows by exact scores."""
    near = near[near >= 0]
    return near[np.argsort(-(rows[near] @ query))[:K]]


def faiss_cells(rows: Rows, centroids: Any, homes: Any, kind: str) -> Contestant:
    """Return an IVF index over given cells; `flat` stores what the file does, the others are rescored."""
    import faiss

    dimension, count = rows.dimension, len(centroids)
    begun, before = time.perf_counter(), anonymous_mb()
    coarse = faiss.IndexFlatIP(dimension)
    coarse.add(centroids)
    shape = (coarse, dimension, count)
    index: Any
    if kind == "rabitq":
        # The fast scan has no way to add rows whose cells are known; it is made from the plain index.
        index = faiss.IndexIVFRaBitQ(*shape, faiss.METRIC_INNER_PRODUCT)
    elif kind == "pq":
        index = faiss.IndexIVFPQFastScan(*shape, dimension // 4, 4, faiss.METRIC_INNER_PRODUCT)
    elif rows.file.dtype == np.float16:
        index = faiss.IndexIVFScalarQuantizer(*shape, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT, False)
    else:
        index = faiss.IndexIVFFlat(*shape, faiss.METRIC_INNER_PRODUCT)
    index.train(rows.sample(65_536 if kind == "pq" else 2 * count))
    first = 0
    for block in blocks(rows.file):
        ids = np.arange(first, first + len(block))
        own = homes[first : first + len(block)].astype(np.int64)
        index.add_core(len(block), faiss.swig_ptr(block), faiss.swig_ptr(ids), faiss.swig_ptr(own))
        first += len(block)
    if kind == "rabitq":
        index = faiss.IndexIVFRaBitQFastScan(index)
    spent = time.perf_counter() - begun

    def search(queries: Any, parameter: tuple[int, int]) -> Any:
        index.nprobe, depth = parameter
        if kind == "flat":
            return index.search(queries, K)[1]
        near = index.search(queries, depth)[1]
        return [rescored(rows, query, own) for query, own in zip(queries, near, strict=True)]

    def replace(deleted: Any, added: Any) -> None:
        index.remove_ids(deleted)
        for number, block in enumerate(blocks(added)):
            index.add_with_ids(block, len(rows.file) + number * BLOCK + np.arange(len(block)))

    grid = [[(probes, depth) for probes in PROBES] for depth in ((1,) if kind == "flat" else DEPTHS)]
    return Contestant(search, grid, spent, anonymous_mb() - before, replace)


def faiss_hnsw(rows: Rows) -> Contestant:
    """Return faiss's HNSW, from which nothing can be removed."""
    import faiss

    begun, before = time.perf_counter(), anonymous_mb()
    index = faiss.IndexHNSWFlat(rows.dimension, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 80
    for block in blocks(rows.file):
        index.add(block)
    spent = time.perf_counter() - begun

    def search(queries: Any, breadth: int) -> Any:
        index.hnsw.efSearch = breadth
        return index.search(queries, K)[1]

    return Contestant(search, [BREADTHS], spent, anonymous_mb() - before)


def usearch_hnsw(rows: Rows) -> Contestant:
    """Return usearch's HNSW, in half precision if the file is."""
    from usearch.index import Index

    begun, before = time.perf_counter(), anonymous_mb()
    kind = "f16" if rows.file.dtype == np.float16 else "f32"
    index = Index(ndim=rows.dimension, metric="ip", dtype=kind, connectivity=32, expansion_add=80)
    threads = os.cpu_count() or 1

    def add(first: int, vectors: Any) -> None:
        for block in blocks(vectors):
            index.add(np.arange(first, first + len(block)), block, threads=threads)
            first += len(block)

    add(0, rows.file)
    spent = time.perf_counter() - begun

    def search(queries: Any, breadth: int) -> Any:
        index._compiled.expansion_search = breadth
        return np.asarray(index.search(queries, K).keys).reshape(len(queries), -1).astype(np.int64)

    def replace(deleted: Any, added: Any) -> None:
        index.remove(deleted, threads=threads)
        add(len(rows.file), added)

    return Contestant(search, [BREADTHS], spent, anonymous_mb() - before, replace)


def lance(rows: Rows, cells: int, folder: Path) -> Contestant:
    """Return a LanceDB table on disk with an index of cells, whose hits are rescored from the vectors.

    It gets float32: with float16 it builds and searches many times more slowly.
    """
    import lancedb
    import pyarrow as pa
    from lancedb.index import IvfRq

    shutil.rmtree(folder / "lance", ignore_errors=True)
    schema = pa.schema([("row", pa.int64()), ("vector", pa.list_(pa.float32(), rows.dimension))])

    def batches(first: int, vectors: Any) -> Any:
        for block in blocks(vectors):
            flat = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), rows.dimension)
            yield pa.record_batch([pa.array(np.arange(first, first + len(block))), flat], schema=schema)
            first += len(block)

    begun, before = time.perf_counter(), anonymous_mb()
    table = lancedb.connect(folder / "lance").create_table("vectors", batches(0, rows.file), schema=schema)
    table.create_index(
        "vector",
        config=IvfRq(distance_type="cosine", num_partitions=cells),
        wait_timeout=timedelta(hours=2),
    )
    spent = time.perf_counter() - begun

    def search(queries: Any, parameter: tuple[int, int]) -> Any:
        probes, refine = parameter
        found = []
        for query in queries:
            asked: Any = table.search(query, vector_column_name="vector")
            asked = asked.distance_type("cosine").limit(K).nprobes(probes).refine_factor(refine)
            # Without the distance among the columns, each search logs a warning.
            hits = asked.select(["row", "_distance"]).to_arrow()
            found.append(hits["row"].to_numpy())
        return found

    def replace(deleted: Any, added: Any) -> None:
        for start in range(0, len(deleted), 50_000):
            table.delete(f"row in ({', '.join(map(str, deleted[start : start + 50_000].tolist()))})")
        table.add(pa.RecordBatchReader.from_batches(schema, batches(len(rows.file), added)))
        table.optimize()

    grid = [[(probes, depth // K) for probes in PROBES] for depth in DEPTHS]
    size = sum(path.stat().st_size for path in (folder / "lance").rglob("*") if path.is_file()) / 1e6
    print(f"LanceDB: {size:,.0f} MB on disk", flush=True)
    return Contestant(search, grid, spent, anonymous_mb() - before, replace)
