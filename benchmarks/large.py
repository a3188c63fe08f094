"""Open, follow, and search a collection of many chunks, whose vectors are read from a file instead of encoded.

    python -m benchmarks.large FOLDER [--cells 8192] [--work FOLDER]

FOLDER has vectors.npy and queries.npy, such as from `python -m benchmarks.clustered`. A document has 50 lines, each of
which is a chunk; its vector is a row of the file. Everything but encoding is the real pipeline, with int8 and 1-bit
codes in cells, and without words. Then each of these is measured in a process of its own: opening the first snapshot
on a machine that has nothing, opening it again, and following the alias to a snapshot in which one document in a
hundred has five other lines.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from benchmarks.scale import LINES, StubEncoder, stub_chunks, write_source
from isospace.collection.alias import promote
from isospace.collection.origins import origin_metadata, origin_of
from isospace.collection.snapshot import Manifest
from isospace.encoding.embedder import load_space
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.registry.record import write_encoder_record
from isospace.pipeline.chunk import ChunkPart
from isospace.pipeline.commit import commit_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import encode_shard
from isospace.pipeline.fit.fit_space import fit_space
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import scan_source
from isospace.pipeline.segment import Segment, segment_table
from isospace.search.approximate.learn import learn_recall
from isospace.search.approximate.record import carry_recall, write_recall
from isospace.search.open_index import open_index
from isospace.storage.parquet import read_parquet, write_parquet
from isospace.storage.store import open_store
from isospace.transform.space import Space
from isospace.transform.transform import apply_transform

COLLECTION, PART_DOCUMENTS, SAMPLED_PER_CELL, QUERIES = "large", 1_250, 40, 600

OPEN = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from isospace.search.open_index import open_index
store, queries, follow = sys.argv[1:4]
def anonymous():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(l.split()[1]) for l in lines if l.startswith("Anonymous")) / 1024
def search(index, **options):
    times = []
    for query in np.load(queries)[-200:]:
        begun = time.perf_counter()
        index.search_vectors(query[None], 10, **options)
        times.append(1000 * (time.perf_counter() - begun))
    return [round(float(v), 2) for v in np.percentile(times, [50, 99])]
imported = anonymous()
begun = time.perf_counter()
index = open_index(store, "large", "current" if follow == "no" else "1", encode=False, representation="int8")
figures = {"open s": round(time.perf_counter() - begun, 2), "chunks": len(index.view.copy)}
if follow != "no":
    index.close()
    index = open_index(store, "large", "current", encode=False, representation="int8")
    before = index.manifest.sequence
    Path(follow).touch()
    while not Path(follow + ".moved").exists():
        time.sleep(0.05)
    begun = time.perf_counter()
    index.refresh()
    figures |= {"follow s": round(time.perf_counter() - begun, 2), "from": before, "to": index.manifest.sequence}
for recall in (0.95, 0.99):
    figures[f"p50 and p99 ms at {recall}"] = search(index, mode="approximate", recall=recall)
begun = time.perf_counter()
index.search_vectors(np.load(queries)[:1], 10, mode="quantized", rescore=4, representation="binary")
figures["one search of all 1-bit codes, ms"] = round(1000 * (time.perf_counter() - begun))
figures["anonymous MB"] = round(anonymous() - imported)
figures["anonymous MB with imports"] = round(anonymous())
print(json.dumps(figures))
"""


class FileEncoder(StubEncoder):
    """An encoder whose vectors are rows of a file: the row that a line's document and place say."""

    def __init__(self, vectors: npt.NDArray[Any]) -> None:
        super().__init__()
        self.vectors = vectors
        self.record = self.record.model_copy(update={"dimension": vectors.shape[1]})

    def encode(self, texts: Sequence[str], role: str) -> npt.NDArray[np.float32]:
        """Return (n, k) float32 vectors of unit length; those of other texts are rows drawn by their content."""
        rows = [self._row(text) for text in texts]
        taken = self.vectors[rows].astype(np.float32)
        unit: npt.NDArray[np.float32] = taken / np.linalg.norm(taken, axis=1, keepdims=True)
        return unit

    def _row(self, text: str) -> int:
        number, _, rest = text.partition(" ")
        is_edited = rest.startswith("edited ")
        line = rest.removeprefix("edited ").split(" ")
        try:
            row = int(number, 16) * LINES + int(line[1])
        except (ValueError, IndexError):
            row = sum(text.encode())
        # An edited line has the vector of another one, at the other end of the file.
        return (len(self.vectors) - 1 - row if is_edited else row) % len(self.vectors)


def write_segments(run: Run, space: Space, parts: Sequence[ChunkPart], encoder: FileEncoder) -> Iterator[Segment]:
    """Write segments as the pipeline does, with vectors of the file instead of stored raw vectors."""
    origin = origin_of({"engine": "file"})
    for part in parts:
        chunks = read_parquet(run.work_store, part.chunks.path, columns=["chunk_id", "doc_id", "text"])
        vectors = encoder.encode(chunks["text"].to_pylist(), "document")
        table = segment_table(chunks, space, apply_transform(space.transform, vectors, "document").vectors)
        metadata = {
            "space_id": space.space_id,
            "encoder_id": run.encoder_id,
            "chunking_id": run.chunking_id,
            "part": part.name,
            "role": "document",
            "clipped": "0",
            "saturated": "0",
            **origin_metadata([origin]),
        }
        path = run.paths.segment(space.space_id, part.name)
        file = write_parquet(run.store, path, table, metadata=metadata, dictionary=["doc_id"])
        yield Segment(part.name, file, 0, 0, (origin,))


