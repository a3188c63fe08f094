"""Compare a collection in one process with the same collection in shards: answers, and seconds.

    python -m benchmarks.shards STORE COLLECTION QUERIES [--shards 2 3] [--seconds-of 200]

QUERIES is a Parquet file with a column `text`, or a folder of them. Queries are repeated, cut or with their words
reversed, until there are 1,000. Every service is a process of its own on loopback. Answers are compared as JSON: hits,
scores bit for bit, order, documents. Then each service is timed with single queries, one after the other.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq

COUNT, BATCH = 1_000, 25
OPTIONS: dict[str, dict[str, Any]] = {
    "exact": {"mode": "exact"},
    "exact, l2": {"mode": "exact", "metric": "l2"},
    "int8": {"mode": "quantized", "representation": "int8"},
    "binary": {"mode": "quantized", "representation": "binary"},
    "tiered": {"mode": "tiered"},
    "lexical": {"mode": "lexical"},
    "hybrid": {"mode": "hybrid"},
    "hybrid, weighted": {"mode": "hybrid", "fusion": "weighted"},
    "approximate .9": {"mode": "approximate", "recall": 0.9},
    "approximate .99": {"mode": "approximate", "recall": 0.99},
    "exact, filter": {"mode": "exact", "filter": 'set != "med" and year >= 1980'},
    "lexical, filter": {"mode": "lexical", "filter": "year < 1975"},
    "exact, documents": {"mode": "exact", "group_by": "document", "per_document": 2},
    "hybrid, documents": {"mode": "hybrid", "group_by": "document"},
    "exact, diverse": {"mode": "exact", "diversity": 0.4},
    "hybrid, page": {"mode": "hybrid", "offset": 20},
    "exact, page": {"mode": "exact", "offset": 100},
    "exact, neighbors": {"mode": "exact", "neighbors": 1},
    "exact, explain": {"mode": "exact", "explain": True},
    "min_score": {"mode": "exact", "min_score": 0.4},
}
TIMED = ("exact", "lexical", "hybrid", "approximate .9", "exact, documents", "exact, filter")


def main() -> None:
    given = _arguments()
    queries = _queries(given.queries)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        whole = stack.enter_context(_service(given, folder / "whole"))
        for count in given.shards:
            with ExitStack() as inner:
                shards = [
                    inner.enter_context(_service(given, folder / f"of-{count}", "--shard", f"{number}/{count}"))
                    for number in range(1, count + 1)
                ]
                front = inner.enter_context(_service(given, folder / "front", "--shards", ",".join(shards)))
                _compare(
                    whole, front, queries, count, {name: one for name, one in OPTIONS.items() if given.only in name}
                )
                _time({"one process": whole, f"{count} shards": front}, queries[: given.seconds_of])


def _compare(whole: str, front: str, queries: list[str], count: int, chosen: dict[str, dict[str, Any]]) -> None:
    for name, options in chosen.items():
        different = 0
        for start in range(0, len(queries), BATCH):
            body = {"query": queries[start : start + BATCH], "k": 10, **options}
            one, other = (_asked(url, body) for url in (whole, front))
            different += sum(mine != theirs for mine, theirs in zip(one["results"], other["results"], strict=True))
        print(f"{count} shards, {name}: {different} of {len(queries)} answers differ", flush=True)
    hits = [one["hits"] for one in _asked(whole, {"query": queries[:200], "k": 1, "mode": "exact"})["results"]]
    different = 0
    for found in hits:
        body = {"like": found[0]["chunk_id"], "k": 10}
        one, other = (_asked(url, body) for url in (whole, front))
        different += one["results"] != other["results"]
    print(f"{count} shards, like a chunk: {different} of {len(hits)} answers differ", flush=True)


def _time(services: dict[str, str], queries: list[str]) -> None:
    for name in TIMED:
        seconds: dict[str, list[float]] = {service: [] for service in services}
        for query in queries:
            for service, url in services.items():
                started = time.perf_counter()
                _asked(url, {"query": query, "k": 10, **OPTIONS[name]})
                seconds[service].append(time.perf_counter() - started)
        shown = "; ".join(
            f"{service} {1000 * np.median(each):.1f} ms (p95 {1000 * np.quantile(each, 0.95):.1f})"
            for service, each in seconds.items()
        )
        print(f"{name}: {shown}", flush=True)


_CLIENT = httpx.Client(timeout=120, trust_env=False)


def _asked(url: str, body: dict[str, Any]) -> Any:
    response = _CLIENT.post(f"{url}/search", json=body)
    if response.status_code != 200:
        raise SystemExit(f"{url}: {response.text[:500]}")
    return response.json()


@contextmanager
def _service(given: argparse.Namespace, cache: Path, *arguments: str) -> Iterator[str]:
    command = [sys.executable, "-m", "isospace.cli", "serve", given.store, given.collection, "--port", "0", *arguments]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "ISOSPACE_CACHE": str(cache)},
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            print(line.strip(), flush=True)
            if line.startswith("listening on"):
                yield line.split()[-1]
                return
        raise SystemExit(f"{' '.join(command)}: ended with {process.wait()}")
    finally:
        process.terminate()
        process.communicate()


def _queries(path: Path) -> list[str]:
    files = [path] if path.is_file() else sorted(path.glob("*/queries.parquet"))
    whole = [text for file in files for text in pq.read_table(file)["text"].to_pylist() if text.strip()]
    # Within the limit of most encoders: a service truncates no text.
    texts = [" ".join(text.split()[:60]) for text in whole]
    reversed_texts = [" ".join(reversed(text.split())) for text in texts]
    several = [text[: max(len(text) // 2, 5)] for text in texts if text[: max(len(text) // 2, 5)].strip()]
    return list(dict.fromkeys([*texts, *reversed_texts, *several]))[:COUNT]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("collection")
    parser.add_argument("queries", type=Path)
    parser.add_argument("--shards", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--only", default="", help="compare only the options whose name has this")
    parser.add_argument("--seconds-of", type=int, default=200, help="number of queries that are timed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
