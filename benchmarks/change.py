"""What a change costs in collections of up to a hundred million chunks, with a stub encoder.

    python -m benchmarks.change [--chunks 100000 1000000 10000000] [--work FOLDER] [--dimension 8] [--processes 2]

A collection is written part by part with the pipeline's own writers, without its joins; the index of raw vectors is
made by the first command that needs it. Then two changes are embedded, each in a process of its own: 200 documents
(10,000 chunks), and one document in a thousand. Five of the fifty lines of a changed document differ. The scan is left
out, and its result given: it is measured by `benchmarks.scale`.

Per hundred million chunks, the store takes about 17 GB with 8 dimensions, and the index another 8 while it is made.
Files of the collection are not synced to disk when it is written, but those of the change are.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from benchmarks.scale import LINES, PART_DOCUMENTS, TAILS, Meter, StubEncoder, exponent, stub_chunks
from isospace.collection.deletions import DELETION_SCHEMA
from isospace.collection.raw_vectors import write_vectors
from isospace.collection.snapshot import latest_manifest
from isospace.collection.vector_files import vector_part_path
from isospace.collection.vector_index import blocks
from isospace.collection.vector_index.refresh import refresh_index
from isospace.encoding.bits import computed_by
from isospace.encoding.embedder import load_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.record import write_encoder_record
from isospace.ingest.document import Document, document_batch
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.commit import commit_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import encode_shard
from isospace.pipeline.fit.fit_space import fit_space
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment, SegmentJob, plan_segments, write_segment
from isospace.storage import read_ranges
from isospace.storage.local_store import LocalStore
from isospace.storage.parquet import FileRef, read_parquet, write_parquet
from isospace.storage.store import open_store
from isospace.transform.space import Space

SIZES = (100_000, 1_000_000, 10_000_000)
SHARD_CHUNKS, FIXED_DOCUMENTS, SHARE, EDITED_LINES, FITTED_PARTS = 655, 200, 1_000, 5, 20
STAGES = ("start", "chunk (stub)", "plan", "encode (stub)", "plan segments", "segments", "commit")
_COUNTED = ("read", "read_range", "stat", "walk", "write", "create", "create_file", "digest", "delete", "folders")


def config_of(folder: Path) -> PipelineConfig:
    """Return the configuration of every run; nothing reads the source."""
    recipe = {"encoder": {"model": "stub", "preset": "none"}, "transform": {"representations": ["int8"]}}
    runtime = {
        "store": str(folder / "store"),
        "collection": "change",
        "source": str(folder / "none.parquet"),
        "part_documents": PART_DOCUMENTS,
        "shard_tokens": SHARD_CHUNKS * 200,
    }
    return PipelineConfig.model_validate({"recipe": recipe, "runtime": runtime})


def begin(folder: Path, stub: StubEncoder) -> Run:
    """Start a run in a scratch folder of its own."""
    scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=folder))
    return start_run(config_of(folder), stub.record, scratch)


def write_documents(run: Run, numbers: Sequence[int], edit: str = "") -> FileRef:
    """Write the documents file of one part; of edited documents, the first lines differ."""
    texts = [
        "\n".join(f"{n:x} {edit if edit and line < EDITED_LINES else ''}{tail}" for line, tail in enumerate(TAILS))
        for n in numbers
    ]
    documents = [Document(f"d{n:09d}", f"d{n:09d}", "", text) for n, text in zip(numbers, texts, strict=True)]
    name = hashlib.sha256(f"{edit} {numbers[0]} {len(numbers)}".encode()).hexdigest()
    return write_parquet(run.store, run.paths.documents(name), pa.Table.from_batches([document_batch(documents)]))


def _write_part(run: Run, dimension: int, documents: int, number: int) -> tuple[ChunkPart, tuple[str, ...]]:
    """Write documents, chunks, and raw vectors of one part, in shards as a plan would cut them."""
    stub = StubEncoder(dimension)
    first = number * PART_DOCUMENTS
    part = stub_chunks(run, write_documents(run, range(first, min(first + PART_DOCUMENTS, documents))))
    hashes = sorted(read_parquet(run.store, part.chunks.path, columns=["chunk_hash"])["chunk_hash"].to_pylist())
    provenance, names = computed_by(cast("SentenceEncoder", stub)), []
    for start in range(0, len(hashes), SHARD_CHUNKS):
        keys = hashes[start : start + SHARD_CHUNKS]
        names.append(hashlib.sha256(b"".join(keys)).hexdigest())
        vectors = stub.vectors_of(keys)
        write_vectors(run.store, run.encoder_id, names[-1], keys, vectors, provenance=provenance, announced=True)
    return part, tuple(names)


def _write_segment(run: Run, space: Space, part: ChunkPart, names: Sequence[str]) -> Segment:
    paths = tuple(sorted(vector_part_path(run.encoder_id, name) for name in names))
    return write_segment(run, space, SegmentJob(part, paths))


def _without_sync() -> None:
    setattr(os, "fsync", lambda _: None)  # noqa: B010


def write_collection(folder: Path, chunks: int, dimension: int, processes: int) -> dict[str, float]:
    """Write and commit a collection; return the seconds of its steps."""
    stub, documents = StubEncoder(dimension), chunks // LINES
    write_encoder_record(open_store(folder / "store"), stub.record)
    run = begin(folder, stub)
    seconds: dict[str, float] = {}
    context = multiprocessing.get_context("fork")
    numbers = range(math.ceil(documents / PART_DOCUMENTS))
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_without_sync) as pool:
        with _timed(seconds, "parts"):
            work = partial(_write_part, run, dimension, documents)
            written = list(pool.map(work, numbers, chunksize=8))
        with _timed(seconds, "index"):
            refresh_index(run.store, run.encoder_id, run.scratch, writer=run.index_writer)
        parts = [part for part, _ in written]
        with _timed(seconds, "fit"):
            some = [part.chunks.path for part in parts[:FITTED_PARTS]]
            space_id = fit_space(run, some, cast("SentenceEncoder", stub))
        space = load_space(run.store, space_id)
        with _timed(seconds, "segments"):
            names = [some for _, some in written]
            segments = list(pool.map(partial(_write_segment, run, space), parts, names, chunksize=8))
    with _timed(seconds, "commit"):
        commit_snapshot(run, _scan((), None, documents, "first"), space_id, parts, segments)
    return seconds


@contextlib.contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
    print(f"  {name}: {seconds[name]:.1f} s", file=sys.stderr, flush=True)


def _scan(kept: Sequence[str], deletions: FileRef | None, documents: int, name: str) -> Scan:
    digest = hashlib.sha256(name.encode()).hexdigest()
    return Scan(0, 0, 0, 0, 0, 0, 0, (), tuple(kept), deletions, None, digest, documents)


@dataclass(slots=True)
class Requests:
    """Counts what is asked of a local store, and the ranges that are read."""

    count: Counter[str] = field(default_factory=Counter)

    def install(self) -> None:
        """Count from now on, in this process."""
        for name in _COUNTED:
            setattr(LocalStore, name, self._counting(name, getattr(LocalStore, name)))
        setattr(blocks, "read_ranges", self._ranges)  # noqa: B010

    def _counting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            self.count[name] += 1
            return method(*given, **named)

        return call

    def _ranges(self, store: Any, path: str, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        self.count["ranges"] += len(spans)
        return read_ranges.read_ranges(store, path, spans)


class QuietMeter(Meter):
    """A meter that does not count the files of the store, which are too many."""

    def _stored(self) -> tuple[int, int]:
        return 0, 0


def change(folder: Path, chunks: int, dimension: int, documents: int, label: str) -> dict[str, Any]:
    """Embed a change of some documents, spread over the collection, and commit it; return what it took.

    `label` is in the edited lines, so that two changes have different texts.
    """
    stub = StubEncoder(dimension)
    encoder = cast("SentenceEncoder", stub)
    requests, meter = Requests(), QuietMeter(open_store(folder / "store"))
    requests.install()
    counts: dict[str, dict[str, int]] = {}

    @contextlib.contextmanager
    def stage(name: str) -> Iterator[None]:
        requests.count.clear()
        with meter.stage(name):
            yield
        counts[name] = dict(requests.count)

    with stage("start"):
        run = begin(folder, stub)
    every = chunks // LINES
    changed = [(number * every // documents + len(label)) % every for number in range(documents)]
    changed.sort()
    groups = [changed[first : first + PART_DOCUMENTS] for first in range(0, documents, PART_DOCUMENTS)]
    with stage("chunk (stub)"):
        parts = [stub_chunks(run, write_documents(run, group, f"{label} ")) for group in groups]
    base = run.base
    assert base is not None
    deletions = _deletions(run, changed)
    with stage("plan"):
        plan = plan_shards(run, parts, limit=stub.record.longest, kept=[part.name for part in base.parts])
    with stage("encode (stub)"):
        for shard in plan.shards:
            encode_shard(run, shard, encoder)
    space = load_space(run.store, base.space_id)
    with stage("plan segments"):
        jobs = plan_segments(run, parts)
    with stage("segments"):
        segments = [write_segment(run, space, job) for job in jobs]
    scan = _scan([part.name for part in base.parts], deletions, every, label)
    with stage("commit"):
        committed = commit_snapshot(run, scan, base.space_id, parts, segments)
    assert committed.is_new
    assert plan.to_encode == documents * EDITED_LINES
    assert plan.reused == documents * (LINES - EDITED_LINES)
    return {
        "chunks": chunks,
        "changed": documents * LINES,
        "seconds": {stage.name: stage.seconds for stage in meter.stages},
        "cpu": {stage.name: stage.cpu for stage in meter.stages},
        "peaks": {stage.name: [stage.peak, stage.anonymous] for stage in meter.stages},
        "requests": counts,
        "files": sum(len(job.vectors) for job in jobs),
        "largest": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _deletions(run: Run, changed: Sequence[int]) -> FileRef:
    """Write what the scan would: the changed documents are deleted from their parts, beside what was deleted before."""
    base = latest_manifest(run.store, run.collection)
    assert base is not None
    before = [] if base.deletions is None else read_parquet(run.store, base.deletions.path).to_pylist()
    pairs = {(row["part"], row["doc_id"]) for row in before}
    pairs |= {(base.parts[number // PART_DOCUMENTS].name, f"d{number:09d}") for number in changed}
    rows = [{"part": part, "doc_id": doc_id} for part, doc_id in sorted(pairs)]
    name = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    return write_parquet(
        run.store, run.paths.deletions(name), pa.Table.from_pylist(rows, DELETION_SCHEMA), dictionary=["part"]
    )


def report(results: list[dict[str, Any]]) -> None:
    """Print a table for each of the two changes."""
    sizes = [result["chunks"] for result in results]
    for title, position in (("A change of 10,000 chunks", 0), ("A change of 0.1 %", 1)):
        runs = [result["changes"][position] for result in results]
        print(f"\n{title}\n")
        _row("seconds (of processors), store requests", [f"{size:,}" for size in sizes], "exponent, of processors")
        _row("---", ["---:"] * len(sizes), "---:")
        for name in STAGES:
            _row(name, [_cell(run, [name]) for run in runs], _exponents(sizes, runs, [name]))
        _row("all", [_cell(run, STAGES) for run in runs], _exponents(sizes, runs, STAGES))
        for what, key in (("chunks of changed documents", "changed"), ("files of raw vectors read", "files")):
            _row(what, [f"{run[key]:,}" for run in runs], "")
        _row("largest memory, MB", [f"{run['largest'] / 2**20:,.0f}" for run in runs], "")


def _cell(run: dict[str, Any], names: Sequence[str]) -> str:
    seconds, cpu = (sum(run[clock][name] for name in names) for clock in ("seconds", "cpu"))
    asked = sum(sum(run["requests"].get(name, {}).values()) for name in names)
    return f"{seconds:.2f} ({cpu:.2f}), {asked:,}"


def _exponents(sizes: Sequence[int], runs: list[dict[str, Any]], names: Sequence[str]) -> str:
    clocks = ([sum(run[clock][name] for name in names) for run in runs] for clock in ("seconds", "cpu"))
    return ", ".join(f"{exponent(sizes, values):.2f}" for values in clocks)


def _row(name: str, cells: Sequence[str], last: str) -> None:
    print(f"| {name} | {' | '.join(cells)} | {last} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--work", type=Path, help="folder for the stores, each removed after its size")
    parser.add_argument("--dimension", type=int, default=8)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        folder, documents, label = Path(given.child[0]), int(given.child[1]), given.child[2]
        chunks = given.chunks[0]
        found: Any = (
            change(folder, chunks, given.dimension, documents, label)
            if documents
            else write_collection(folder, chunks, given.dimension, given.processes)
        )
        (folder / "figures.json").write_text(json.dumps(found))
        return
    if given.work:
        given.work.mkdir(parents=True, exist_ok=True)
    results = []
    for chunks in sorted(given.chunks):
        with tempfile.TemporaryDirectory(prefix="isospace-change-", dir=given.work) as name:
            print(f"{chunks:,} chunks", file=sys.stderr, flush=True)
            share = max(chunks // LINES // SHARE, 1)
            written, *changes = (
                _in_child(Path(name), chunks, documents, label, given)
                for documents, label in ((0, "all"), (FIXED_DOCUMENTS, "fixed"), (share, "per mille"))
            )
            results.append({"chunks": chunks, "written": written, "changes": changes})
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    report(results)


def _in_child(folder: Path, chunks: int, documents: int, label: str, given: argparse.Namespace) -> Any:
    """Write the collection, or embed a change of some documents, in a process of its own."""
    options = ["--chunks", str(chunks), "--dimension", str(given.dimension), "--processes", str(given.processes)]
    command = [sys.executable, "-m", "benchmarks.change", *options, "--child", str(folder), str(documents), label]
    subprocess.run(command, check=True, env={**os.environ, "TMPDIR": str(folder)})
    return json.loads((folder / "figures.json").read_text())


if __name__ == "__main__":
    main()
