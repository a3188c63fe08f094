"""The query path against the index path: the same texts, alone as queries and stored by the pipeline.

    python -m benchmarks.parity STORE COLLECTION [--texts 1000] [--threads 1 2]

Only for a space whose roles have equal prompts and offsets: there both paths have to agree.
"""

from __future__ import annotations

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from isospace.index import open_index
from isospace.store import open_store


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    store = open_store(given.store)
    index = open_index(store, given.collection, representation="float32")
    paths = [str(store.root / part.chunks.path) for part in index.manifest.parts]
    chunks = pa.concat_tables(
        [pq.read_table(path, columns=["chunk_id", "prefix", "text", "n_tokens"]) for path in paths]
    )
    row_of = {name: row for row, name in enumerate(index.chunks["chunk_id"].to_pylist())}
    chosen = np.sort(np.random.default_rng(0).permutation(chunks.num_rows)[: given.texts])
    sample = chunks.take(pa.array(chosen)).to_pylist()
    texts = [row["prefix"] + row["text"] for row in sample]
    stored = index.vectors[[row_of[row["chunk_id"]] for row in sample]]
    codes = index.space.quantize(stored, "int8")
    lengths = [row["n_tokens"] for row in sample]
    print(f"{len(texts)} texts of {min(lengths)} to {max(lengths)} tokens, one call each\n")
    print("| threads | vectors with equal bits | largest difference | smallest cosine | int8 codes that differ |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for threads in given.threads:
        torch.set_num_threads(threads)
        asked = np.concatenate([index.space.embed([text], "query") for text in texts])
        equal = int((asked == stored).all(axis=1).sum())
        cosine = float((asked.astype(np.float64) * stored.astype(np.float64)).sum(axis=1).min())
        differing = int((index.space.quantize(asked, "int8") != codes).sum())
        largest = float(np.abs(asked - stored).max())
        print(
            f"| {threads} | {equal} of {len(texts)} | {largest:.2g} | {cosine:.9f} | {differing} of {codes.size} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
