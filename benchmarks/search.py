"""Search in a million vectors: isospace against vector libraries, interleaved in one run.

    python -m benchmarks.search [--rows 1000000] [--rounds 3]

Vectors have the spectrum of MiniLM's (64 of 384 components hold two thirds of the variance); queries are vectors with
noise. Each contestant answers a batch of 100 queries, and single queries. Recall is the share of the float32 top 10.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import duckdb
import faiss
import numpy as np
import psutil
import pyarrow as pa
import torch
import usearch.index

from isospace.search.vector.kernels import Codes
from isospace.search.vector.rescoring import nearest
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import BinarySpec, Float32Spec, Int8Spec

DIMENSION, BATCH, SINGLES, K = 384, 100, 10, 10
Search = Callable[[np.ndarray], np.ndarray]


def make_vectors(rows: int, queries: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw unit vectors with a falling spectrum, and queries near some of them."""
    chance = np.random.default_rng(seed)
    spread = (1.0 / np.sqrt(np.arange(1, DIMENSION + 1) + 8.0)).astype(np.float32)
    axes = np.linalg.qr(chance.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    vectors = np.empty((rows, DIMENSION), np.float32)
    for start in range(0, rows, 50_000):
        block = chance.standard_normal((min(50_000, rows - start), DIMENSION), dtype=np.float32) * spread
        vectors[start : start + len(block)] = block @ axes
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    moved = vectors[chance.choice(rows, queries, replace=False)]
    moved = moved + 0.9 * ((chance.standard_normal(moved.shape, dtype=np.float32) * spread) @ axes) / np.linalg.norm(
        spread
    )
    return vectors, (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def ours(codes: dict[str, Codes], first: str, last: str, rescore: int) -> Search:
    def search(queries: np.ndarray) -> np.ndarray:
        given: dict[str, Any] = {"metric": "cosine", "rescore": rescore, "rows": None, "kernels": "fast"}
        found = nearest(codes[first], codes[last], queries, K, **given)
        return np.stack([rows[np.lexsort((rows, -scores))[:K]] for rows, scores in found])

    return search


def plain_torch(vectors: np.ndarray) -> Search:
    """Compute the product in blocks, and keep the best of each."""
    whole = torch.from_numpy(vectors)

    def search(queries: np.ndarray) -> np.ndarray:
        left, values, rows = torch.from_numpy(queries), [], []
        for start in range(0, len(whole), 16_384):
            best = (left @ whole[start : start + 16_384].T).topk(K)
            values.append(best.values)
            rows.append(best.indices + start)
        order = torch.cat(values, 1).topk(K).indices
        return torch.cat(rows, 1).gather(1, order).numpy()

    return search


def plain_torch_int8(vectors: np.ndarray, scale: np.ndarray) -> Search:
    """Compute the integer product in blocks, and rescore the best 40 in float32."""
    codes = torch.from_numpy(np.clip(np.rint(vectors / scale), -127, 127).astype(np.int8))

    def search(queries: np.ndarray) -> np.ndarray:
        scaled = queries * scale
        left = torch.from_numpy(np.rint(scaled / np.abs(scaled).max(axis=1, keepdims=True) * 127).astype(np.int8))
        values, rows = [], []
        for start in range(0, len(codes), 16_384):
            best = torch._int_mm(left, codes[start : start + 16_384].T).topk(40)
            values.append(best.values)
            rows.append(best.indices + start)
        order = torch.cat(values, 1).topk(40).indices
        return rescored(vectors, queries, torch.cat(rows, 1).gather(1, order).numpy())

    return search


def rescored(vectors: np.ndarray, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    scores = np.einsum("mk,mck->mc", queries, vectors[rows])
    return np.take_along_axis(rows, np.argsort(-scores, axis=1)[:, :K], axis=1)


def faiss_flat(vectors: np.ndarray) -> Search:
    index = faiss.IndexFlatIP(DIMENSION)
    index.add(vectors)
    return lambda queries: index.search(queries, K)[1]


def faiss_sq8(vectors: np.ndarray) -> Search:
    index = faiss.IndexScalarQuantizer(DIMENSION, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[:100_000])
    index.add(vectors)
    return lambda queries: rescored(vectors, queries, index.search(queries, 4 * K)[1])


def faiss_binary(vectors: np.ndarray, depth: int) -> Search:
    index = faiss.IndexBinaryFlat(DIMENSION)
    index.add(np.packbits(vectors > 0, axis=1))
    return lambda queries: rescored(vectors, queries, index.search(np.packbits(queries > 0, axis=1), depth)[1])


def usearch_exact(vectors: np.ndarray) -> Search:
    def search(queries: np.ndarray) -> np.ndarray:
        found = usearch.index.search(vectors, queries, K, usearch.index.MetricKind.IP, exact=True)
        return np.asarray(found.keys, np.int64).reshape(len(queries), -1)

    return search


def duckdb_array(vectors: np.ndarray) -> Search:
    connection = duckdb.connect()
    connection.register(
        "arrow",
        pa.table(
            {
                "row": np.arange(len(vectors)),
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), DIMENSION),
            }
        ),
    )
    connection.execute("CREATE TABLE vectors AS SELECT * FROM arrow")
    text = f"SELECT row FROM vectors ORDER BY array_inner_product(vector, ?::FLOAT[{DIMENSION}]) DESC LIMIT {K}"
    return lambda queries: np.array(
        [[r[0] for r in connection.execute(text, [q.tolist()]).fetchall()] for q in queries]
    )


def encoded(quantizer: Any, vectors: np.ndarray) -> np.ndarray:
    return np.concatenate([quantizer.encode(vectors[n : n + 50_000]) for n in range(0, len(vectors), 50_000)])


def timed(search: Search, queries: np.ndarray, *, single: bool) -> float:
    begun = time.perf_counter()
    for part in np.split(queries, len(queries)) if single else [queries]:
        search(part)
    return 1000 * (time.perf_counter() - begun) / len(queries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    vectors, queries = make_vectors(arguments.rows, BATCH)
    quantizers = {
        spec.name: fit_quantizer(spec, vectors[:50_000]) for spec in (Float32Spec(), Int8Spec(), BinarySpec())
    }
    codes = {
        name: Codes(name, q, vectors if name == "float32" else encoded(q, vectors)) for name, q in quantizers.items()
    }
    memory = {name: one.array.nbytes / 2**20 for name, one in codes.items()}
    contestants: dict[str, Callable[[], Search]] = {
        "isospace exact": lambda: ours(codes, "float32", "float32", 0),
        "torch product": lambda: plain_torch(vectors),
        "faiss IndexFlatIP": lambda: faiss_flat(vectors),
        "usearch exact f32": lambda: usearch_exact(vectors),
        "DuckDB array_inner_product": lambda: duckdb_array(vectors),
        "isospace int8, x 4": lambda: ours(codes, "int8", "float32", 4),
        "torch int8 product, 40 rescored": lambda: plain_torch_int8(
            vectors, np.asarray(quantizers["int8"].arrays()["scale"])
        ),
        "faiss SQ8, 40 rescored": lambda: faiss_sq8(vectors),
        "isospace binary, x 10": lambda: ours(codes, "binary", "float32", 10),
        "faiss BinaryFlat, 200 rescored": lambda: faiss_binary(vectors, 200),
    }
    ready: dict[str, Search] = {}
    resident = psutil.Process()
    for name, make in contestants.items():
        before = resident.memory_info().rss
        ready[name] = make()
        print(f"{name}: {(resident.memory_info().rss - before) / 2**20:.0f} MB more", flush=True)
    expected = ready["torch product"](queries)
    recall, batch, single = {}, {name: [] for name in ready}, {name: [] for name in ready}
    for _ in range(arguments.rounds):
        for name, search in ready.items():
            some = queries[:5] if "DuckDB" in name else queries
            batch[name].append(timed(search, some, single="DuckDB" in name))
            single[name].append(timed(search, queries[: 5 if "DuckDB" in name else SINGLES], single=True))
    for name, search in ready.items():
        found = search(queries[:20])
        recall[name] = np.mean([len(set(a) & set(b)) / K for a, b in zip(found, expected[:20], strict=True)])
    names = ("numpy", "torch", "faiss-cpu", "usearch", "duckdb")
    print(f"{arguments.rows:,} x {DIMENSION}; {', '.join(f'{n} {version(n)}' for n in names)}; codes {memory} MB\n")
    print(f"| search | recall@10 | {BATCH} at once, ms per query | one at a time, ms |\n| --- | ---: | ---: | ---: |")
    for name in ready:
        print(f"| {name} | {recall[name]:.3f} | {min(batch[name]):.2f} | {np.median(single[name]):.1f} |")


if __name__ == "__main__":
    main()
