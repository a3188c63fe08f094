"""Speed of the transform, of moments, and of product quantization, each against a peer.

    python -m benchmarks.transform [--rows 1000000] [--rounds 3]

The peer of the transform is the usual float32 chain in NumPy: center, multiply, normalize, scale, round, clip. That of
product quantization is one scikit-learn KMeans per sub-vector.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from isospace.encoding.backends.base import processor
from isospace.transform.affine import apply_affine
from isospace.transform.fit import estimate, fit, fit_affine
from isospace.transform.moments import stream_moments
from isospace.transform.quantizer_set import fit_quantizers, quantize
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.representations import Int8Spec, PqSpec
from isospace.transform.spec import FitSpec

DIMENSION = 384
# Rows of a segment; the flow transforms two segments at once.
PART = 4096
PQ_ROWS, PQ_SUBVECTORS = 70_000, 48


def vectors_of(rows: int, seed: int = 0) -> np.ndarray:
    """Make unit vectors with a falling spectrum and a nonzero mean, as models produce them."""
    rng = np.random.default_rng(seed)
    out = np.empty((rows, DIMENSION), np.float32)
    scale = np.geomspace(1, 0.1, DIMENSION).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((DIMENSION, DIMENSION)))[0].astype(np.float32)
    for start in range(0, rows, 50_000):
        block = rng.standard_normal((min(50_000, rows - start), DIMENSION), dtype=np.float32) * scale @ turn + 0.05
        out[start : start + len(block)] = block / np.linalg.norm(block, axis=1, keepdims=True)
    return out


def interleaved(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each contestant."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - began)
    return {name: statistics.median(found) for name, found in seconds.items()}


def transform(raw: np.ndarray, rounds: int) -> None:
    import torch

    sample = raw[:50_000]
    found = fit(estimate(sample), FitSpec(kind="zca", exponent=0.15), min_ratio=10)
    affine = fit_affine(found, sample)
    vectors, _ = apply_affine(affine, sample, role="document", normalize=True)
    quantizers = fit_quantizers(vectors, (Int8Spec(),))
    scale = quantizers.by_name["int8"].arrays()["scale"]
    mean, matrix = sample.mean(axis=0), found.matrix.astype(np.float32)

    def naive() -> np.ndarray:
        moved = (raw - mean) @ matrix.T
        moved = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        return np.clip(np.rint(moved / scale), -127, 127).astype(np.int8)

    def exact(workers: int = 1) -> np.ndarray:
        codes = np.empty(raw.shape, np.int8)

        def part(start: int) -> None:
            block, _ = apply_affine(affine, raw[start : start + PART], role="document", normalize=True)
            codes[start : start + len(block)] = quantize(quantizers, block, "int8")

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(part, range(0, len(raw), PART)))
        return codes

    def with_torch() -> np.ndarray:
        codes = np.empty(raw.shape, np.int8)
        for start in range(0, len(raw), PART):
            part = torch.from_numpy(raw[start : start + PART])
            block, _ = apply_affine(affine, part, role="document", normalize=True, xp=torch)
            codes[start : start + len(block)] = quantize(quantizers, block.numpy(), "int8")
        return codes

    contestants: dict[str, Callable[[], object]] = {
        "naive float32": naive,
        "exact, part by part": exact,
        "exact, two parts at once": lambda: exact(2),
        "exact, torch": with_torch,
    }
    seconds = interleaved(contestants, rounds)
    same = bool((exact() == with_torch()).all())
    flips = float((exact()[:100_000] != naive()[:100_000]).mean())
    print(
        f"\ntransform, {len(raw):,} x {DIMENSION} to int8; limbs {affine.limbs}\n\n| | seconds | speed |\n| --- | "
        "---: | ---: |"
    )
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} | {seconds['naive float32'] / value:.2f} |")
    print(f"\nNumPy and torch: {'the same' if same else 'DIFFERENT'} codes")
    print(f"share of codes that differ from the naive chain: {flips:.1e}")


def moments(raw: np.ndarray, rounds: int) -> None:
    def product() -> None:
        total = np.zeros((DIMENSION, DIMENSION))
        for start in range(0, len(raw), 8192):
            block = raw[start : start + 8192].astype(np.float64)
            total += block.T @ block

    whole = raw.astype(np.float64)
    contestants: dict[str, Callable[[], object]] = {
        "one float64 product": lambda: whole.T @ whole,
        "blocks of it, from float32": product,
        "moments": lambda: stream_moments(raw),
    }
    seconds = interleaved(contestants, rounds)
    print(f"\nmoments, {len(raw):,} x {DIMENSION}\n\n| | seconds | of one product |\n| --- | ---: | ---: |")
    for name, value in seconds.items():
        print(f"| {name} | {value:.2f} | {value / seconds['one float64 product']:.2f} |")


def product_quantization(raw: np.ndarray) -> None:
    from sklearn.cluster import KMeans

    part = raw[:PQ_ROWS]
    width = DIMENSION // PQ_SUBVECTORS

    def peer() -> np.ndarray:
        codes = np.empty((len(part), PQ_SUBVECTORS), np.uint8)
        error = 0.0
        for number in range(PQ_SUBVECTORS):
            block = part[:, number * width : (number + 1) * width]
            model = KMeans(n_clusters=256, n_init=1, random_state=0).fit(block)
            codes[:, number] = model.predict(block)
            error += float(((model.cluster_centers_[codes[:, number]] - block) ** 2).sum())
        return np.array(error / len(part))

    def ours() -> np.ndarray:
        quantizer = fit_quantizer(PqSpec(kind="pq", subvectors=PQ_SUBVECTORS), part)
        return np.array(((quantizer.decode(quantizer.encode(part)) - part) ** 2).sum(axis=1).mean())

    print(f"\nproduct quantization, {PQ_ROWS:,} x {DIMENSION}, {PQ_SUBVECTORS} sub-vectors, trained and encoded\n")
    print("| | seconds | squared error | speed |\n| --- | ---: | ---: | ---: |")
    base = None
    for name, run in (("scikit-learn KMeans", peer), ("isospace", ours)):
        began = time.perf_counter()
        error = float(run())
        seconds = time.perf_counter() - began
        base = base or seconds
        print(f"| {name} | {seconds:.1f} | {error:.4f} | {base / seconds:.1f} |", flush=True)
    quantizer = fit_quantizer(PqSpec(kind="pq", subvectors=PQ_SUBVECTORS), part)
    began = time.perf_counter()
    quantizer.encode(raw[:100_000])
    print(f"\nencoding: {100_000 / (time.perf_counter() - began):,.0f} rows/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{processor()}, NumPy {np.__version__}, Python {sys.version.split()[0]}")
    raw = vectors_of(arguments.rows)
    transform(raw, arguments.rounds)
    moments(raw, arguments.rounds)
    product_quantization(raw)


if __name__ == "__main__":
    main()
