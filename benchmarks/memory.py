"""Peak memory of the whole flow for 50,000 and 200,000 short rows, with a stub encoder.

    python -m benchmarks.memory [--rows 50000 200000]

The stub is a one-layer model of 16 dimensions with random weights: a real model to every stage, with hardly any
computation. Each run is a separate process; the kernel reports its peak resident set.
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.helpers.tiny import WORDS, build_tiny_model

SCHEMA = pa.schema([("doc_id", pa.string()), ("text", pa.string())])


def write_rows(path: Path, rows: int) -> None:
    chance = random.Random(rows)
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for start in range(0, rows, 10_000):
            numbers = range(start, min(start + 10_000, rows))
            texts = [" ".join([*chance.choices(WORDS, k=chance.randint(3, 12)), str(n)]) for n in numbers]
            writer.write_table(pa.table({"doc_id": [f"row-{n}" for n in numbers], "text": texts}, schema=SCHEMA))


def run_child(folder: Path, rows: int) -> None:
    from isospace.pipeline.config import PipelineConfig
    from tests.helpers.inline import embed_inline

    recipe = {"encoder": {"model": str(folder / "tiny")}, "chunking": {"overlap_tokens": 4}}
    runtime = {
        "store": str(folder / f"store-{rows}"),
        "collection": "rows",
        "source": str(folder / f"{rows}.parquet"),
        "shard_tokens": 100_000,
        "memory_mb": 128,
        "device": "cpu",
    }
    started = time.perf_counter()
    report = embed_inline(PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime}))
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {rows:,} | {report.chunks:,} | {peak:.0f} | {seconds:.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 200_000])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        run_child(arguments.child, arguments.rows[0])
        return
    with tempfile.TemporaryDirectory(prefix="isospace-memory-") as name:
        folder = Path(name)
        build_tiny_model(folder / "tiny")
        print("| rows | chunks | peak RSS, MB | seconds |\n| ---: | ---: | ---: | ---: |", flush=True)
        for rows in arguments.rows:
            write_rows(folder / f"{rows}.parquet", rows)
            subprocess.run(
                [sys.executable, "-m", "benchmarks.memory", "--child", name, "--rows", str(rows)], check=True
            )


if __name__ == "__main__":
    main()
