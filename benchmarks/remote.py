"""Search a million chunks in an object store, without a local copy: latency, requests, bytes, cache, memory.

    python -m benchmarks.remote FOLDER [--cells 4096] [--recalls 0.95 0.99] [--milliseconds 20]

FOLDER has vectors.npy and queries.npy, such as from `python -m benchmarks.clustered`. What is made of them is kept in
FOLDER/remote. A server on this machine speaks S3's API, and delays each request. A query finds ten chunks and reads
their texts and documents; it is not encoded. `cold` starts with an empty cache for each query, `new` with what earlier
queries left, and `warm` asks the same queries again.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa

from benchmarks.approximate_rows import anonymous_mb, blocks
from isospace.search.approximate.index import ApproximateIndex
from isospace.search.approximate.learn import learn_recall
from isospace.search.approximate.lists import open_lists, write_lists
from isospace.search.approximate.record import LearnedRecall
from isospace.search.local.choice import GroupPart, KnownGroup
from isospace.search.remote.block_cache import BlockCache
from isospace.search.remote.block_reader import BlockReader
from isospace.search.remote.build import GroupArrays
from isospace.search.remote.cells import RemoteCells
from isospace.search.remote.copy import RemoteCodes, RemoteCopy
from isospace.search.remote.group import open_group
from isospace.search.remote.publish import publish_arrays
from isospace.search.remote.record import UsedGroup
from isospace.search.vector.kernels import Codes
from isospace.storage.hashing import sha256
from isospace.storage.paths import CollectionPaths
from isospace.storage.store import open_store
from isospace.transform.cells_spec import CellsSpec
from isospace.transform.quantizers import fit_quantizer
from isospace.transform.quantizers.cells import CellQuantizer
from isospace.transform.quantizers.fit_cells import fit_cells
from isospace.transform.quantizers.int8 import Int8Quantizer
from isospace.transform.representations import Int8Spec

K, PER_DOCUMENT = 10, 4
PATHS = CollectionPaths("bench")
WORDS = np.array(
    [
        "the",
        "a",
        "of",
        "flow",
        "wing",
        "cell",
        "gene",
        "index",
        "text",
        "query",
        "store",
        "range",
        "block",
        "cache",
        "search",
        "model",
        "vector",
    ]
)


def prepare(folder: Path, cells: int) -> None:
    """Fit, quantize, learn, and publish; what exists is kept."""
    made = folder / "remote"
    if (made / "done").exists():
        return
    made.mkdir(parents=True, exist_ok=True)
    vectors, queries = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    sample = np.ascontiguousarray(vectors[:: max(1, len(vectors) // 131_072)][:131_072])
    begun = time.perf_counter()
    quantizer = fit_cells(CellsSpec(count=cells), sample, cells, spherical=True).quantizer
    homes = np.concatenate([quantizer.encode(block) for block in blocks(vectors)])
    scorer = fit_quantizer(Int8Spec(), sample)
    codes = np.lib.format.open_memmap(made / "int8.npy", mode="w+", dtype=np.int8, shape=vectors.shape)
    first = 0
    for block in blocks(vectors):
        codes[first : first + len(block)] = scorer.encode(block)
        first += len(block)
    write_lists(made / "cells.faiss", blocks(vectors), homes, quantizer)
    print(f"fitted and assigned in {time.perf_counter() - begun:.0f} s", flush=True)
    last = Codes("int8", scorer, codes)
    plain = ApproximateIndex([open_lists(made / "cells.faiss", homes)], quantizer, None, None)
    learned = learn_recall(plain, last, last, queries, source="set", space_id="", snapshot=1, kernels="fast")
    (made / "learned.json").write_text(learned.model_dump_json())
    np.savez(made / "space.npz", grid=quantizer.grid, exponent=quantizer.exponent, **scorer.arrays())
    begun = time.perf_counter()
    arrays = GroupArrays(codes, homes, None, *texts(len(codes)), None)
    part = GroupPart("part", ("files",), frozenset(), -(-len(codes) // PER_DOCUMENT), len(codes))
    (made / "objects").mkdir(exist_ok=True)
    group, ref = publish_arrays(
        open_store(made / "store"),
        PATHS,
        arrays,
        quantizer,
        KnownGroup("0" * 32, (part,), 0),
        kind="",
        representation="int8",
        folder=made / "objects",
    )
    (made / "used.json").write_text(UsedGroup(name=group.name, record=ref).model_dump_json())
    sizes = ", ".join(f"{name} {one.size / 1e6:.0f} MB" for name, one in group.objects.items())
    print(f"published in {time.perf_counter() - begun:.0f} s: {sizes}", flush=True)
    (made / "done").touch()


def texts(count: int) -> tuple[pa.Table, pa.Table]:
    """Return chunks of some 600 characters, and their documents."""
    chance = np.random.default_rng(0)
    pool = [" ".join(chance.choice(WORDS, 110)) for _ in range(2_000)]
    picks = chance.integers(0, len(pool), count)
    owners = np.arange(count) // PER_DOCUMENT
    names = [f"{sha256(str(row).encode())[:32]}:{row}" for row in range(count)]
    chunks = pa.table(
        {
            "chunk_id": pa.array(names, pa.large_string()),
            "document": pa.array(owners.astype(np.int32)),
            "start": pa.array(np.zeros(count, np.int64)),
            "end": pa.array(np.full(count, 600, np.int64)),
            "prefix": pa.array([""] * count, pa.large_string()),
            "text": pa.array([pool[pick] for pick in picks], pa.large_string()),
        }
    )
    ids = [str(number) for number in range(int(owners[-1]) + 1)]
    documents = {
        "doc_id": ids,
        "uri": [f"s3://corpus/{one}.html" for one in ids],
        "title": [f"Document {one}" for one in ids],
        "metadata": [json.dumps({"lang": "en", "year": int(one) % 100}) for one in ids],
    }
    return chunks, pa.table({name: pa.array(values, pa.large_string()) for name, values in documents.items()})


class Searcher:
    """The published group, opened with a cache."""

    def __init__(self, folder: Path, url: str, cache: Path) -> None:
        made = folder / "remote"
        arrays = np.load(made / "space.npz")
        quantizer = CellQuantizer(arrays["grid"], int(arrays["exponent"]))
        scorer = Int8Quantizer(arrays["scale"], arrays.get("low"))
        learned = LearnedRecall.model_validate_json((made / "learned.json").read_text())
        used = UsedGroup.model_validate_json((made / "used.json").read_text())
        self.reader = BlockReader(open_store(url), BlockCache(cache, 2_000))
        group = open_group(self.reader, used, "bench", (np.dtype(np.int8), len(scorer.scale)), squares=False)
        codes = Codes("int8", scorer, cast("Any", RemoteCodes([group], self.reader)))
        self.cells = RemoteCells([group], self.reader, codes, quantizer, learned)
        self.copy = RemoteCopy([group], self.reader, codes, ((0, len(group)),), None, {})

    def empty(self, cache: Path) -> None:
        """Go on with an empty cache."""
        self.reader.cache = BlockCache(cache, 2_000)
        self.copy._decoded.clear()

    def search(self, query: Any, recall: float) -> tuple[list[int], list[str], int]:
        found, visits = self.cells.nearest(query, K, metric="cosine", recall=recall, rows=None, kernels="auto")
        rows, scores = found[0]
        names = [one["chunk_id"] for one in self.copy.chunk_rows(rows, ["chunk_id"])]
        order = sorted(range(len(rows)), key=lambda place: (-scores[place], names[place]))[:K]
        best = [int(rows[place]) for place in order]
        shown = self.copy.chunk_rows(best, ["text"])
        self.copy.owner_rows(best)
        return best, [one["text"] for one in shown], visits[0].rows


def measure(searcher: Searcher, queries: Any, recall: float, cache: Path | None) -> dict[str, float]:
    laps, requests, fetched, visited = [], [], [], []
    for number in range(len(queries)):
        if cache is not None:
            searcher.empty(cache / str(number))
        before = searcher.reader.requests, searcher.reader.fetched
        begun = time.perf_counter()
        _, _, rows = searcher.search(queries[number : number + 1], recall)
        laps.append(time.perf_counter() - begun)
        requests.append(searcher.reader.requests - before[0])
        fetched.append(searcher.reader.fetched - before[1])
        visited.append(rows)
        if cache is not None:
            shutil.rmtree(cache / str(number), ignore_errors=True)
    return {
        "p50 ms": 1e3 * float(np.median(laps)),
        "p99 ms": 1e3 * float(np.quantile(laps, 0.99)),
        "requests": float(np.mean(requests)),
        "MB": float(np.mean(fetched)) / 1e6,
        "rows": float(np.mean(visited)),
    }


def size_of(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", type=int, default=4_096)
    parser.add_argument("--recalls", type=float, nargs="*", default=[0.95, 0.99])
    parser.add_argument("--milliseconds", type=float, default=20.0)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--port", type=int, default=9123)
    options = parser.parse_args()
    prepare(options.folder, options.cells)
    queries = np.load(options.folder / "queries.npy")[1::2][: options.queries]
    place = [str(options.folder / "remote" / "store"), "--port", str(options.port)]
    delay = ["--milliseconds", str(options.milliseconds)]
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.slow_store", *place, *delay])
    os.environ |= {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{options.port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }
    print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
    try:
        time.sleep(1.0)
        with tempfile.TemporaryDirectory() as caches:
            for recall in options.recalls:
                folder = Path(caches) / f"shared-{recall}"
                before, begun = anonymous_mb(), time.perf_counter()
                searcher = Searcher(options.folder, "s3://bench", folder)
                print(f"recall {recall}: opened in {1e3 * (time.perf_counter() - begun):.0f} ms", flush=True)
                searcher.search(queries[:1], recall)
                for kind, cache in (("cold", Path(caches) / "cold"), ("new", None), ("warm", None)):
                    if kind == "new":
                        searcher.empty(folder)
                    figures = measure(searcher, queries, recall, cache)
                    print(
                        f"  {kind}: " + ", ".join(f"{name} {value:.1f}" for name, value in figures.items()), flush=True
                    )
                print(f"  cache on disk {size_of(folder):.0f} MB, anonymous memory {anonymous_mb() - before:.0f} MB")
        print(f"load of the machine: {os.getloadavg()[0]:.1f}", flush=True)
    finally:
        server.terminate()


if __name__ == "__main__":
    main()
