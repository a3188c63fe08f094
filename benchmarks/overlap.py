"""How busy an encoder of a given speed is during a run, beside the speed at which this machine chunks.

    python -m benchmarks.overlap FOLDER [--megabytes 32] [--rates 125000 250000 500000] [--threads N]

FOLDER holds the collections, as for `benchmarks.line`, whose prose and tokenizer are used. The encoder is simulated: it
takes a shard's tokens by the rate, waits so long without using a core, as a process does that waits for a GPU, and
returns random vectors. `busy` is its share of the time from its first shard to the end of its last one, `early` counts
the shards that begin before all is chunked. `chunking` is the tokens of all parts by the seconds from the first part to
the last one; at a rate above it, the encoder has to wait.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.line import build_stub, settings, write_corpus


def run_once(path: Path, rate: float) -> None:
    """Run a pipeline with a simulated encoder, and print what it saw as JSON."""
    from isospace.pipeline import stages
    from isospace.pipeline.config import PipelineConfig
    from isospace.pipeline.embed import embed_corpus
    from isospace.pipeline.encode import shards
    from isospace.pipeline.executor import Stage

    busy: list[tuple[float, float]] = []
    chunked: list[float] = []
    real = stages.chunk
    chance = np.random.default_rng(0)

    def encode(encoder: Any, texts: Any) -> Any:
        begun = time.perf_counter()
        time.sleep(sum(len(ids) if ids is not None else 200 for ids in texts.ids) / rate)
        vectors = chance.normal(size=(len(texts.texts), encoder.record.dimension)).astype(np.float32)
        busy.append((begun, time.perf_counter()))
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def chunk(*arguments: Any) -> Any:
        chunked.append(time.perf_counter())
        part = real(*arguments)
        chunked.append(time.perf_counter())
        return part

    shards._encode = encode  # type: ignore[assignment]
    stages.CHUNK = Stage("chunk", chunk, stages.CHUNK.retry, stages.CHUNK.label)
    begun = time.perf_counter()
    report = embed_corpus(PipelineConfig.model_validate_json(path.read_text()))
    first, last = min(one for one, _ in busy), max(one for _, one in busy)
    found = {
        "tokens": report.tokens,
        "seconds": time.perf_counter() - begun,
        "first": first - min(chunked),
        "busy": sum(end - start for start, end in busy) / (last - first),
        "chunking": report.tokens / (max(chunked) - min(chunked)),
        "before": sum(one < max(chunked) for one, _ in busy),
        "shards": len(busy),
    }
    print(json.dumps(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=32)
    parser.add_argument("--rates", type=float, nargs="+", default=[125_000, 250_000, 500_000])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--run", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_once(arguments.folder, arguments.run)
        return
    columns = ("encoder, tokens/s", "tokens", "chunking, tokens/s", "first shard after, s", "early", "busy")
    print(f"| {' | '.join(columns)} |")
    print(f"| ---: |{' ---: |' * 5}")
    with tempfile.TemporaryDirectory(prefix="isospace-overlap-") as work:
        model = build_stub(Path(work) / "stub")
        recipe = write_corpus(arguments.folder, "prose", Path(work) / "source", int(arguments.megabytes * 1e6))
        for rate in arguments.rates:
            with tempfile.TemporaryDirectory(dir=work) as store:
                chosen = settings(model, Path(work) / "source", Path(store) / "s", recipe)
                chosen["runtime"] |= {"threads": arguments.threads, "report_chunks": 0}
                path = Path(store) / "settings.json"
                path.write_text(json.dumps(chosen))
                command = [sys.executable, "-m", "benchmarks.overlap", str(path), "--run", str(rate)]
                ran = subprocess.run(command, env=os.environ, stdout=subprocess.PIPE, check=True)
                found = json.loads(ran.stdout.splitlines()[-1])
            row = [f"{rate:,.0f}", f"{found['tokens']:,}", f"{found['chunking']:,.0f}", f"{found['first']:.1f}"]
            row += [f"{found['before']} of {found['shards']} shards", f"{found['busy']:.0%}"]
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
