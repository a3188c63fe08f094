"""Time to open a large snapshot: for the first time on a machine, afterwards, and after one percent has changed.

    python -m benchmarks.opening [--rows 1000000] [--work FOLDER]

The model is one layer of random weights with 384 dimensions, since the content of the vectors does not matter here.
Each opening is a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from isospace import embed_corpus
from isospace.pipeline.config import PipelineConfig
from tests.helpers.tiny import WORDS, build_tiny_model

OPEN = """
import json, resource, sys, time
begun = time.perf_counter()
from isospace.search.open_index import open_index
imported = time.perf_counter()
index = open_index(sys.argv[1], "large", encode=sys.argv[2] == "text")
opened = time.perf_counter()
if sys.argv[2] == "text":
    index.search("the protein of the cell", 10)
else:
    import numpy as np
    index.search_vectors(np.ones((1, 384), np.float32) / 384 ** 0.5, 10, mode="quantized", representation="int8")
answered = time.perf_counter()
index.search("the gene", 10) if sys.argv[2] == "text" else None
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(json.dumps({"chunks": len(index.view.copy), "import s": imported - begun, "open s": opened - imported,
    "first answer s": answered - opened, "second answer s": time.perf_counter() - answered, "peak RSS MB": peak}))
"""


def write_corpus(path: Path, rows: int, *, changed: bool = False) -> None:
    """Write short documents; if `changed`, every hundredth has another text."""
    chance = random.Random(0)
    with path.open("w") as stream:
        for row in range(rows):
            text = " ".join([*chance.choices(WORDS, k=6), str(row)])
            text += " changed" if changed and row % 100 == 0 else ""
            stream.write(json.dumps({"doc_id": f"d{row:08d}", "text": text, "year": 2000 + row % 25}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-opening-"))
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "corpus.jsonl").exists():
        write_corpus(work / "corpus.jsonl", arguments.rows)
    model = work / "model"
    if not model.exists():
        build_tiny_model(model, dimension=384)
    recipe = {
        "documents": {"metadata_columns": ["year"]},
        "encoder": {"model": str(model)},
        "chunking": {"kind": "none"},
        "transform": {"representations": ["float32", "int8", "binary"]},
    }
    runtime = {
        "store": str(work / "store"),
        "collection": "large",
        "source": str(work / "corpus.jsonl"),
        "part_documents": 50_000,
        "part_characters": 100_000_000,
        "shard_tokens": 500_000,
        "serving_table_rows": 0,
    }
    config = PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})
    timed_run(config, "first run")
    environment = {**os.environ, "ISOSPACE_CACHE": str(work / "cache")}
    for what in ("text", "text", "vectors", "text", "vectors"):
        timed_opening(work, what, environment)
    write_corpus(work / "corpus.jsonl", arguments.rows, changed=True)
    timed_run(config, "run after 1 % has changed")
    for _ in range(2):
        timed_opening(work, "text", environment)


def timed_run(config: PipelineConfig, name: str) -> None:
    """Run the pipeline, and print its seconds."""
    begun = time.perf_counter()
    embed_corpus(config)
    print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)


def timed_opening(work: Path, what: str, environment: dict[str, str]) -> None:
    """Open the snapshot in a process of its own, and print its seconds and the growth of the cache."""
    before = cached_mb(work)
    command = [sys.executable, "-c", OPEN, str(work / "store"), what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figures = {**json.loads(done.stdout), "written MB": cached_mb(work) - before}
    print(what, {k: round(v, 2) if isinstance(v, float) else v for k, v in figures.items()}, flush=True)


def cached_mb(work: Path) -> float:
    """Return the size of the local copies."""
    return sum(path.stat().st_size for path in (work / "cache").rglob("*") if path.is_file()) / 2**20


if __name__ == "__main__":
    main()
