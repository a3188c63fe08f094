"""Make the demo's corpus from SciFact: 1,000 abstracts, among them all judged ones.

    python -m benchmarks.make_demo_corpus SCIFACT_FOLDER configs/demo

The others are those whose IDs have the smallest hashes.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

DOCUMENTS = 1_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    arguments = parser.parse_args()
    corpus = pq.read_table(arguments.source / "corpus.parquet")
    judged = set(pq.read_table(arguments.source / "qrels.parquet")["doc_id"].to_pylist())
    others = sorted(set(corpus["doc_id"].to_pylist()) - judged, key=lambda d: hashlib.sha256(d.encode()).digest())
    chosen = sorted(judged) + others[: DOCUMENTS - len(judged)]
    kept = corpus.filter(pc.is_in(corpus["doc_id"], pc.cast(chosen, "string")))
    arguments.target.mkdir(parents=True, exist_ok=True)
    pq.write_table(kept, arguments.target / "corpus.parquet", compression="zstd", compression_level=19)
    for name in ("queries.parquet", "qrels.parquet"):
        pq.write_table(pq.read_table(arguments.source / name), arguments.target / name, compression="zstd")
    print(f"{kept.num_rows} documents, {len(judged)} of them judged")


if __name__ == "__main__":
    main()