def commit_file(config: PipelineConfig, vectors: npt.NDArray[Any], scratch: Path, cells: int) -> Manifest:
    """Run every stage but encoding; the space is fitted on the first chunks, which are encoded."""
    stub = FileEncoder(vectors)
    encoder, store = cast("SentenceEncoder", stub), open_store(config.runtime.store)
    write_encoder_record(store, stub.record)
    laps = [("start", time.perf_counter())]
    run = start_run(config, stub.record, scratch)
    scan = scan_source(run)
    laps.append(("scan", time.perf_counter()))
    parts = [stub_chunks(run, documents) for documents in scan.parts]
    laps.append(("chunks", time.perf_counter()))
    space_id = run.space_id
    if space_id is None:
        some = parts[: 1 + SAMPLED_PER_CELL * cells // (PART_DOCUMENTS * LINES)]
        for shard in plan_shards(run, some, limit=stub.record.longest).shards:
            encode_shard(run, shard, encoder)
        space_id = fit_space(run, [part.chunks.path for part in some], encoder)
        laps.append(("fit", time.perf_counter()))
    space = load_space(store, space_id)
    segments = list(write_segments(run, space, parts, stub))
    laps.append(("segments", time.perf_counter()))
    manifest = commit_snapshot(run, scan, space_id, parts, segments).manifest
    laps.append(("commit", time.perf_counter()))
    print(", ".join(f"{b[0]} {b[1] - a[1]:.1f} s" for a, b in itertools.pairwise(laps)), flush=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return manifest


def learn(store: str, manifest: Manifest, queries: npt.NDArray[np.float32]) -> None:
    """Learn rules as a run does, from these queries."""
    begun = time.perf_counter()
    with open_index(store, COLLECTION, str(manifest.sequence), encode=False, representation="int8") as index:
        opened, view = time.perf_counter(), index.view
        if view.approximate is None:
            raise SystemExit("the space has no cells")
        learned = learn_recall(
            view.approximate,
            view.copy.codes["int8"],
            view.finest,
            queries,
            source="judged queries",
            space_id=manifest.space_id,
            snapshot=manifest.sequence,
        )
    write_recall(open_store(store), manifest, learned)
    print(f"writing the local copy {opened - begun:.1f} s, learning {time.perf_counter() - opened:.1f} s")
    for one in learned.measured:
        if one.neighbors == 10:
            print(f"  declared {one.declared}: {one.recall:.4f} ({one.low:.4f} to {one.high:.4f})", flush=True)


def cached_mb(cache: Path) -> float:
    """Return the size of the local copies."""
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 2**20


def opened(name: str, work: Path, folder: Path, cache: Path, follow: str = "no", meanwhile: Any = None) -> None:
    """Open in a process of its own, and print its figures."""
    environment = {**os.environ, "ISOSPACE_CACHE": str(cache)}
    before = cached_mb(cache)
    command = [sys.executable, "-c", OPEN, str(work / "store"), str(folder / "queries.npy"), follow]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        if meanwhile is not None:
            meanwhile()
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} failed")
    print(name, {**json.loads(output), "written MB": round(cached_mb(cache) - before)}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=8192)
    parser.add_argument("--work", type=Path, required=True)
    arguments = parser.parse_args()
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    os.environ["ISOSPACE_CACHE"] = str(work / "cache")
    vectors = np.load(arguments.folder / "vectors.npy", mmap_mode="c")
    queries = np.load(arguments.folder / "queries.npy")
    sample = {"size": SAMPLED_PER_CELL * arguments.cells, "min_ratio": 0.0}
    transform = {"representations": ["int8", "binary"], "cells": arguments.cells, "sample": sample}
    config = PipelineConfig.model_validate(
        {
            "recipe": {
                "encoder": {"model": "stub", "preset": "none"},
                "transform": transform,
                "lexical": {"kind": "none"},
            },
            "runtime": {
                "store": str(work / "store"),
                "collection": COLLECTION,
                "source": str(work / "source.parquet"),
                "part_documents": PART_DOCUMENTS,
                "part_characters": 100_000_000,
                "serving_table_rows": 0,
            },
        }
    )
    store = open_store(str(work / "store"))
    write_source(work / "source.parquet", len(vectors) // LINES, edited=False)
    first = commit_file(config, vectors, work / "scratch", arguments.cells)
    promote(store, COLLECTION, "current", first, reason="benchmark")
    learn(str(work / "store"), first, queries[np.random.default_rng(0).permutation(len(queries))][:QUERIES])
    fresh, ready, moved = work / "fresh", work / "ready", work / "ready.moved"
    opened("nothing on this machine", work, arguments.folder, fresh)
    opened("again", work, arguments.folder, fresh)

    def change() -> None:
        while not ready.exists():
            time.sleep(0.05)
        write_source(work / "source.parquet", len(vectors) // LINES, edited=True)
        second = commit_file(config, vectors, work / "scratch", arguments.cells)
        begun = time.perf_counter()
        carry_recall(store, first, second)
        promote(store, COLLECTION, "current", second, reason="benchmark")
        print(f"recall and alias {time.perf_counter() - begun:.1f} s")
        moved.touch()

    opened("following the alias", work, arguments.folder, fresh, str(ready), change)
    opened("again", work, arguments.folder, fresh)


if __name__ == "__main__":
    main()
