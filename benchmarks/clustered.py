"""Make many vectors that are clustered like real ones, from the vectors of real texts.

    python -m benchmarks.clustered MODEL DATA OUT --rows 1000000 [--dtype float16]

MODEL is a folder of sentence-transformers; DATA has folders with corpus.parquet and queries.parquet. Each vector lies
between a real one and one of its ten nearest neighbors, at a random place, with noise that has 0.6 times the covariance
of the difference of neighbors. OUT gets `vectors.npy` and `queries.npy`; queries are the real ones.
In float16 ten million vectors of 384 dimensions take 7.7 GB.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

NEIGHBORS, NOISE, BLOCK = 10, 0.6, 100_000
Array = np.ndarray[Any, np.dtype[np.float32]]
Stored = np.ndarray[Any, np.dtype[Any]]


def real_vectors(model: str, data: Path) -> tuple[Array, Array]:
    """Encode the texts of all collections in a folder, and their queries."""
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu")
    encoder.max_seq_length = 254
    encoded = []
    for name in ("corpus.parquet", "queries.parquet"):
        tables = [pq.read_table(path) for path in sorted(data.glob(f"*/{name}"))]
        texts = [text for table in tables for text in table["text"].to_pylist() if text.strip()]
        encoded.append(encoder.encode(texts, normalize_embeddings=True, show_progress_bar=True))
    return np.unique(encoded[0], axis=0), encoded[1]


def clustered(real: Array, rows: int, out: Stored, seed: int = 0) -> None:
    """Fill `out` with (rows, k) unit vectors between near neighbors of the real ones."""
    chance = np.random.default_rng(seed)
    near = np.empty((len(real), NEIGHBORS), np.int64)
    for start in range(0, len(real), 2_000):
        products = real[start : start + 2_000] @ real.T
        products[np.arange(len(products)), np.arange(start, start + len(products))] = -1.0
        near[start : start + 2_000] = np.argpartition(-products, NEIGHBORS, axis=1)[:, :NEIGHBORS]
    differences = (real - real[near[:, 0]]) / np.sqrt(2.0)
    factor = np.linalg.cholesky(np.cov(differences.T) + 1e-9 * np.eye(real.shape[1])).astype(np.float32)
    for start in range(0, rows, BLOCK):
        count = min(BLOCK, rows - start)
        one = chance.integers(0, len(real), count)
        other = near[one, chance.integers(0, NEIGHBORS, count)]
        place = chance.random((count, 1), dtype=np.float32)
        noise = chance.standard_normal((count, real.shape[1]), dtype=np.float32) @ factor.T
        block = real[one] * (1.0 - place) + real[other] * place + np.float32(NOISE) * noise
        out[start : start + count] = block / np.linalg.norm(block, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    real, queries = real_vectors(arguments.model, arguments.data)
    path = arguments.out / "vectors.npy"
    shape = (arguments.rows, real.shape[1])
    vectors = np.lib.format.open_memmap(path, mode="w+", dtype=arguments.dtype, shape=shape)
    clustered(real, arguments.rows, vectors)
    vectors.flush()
    np.save(arguments.out / "queries.npy", queries.astype(np.float32))
    print(f"{len(real)} real vectors, {len(queries)} queries -> {arguments.rows:,} vectors in {path}")


if __name__ == "__main__":
    main()
