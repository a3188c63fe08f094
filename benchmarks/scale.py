"""How each stage of the pipeline scales up to ten million chunks, with a stub encoder.

    python -m benchmarks.scale [--chunks 100000 300000 1000000 3000000 10000000] [--work FOLDER]

A document has 50 lines, each of which becomes a chunk; vectors have 16 dimensions and are derived from the SHA-256 of
the text. All else is the real pipeline, with one stage after the other in one process: a first run, a run after an edit
of 5 lines in every hundredth document, and a compaction that rewrites every part. A part has 8,000 chunks, as by
default with chunks of about a thousand characters; a chunk counts as 200 tokens. Each size is a separate process.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from isospace.encoding.embedder import load_space
from isospace.encoding.encoder import SentenceEncoder, token_counter
from isospace.encoding.registry.record import EncoderRecord, write_encoder_record
from isospace.encoding.tokenizer import Tokenizer
from isospace.ingest.chunking import TokenCounter
from isospace.operations.maintenance.compact import compact, plan_compaction
from isospace.operations.maintenance.compaction_settings import CompactionSettings
from isospace.pipeline.chunk import CHUNK_SCHEMA, ChunkPart, all_chunk_paths
from isospace.pipeline.commit import Commit, commit_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import EncodePlan, encode_shard
from isospace.pipeline.fit.fit_space import fit_space
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import scan_source
from isospace.pipeline.segment import plan_segments, write_segment
from isospace.storage import paths as layout
from isospace.storage.hashing import fingerprint
from isospace.storage.parquet import FileRef, read_parquet, write_parquet
from isospace.storage.store import Store, open_store
from isospace.transform.probes import Windows
from tasks.lanes import task_runs

SIZES = (100_000, 300_000, 1_000_000, 3_000_000, 10_000_000)
LINES, EDITED_LINES, EDITED_SHARE = 50, 5, 100
PART_DOCUMENTS, SHARD_TOKENS, CHUNK_TOKENS, MERGED, ENCODERS = 160, 131_072, 200, 3, 4
COLLECTION = "scale"
TAILS = [f"line {number} of a report on searching by meaning" for number in range(LINES)]
SOURCE_SCHEMA = pa.schema([("doc_id", pa.string()), ("text", pa.string())])
# Limits that the largest size must keep.
MOST_EXPONENT, MOST_PLAN_SECONDS = 1.05, 60.0
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(slots=True)
class Stage:
    """The measurements of one stage.

    Attributes
    ----------
    seconds, cpu
        Wall-clock time, and CPU time of all threads, which depends less on other load on the machine.
    peak, anonymous
        Largest resident memory during the stage, in bytes: in all, and without pages of files.
    written, files
        Bytes and files added to the store.
    """

    name: str
    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    anonymous: int = 0
    written: int = 0
    files: int = 0


@dataclass(slots=True)
class Meter:
    """Time stages, sample memory every 20 ms, and count the bytes and files added to a store."""

    store: Store
    stages: list[Stage] = field(default_factory=list)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        before = self._stored()
        stage, done = Stage(name), threading.Event()
        sampler = threading.Thread(target=_sample, args=(stage, done))
        sampler.start()
        started, spent = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            stage.seconds, stage.cpu = time.perf_counter() - started, time.process_time() - spent
            done.set()
            sampler.join()
        after = self._stored()
        stage.files, stage.written = after[0] - before[0], after[1] - before[1]
        self.stages.append(stage)
        print(
            f"  {name}: {stage.seconds:.1f} s, of processors {stage.cpu:.1f} s, {stage.peak / 2**20:,.0f} MB",
            file=sys.stderr,
            flush=True,
        )

    def _stored(self) -> tuple[int, int]:
        sizes = [stat.size for stat in self.store.walk("")]
        return len(sizes), sum(sizes)


def _sample(stage: Stage, done: threading.Event) -> None:
    while True:
        _, resident, shared, *_ = map(int, Path("/proc/self/statm").read_text().split())
        stage.peak = max(stage.peak, resident * _PAGE)
        stage.anonymous = max(stage.anonymous, (resident - shared) * _PAGE)
        if done.wait(0.02):
            return


class StubEncoder:
    """An encoder as far as the stages need it; vectors are derived from the SHA-256 of the text."""

    def __init__(self, dimension: int = 16) -> None:
        self.record = EncoderRecord(
            files={},
            dimension=dimension,
            max_tokens=256,
            dtype="float32",
            modules=("Stub",),
            normalizes=True,
            prompts={"document": "", "query": ""},
            prompt_tokens={"document": 0, "query": 0},
            pooling=("mean",),
        )
        self.lock = threading.Lock()
        self.known: dict[str, str] = {}
        self.min_cosine = 1.0
        words = FastTokenizer(WordLevel({"[UNK]": 0}, "[UNK]"))
        words.pre_tokenizer = Whitespace()
        self.tokenizer = Tokenizer(words.to_str().encode())
        engine = {"engine": "stub", "processor": "any", "precision": "float32", "device": "cpu"}
        self.backend = SimpleNamespace(halvings=0, is_batch_invariant=True, engine=lambda: engine)

    def counter(self) -> TokenCounter:
        """Return the counter that chunking needs."""
        return token_counter(self.tokenizer, self.record)

    def tokenize(self, texts: Sequence[str], role: str) -> list[list[int]]:
        """Return the bytes of each text as its tokens."""
        return [list(text.encode()) for text in texts]

    def inputs(self, texts: Sequence[str], role: str) -> list[list[npt.NDArray[np.int32]]]:
        """Return the first bytes of each text."""
        return [[np.array([ids[: self.record.max_tokens]], np.int32)] for ids in self.tokenize(texts, role)]

    def encode_windows(self, texts: Sequence[Windows], role: str) -> npt.NDArray[np.float32]:
        """Return the vectors of texts that are given as `inputs` returns them."""
        return self.encode([bytes(windows[0].tolist()).decode(errors="replace") for windows in texts], role)

    def encode(self, texts: Sequence[str], role: str) -> npt.NDArray[np.float32]:
        """Return (n, dimension) float32 vectors of unit length."""
        return self.vectors_of([hashlib.sha256(text.encode()).digest() for text in texts])

    def vectors_of(self, digests: Sequence[bytes]) -> npt.NDArray[np.float32]:
        """Return the vectors of texts, given their SHA-256."""
        values = np.frombuffer(b"".join(digests), np.uint8).reshape(len(digests), 32)[:, : self.record.dimension]
        centered = values.astype(np.float32) - 127.5
        unit: npt.NDArray[np.float32] = centered / np.linalg.norm(centered, axis=1, keepdims=True)
        return unit


def write_source(path: Path, documents: int, *, edited: bool) -> None:
    """Write a table of documents of LINES lines; every hundredth differs in its first lines if `edited`."""
    with pq.ParquetWriter(path, SOURCE_SCHEMA, compression="zstd") as writer:
        for start in range(0, documents, 2_000):
            numbers = range(start, min(start + 2_000, documents))
            texts = ["\n".join(_lines(n, edited=edited and n % EDITED_SHARE == 7)) for n in numbers]
            ids = [f"d{n:08d}" for n in numbers]
            writer.write_table(pa.table({"doc_id": ids, "text": texts}, schema=SOURCE_SCHEMA))


def _lines(number: int, *, edited: bool) -> Iterator[str]:
    for line, tail in enumerate(TAILS):
        yield f"{number:x} {'edited ' if edited and line < EDITED_LINES else ''}{tail}"


def stub_chunks(run: Run, documents: FileRef) -> ChunkPart:
    """Make a chunk of every line, and write the file that `write_chunks` would write."""
    ids: list[str] = []
    columns: dict[str, list[Any]] = {name: [] for name in ("chunk_id", "start", "end", "text", "chunk_hash")}
    read = read_parquet(run.work_store, documents.path, columns=["doc_id", "text"])
    for doc_id, text in zip(read["doc_id"].to_pylist(), read["text"].to_pylist(), strict=True):
        lines = text.split("\n")
        ends = (np.cumsum([len(line) + 1 for line in lines]) - 1).tolist()
        starts = [end - len(line) for end, line in zip(ends, lines, strict=True)]
        ids += [doc_id] * len(lines)
        columns["chunk_id"] += [f"{doc_id}:{start}-{end}" for start, end in zip(starts, ends, strict=True)]
        columns["start"] += starts
        columns["end"] += ends
        columns["text"] += lines
        columns["chunk_hash"] += [hashlib.sha256(line.encode()).digest() for line in lines]
    same = {"doc_id": ids, "uri": ids, "title": [""] * len(ids), "prefix": [""] * len(ids)}
    every = {**columns, **same, "n_tokens": [CHUNK_TOKENS] * len(ids)}
    table = pa.table([pa.array(every[f.name], f.type) for f in CHUNK_SCHEMA], schema=CHUNK_SCHEMA)
    table = table.replace_schema_metadata({"chunking_id": run.chunking_id})
    name = fingerprint([PurePosixPath(documents.path).stem, run.chunking_id])
    path = run.paths.chunks(name)
    dictionary = ["uri", "title", "doc_id", "prefix"]
    return ChunkPart(name, documents, write_parquet(run.work_store, path, table, dictionary=dictionary), 0, 0)


def embed(meter: Meter, config: PipelineConfig, scratch: Path, prefix: str) -> tuple[Commit, EncodePlan]:
    """Run every stage once; the names of the results begin with `prefix`."""
    stub = StubEncoder()
    encoder = cast("SentenceEncoder", stub)
    store = meter.store
    with meter.stage(f"{prefix}start"):
        write_encoder_record(store, stub.record)
        run = start_run(config, stub.record, scratch)
    with meter.stage(f"{prefix}scan"):
        scan = scan_source(run)
    with meter.stage(f"{prefix}chunk (stub)"):
        parts = [stub_chunks(run, documents) for documents in scan.parts]
    with meter.stage(f"{prefix}plan"):
        planned = plan_shards(run, parts, limit=stub.record.longest)
    # As in the tasks, one shard is written while the next one is encoded.
    with meter.stage(f"{prefix}encode (stub)"), ThreadPoolExecutor(ENCODERS) as pool:
        list(pool.map(lambda shard: encode_shard(run, shard, encoder), planned.shards))
    if run.space_id is None:
        with meter.stage(f"{prefix}fit"):
            space_id = fit_space(run, all_chunk_paths(run, scan.kept, parts), encoder)
    else:
        space_id = run.space_id
    space = load_space(store, space_id)
    with meter.stage(f"{prefix}plan segments"):
        jobs = plan_segments(run, parts)
    with meter.stage(f"{prefix}segments"):
        segments = [write_segment(run, space, job) for job in jobs]
    with meter.stage(f"{prefix}commit"):
        committed = commit_snapshot(run, scan, space_id, parts, segments)
    return committed, planned


def measure(chunks: int, folder: Path) -> dict[str, Any]:
    """Run one size; return its stages and figures."""
    source, store = folder / "source.parquet", open_store(folder / "store")
    config = PipelineConfig.model_validate(
        {
            "recipe": {
                "encoder": {"model": "stub", "preset": "none"},
                "transform": {"representations": ["float32", "int8"]},
            },
            "runtime": {
                "store": str(folder / "store"),
                "collection": COLLECTION,
                "source": str(source),
                "part_documents": PART_DOCUMENTS,
                "shard_tokens": SHARD_TOKENS,
            },
        }
    )
    meter = Meter(store)
    began = time.perf_counter()
    write_source(source, chunks // LINES, edited=False)
    generated = time.perf_counter() - began
    first, planned = embed(meter, config, folder / "scratch-1", "")
    shutil.rmtree(folder / "scratch-1", ignore_errors=True)
    write_source(source, chunks // LINES, edited=True)
    second, changed = embed(meter, config, folder / "scratch-2", "1 %: ")
    with meter.stage("compaction"):
        plan = plan_compaction(
            store, COLLECTION, CompactionSettings(MERGED * PART_DOCUMENTS, part_megabytes=1_024, max_deleted_share=0.0)
        )
        compacted = compact(store, plan)
    assert (first.manifest.chunks, second.manifest.chunks, compacted.chunks) == (chunks,) * 3
    assert changed.to_encode == chunks // LINES // EDITED_SHARE * EDITED_LINES
    numbers = [manifest.sequence for manifest in (first.manifest, second.manifest, compacted)]
    sizes = [store.size(layout.CollectionPaths(COLLECTION).snapshot(number)) for number in numbers]
    parts = len(first.manifest.parts)
    return {
        "chunks": chunks,
        "generated": generated,
        "stages": [{name: getattr(stage, name) for name in Stage.__slots__} for stage in meter.stages],
        "parts": [parts, len(second.manifest.parts), len(compacted.parts)],
        "shards": [len(planned.shards), len(changed.shards)],
        # Chunk, segment, and check are mapped over parts, encode over shards; there are some ten other tasks.
        "task runs": 3 * task_runs(parts) + task_runs(len(planned.shards)) + 10,
        "manifests": sizes,
    }


def exponent(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the least-squares slope of log(value) over log(size); NaN for a single size."""
    if len(sizes) < 2:
        return float("nan")
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-3)), 1)[0])


