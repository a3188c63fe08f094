"""The service under load, while its alias moves and its process is replaced.

    python -m benchmarks.load [--seconds 60] [--clients 64]

Two snapshots of the shipped corpus are embedded. The alias moves between them, and halfway a second process takes over
the port, while the first one shuts down. Every answer is compared with what the library finds in the snapshot that the
answer names.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil

from flows.embed_corpus import embed_corpus
from isospace.collection.alias import promote, resolve
from isospace.pipeline.config_files import load_config
from isospace.search.open_index import open_index
from isospace.storage.store import open_store

HEAD = b"POST /search HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n"
COLLECTION = "scifact-demo"
KEY = "a-key-for-the-load-test"
QUERIES = [
    "vitamin D and cancer", "statins lower cholesterol", "gene expression in stem cells", "mouse models of diabetes",
    "blood pressure in pregnancy", "antibiotic resistance", "DNA methylation", "risk of stroke", "T cell receptors",
    "smoking cessation", "malaria vaccine", "insulin secretion", "breast cancer screening", "protein folding", "sleep",
    "obesity",
]  # fmt: skip
MODES = ("exact", "lexical", "hybrid")
Expected = dict[tuple[int, str, str], list[str]]


def make_store(work: Path) -> tuple[str, list[int]]:
    """Return the store, and the numbers of two snapshots of the same documents with different chunks."""
    store, numbers = str(work / "store"), []
    for overlap in (32, 16):
        overrides = [f"runtime.store={store}", f"recipe.chunking.overlap_tokens={overlap}"]
        numbers.append(embed_corpus(load_config("configs/demo.yaml", overrides)).snapshot)
    return store, numbers


def expected_answers(store: str, collection: str, numbers: list[int]) -> Expected:
    found: Expected = {}
    for number in numbers:
        with open_index(store, collection, str(number)) as index:
            for mode in MODES:
                for query in QUERIES:
                    found[number, mode, query] = [h.chunk_id for h in index.search(query, 5, mode=mode)[0]]
    return found


def start(store: str, collection: str, port: int, keys: Path) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-c",
        "from isospace.cli.main import main; main()",
        "serve",
        store,
        collection,
        "--port",
        str(port),
        "--take-over",
        "--keys",
        str(keys),
        "--watch",
        "0.5",
        "--requests",
        "48",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert process.stdout is not None
    while "listening" not in (line := process.stdout.readline()):
        assert line, "the service did not start"
    return process


class Load:
    """The state that the clients share, and the results that they collect."""

    def __init__(self, port: int, expected: Expected) -> None:
        self.port, self.expected, self.url = port, expected, f"http://127.0.0.1:{port}"
        self.statuses: Counter[str] = Counter()
        self.milliseconds: list[float] = []
        self.wrong: list[str] = []
        self.lost: list[str] = []
        self.again = 0
        self.ended = False

    async def valid(self, seed: int) -> None:
        chance = random.Random(seed)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=40) as client:
            while not self.ended:
                if chance.random() < 0.2:
                    await self.embed(client, chance)
                else:
                    await self.search(client, chance.choice(MODES), chance.choice(QUERIES))

    async def search(self, client: httpx.AsyncClient, mode: str, query: str) -> None:
        answer = await self.ask(client, "/search", {"query": query, "k": 5, "mode": mode})
        if answer is None or answer.status_code != 200:
            return
        body = answer.json()
        found = [hit["chunk_id"] for hit in body["results"][0]["hits"]]
        if (
            found != self.expected[body["snapshot"], mode, query]
            or answer.headers["X-Isospace-Space"] != body["space_id"]
        ):
            self.wrong.append(f"snapshot {body['snapshot']}, {mode}, {query!r}")

    async def embed(self, client: httpx.AsyncClient, chance: random.Random) -> None:
        await self.ask(client, "/v1/embeddings", {"input": chance.sample(QUERIES, 3), "model": COLLECTION})

    async def ask(self, client: httpx.AsyncClient, path: str, body: dict) -> httpx.Response | None:
        """Ask until there is an answer; reconnect, as any client does, if the process has ended."""
        for _ in range(5):
            begun = time.perf_counter()
            try:
                answer = await client.post(path, json=body)
            except (httpx.RemoteProtocolError, httpx.ReadError, httpx.ConnectError, httpx.WriteError):
                self.again += 1
                await asyncio.sleep(0.05)
                continue
            self.statuses[f"valid {answer.status_code}"] += 1
            if answer.status_code == 200:
                self.milliseconds.append(1000 * (time.perf_counter() - begun))
            else:
                await asyncio.sleep(0.05)
            return answer
        self.lost.append(path)
        return None

    async def hostile(self, seed: int) -> None:
        chance = random.Random(seed)
        while not self.ended:
            kind = chance.choice(("large", "types", "slow", "space", "key", "junk", "leave", "filter", "many", "path"))
            with contextlib.suppress(httpx.TransportError, OSError):
                self.statuses[f"{kind} {await getattr(self, '_' + kind)()}"] += 1
            await asyncio.sleep(0.01)

    async def _post(self, path: str, *, key: str = KEY, headers: dict | None = None, **given: object) -> int:
        async with httpx.AsyncClient(base_url=self.url, timeout=40) as client:
            headers = {"Authorization": f"Bearer {key}", **(headers or {})}
            return (await client.post(path, headers=headers, **given)).status_code

    async def _large(self) -> int:
        return await self._post("/search", json={"query": "x" * 20_000_000})

    async def _types(self) -> int:
        return await self._post("/search", json={"query": {"a": 1}, "k": "many"})

    async def _space(self) -> int:
        return await self._post("/search", json={"query": "x"}, headers={"X-Isospace-Space": "0" * 64})

    async def _key(self) -> int:
        return await self._post("/search", key="wrong", json={"query": "x"})

    async def _junk(self) -> int:
        return await self._post("/v1/embeddings", content=os.urandom(2_000))

    async def _filter(self) -> int:
        return await self._post("/search", json={"query": "x", "filter": "(" * 500 + "__import__('os')"})

    async def _many(self) -> int:
        return await self._post("/v1/embeddings", json={"input": ["word " * 200] * 400, "model": COLLECTION})

    async def _path(self) -> int:
        return await self._post("/../../etc/passwd", json={})

    async def _slow(self) -> str:
        """Send half a body, and wait for what comes."""
        return await self._raw(HEAD % (KEY.encode(), 99) + b"{")

    async def _leave(self) -> str:
        """Ask, and go before the answer."""
        body = json.dumps({"query": QUERIES[0], "mode": "exact"}).encode()
        head = HEAD % (KEY.encode(), len(body))
        return await self._raw(head + body, wait=0.001)

    async def _raw(self, data: bytes, wait: float = 40.0) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            line = await asyncio.wait_for(reader.readline(), wait)
            return line.split()[1].decode() if line else "closed"
        except TimeoutError:
            return "left"
        finally:
            writer.close()


async def run(load: Load, given: argparse.Namespace, store: str, numbers: list[int], keys: Path) -> None:
    first = start(store, COLLECTION, load.port, keys)
    memory: list[tuple[float, int]] = []
    valid = given.clients * 3 // 4
    clients = [asyncio.create_task(load.valid(n)) for n in range(valid)]
    clients += [asyncio.create_task(load.hostile(n)) for n in range(given.clients - valid)]
    opened, process, begun, moves = open_store(store), first, time.monotonic(), 0
    second: subprocess.Popen[str] | None = None
    while (now := time.monotonic() - begun) < given.seconds:
        await asyncio.sleep(1.0)
        with contextlib.suppress(psutil.NoSuchProcess):
            memory.append((now, psutil.Process(process.pid).memory_info().rss >> 20))
        if now > 4 * (moves + 1):
            moves += 1
            manifest = resolve(opened, COLLECTION, str(numbers[moves % 2]))
            await asyncio.to_thread(promote, opened, COLLECTION, "production", manifest, reason="load test")
        if second is None and now > given.seconds / 2:
            process = second = await asyncio.to_thread(start, store, COLLECTION, load.port, keys)
            first.send_signal(signal.SIGTERM)
            print(f"replaced after {now:.0f} s; RSS of the first by second: {[m for _, m in memory][::5]} MB")
            memory.clear()
    load.ended = True
    await asyncio.gather(*clients)
    print(f"RSS of the second: {[m for _, m in memory][::5]} MB; alias moved {moves} times")
    print(f"first process ended with {await asyncio.to_thread(first.wait, 60)}")
    if second is not None:
        second.send_signal(signal.SIGTERM)
        print(f"second process ended with {await asyncio.to_thread(second.wait, 60)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="isospace-load-"))
    work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("ISOSPACE_CACHE", str(work / "cache"))
    store, numbers = make_store(work)
    keys = work / "keys"
    keys.write_text(KEY + "\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    load = Load(port, expected_answers(store, COLLECTION, numbers))
    asyncio.run(run(load, arguments, store, numbers, keys))
    for name, count in sorted(load.statuses.items()):
        print(f"{name}: {count}")
    times = np.percentile(load.milliseconds, [50, 99])
    print(
        f"answered {len(load.milliseconds)}; p50 {times[0]:.0f} ms, p99 {times[1]:.0f} ms; reconnections: {load.again}"
    )
    print(f"wrong answers: {load.wrong[:5]}; lost: {load.lost[:5]}; 5xx: {[n for n in load.statuses if ' 5' in n]}")


if __name__ == "__main__":
    main()