def report(runs: list[dict[str, Any]]) -> bool:
    """Print tables and checks; return whether all checks pass."""
    sizes = [run["chunks"] for run in runs]
    names = [stage["name"] for stage in runs[-1]["stages"]]
    by_name = {name: [next(s for s in run["stages"] if s["name"] == name) for run in runs] for name in names}
    growth = {name: exponent(sizes, [s["cpu"] for s in stages]) for name, stages in by_name.items()}
    _table(["seconds (of processors)", *(f"{size:,}" for size in sizes), "exponent", "of wall clock"])
    for name, stages in by_name.items():
        wall = exponent(sizes, [s["seconds"] for s in stages])
        _row([name, *(f"{s['seconds']:.1f} ({s['cpu']:.1f})" for s in stages), f"{growth[name]:.2f}", f"{wall:.2f}"])
    _table(["peak RSS, MB (anonymous)", *(f"{size:,}" for size in sizes)])
    for name, stages in by_name.items():
        _row([name, *(f"{s['peak'] / 2**20:.0f} ({s['anonymous'] / 2**20:.0f})" for s in stages)])
    _table(["written, MB (files)", *(f"{size:,}" for size in sizes)])
    for name, stages in by_name.items():
        if stages[-1]["files"]:
            _row([name, *(f"{s['written'] / 1e6:,.1f} ({s['files']:,})" for s in stages)])
    _table(["figure", *(f"{size:,}" for size in sizes)])
    for position, label in enumerate(("first run", "1 %", "compacted")):
        _row([f"parts, {label}", *(f"{run['parts'][position]:,}" for run in runs)])
        _row([f"manifest, {label}, bytes", *(f"{run['manifests'][position]:,}" for run in runs)])
    _row(["shards, first run", *(f"{run['shards'][0]:,}" for run in runs)])
    _row(["shards, 1 %", *(f"{run['shards'][1]:,}" for run in runs)])
    _row(["Prefect task runs, first run", *(f"{run['task runs']:,}" for run in runs)])
    _row(["writing the source, s", *(f"{run['generated']:.1f}" for run in runs)])
    return _checks(by_name, growth)


def _checks(by_name: dict[str, list[dict[str, Any]]], growth: dict[str, float]) -> bool:
    # Stages that take less than two seconds at the largest size are too short to fit an exponent.
    steep = {name: round(g, 2) for name, g in growth.items() if g > MOST_EXPONENT and by_name[name][-1]["cpu"] >= 2.0}
    planned = by_name["1 %: plan"][-1]["seconds"]
    peaks = [max(stages[position]["peak"] for stages in by_name.values()) for position in range(len(by_name["scan"]))]
    print(f"\nstages that grow faster than n^{MOST_EXPONENT}: {steep or 'none'}")
    print(f"plan for 1 % at the largest size: {planned:.1f} s, at most {MOST_PLAN_SECONDS:.0f}")
    print(f"peak RSS by size, MB: {', '.join(f'{peak / 2**20:.0f}' for peak in peaks)}")
    return not steep and planned < MOST_PLAN_SECONDS


def _table(header: list[str]) -> None:
    print()
    _row(header)
    _row(["---", *["---:"] * (len(header) - 1)])


def _row(cells: list[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--work", type=Path, help="folder for the stores, each removed after its size")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        (arguments.child / "figures.json").write_text(json.dumps(measure(arguments.chunks[0], arguments.child)))
        return
    runs = []
    for chunks in sorted(arguments.chunks):
        with tempfile.TemporaryDirectory(prefix="isospace-scale-", dir=arguments.work) as name:
            print(f"{chunks:,} chunks", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "benchmarks.scale", "--chunks", str(chunks), "--child", name]
            subprocess.run(command, check=True)
            runs.append(json.loads((Path(name) / "figures.json").read_text()))
    if not report(runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
