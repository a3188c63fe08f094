"""The client of served encoders against OpenAI's own client at fixed numbers of requests at a time.

    python -m benchmarks.served [--rounds 3] [--scenarios NAME ...]
    python -m benchmarks.served --url URL --model NAME [--texts FILE] [--batch 32]

The first form starts a server on loopback for each scenario, in a process of its own, that answers after a simulated
time: with so many requests in progress at a time and the others waiting (`slots`), or slower as a whole beyond a number
(`best`). The second form measures a real server, such as `isospace serve`. In each round, every client embeds the same
texts once, in turn. OpenAI's client is AsyncOpenAI with base64, its default, and a semaphore.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from isospace.encoding.served.client import ServedClient
from isospace.encoding.served.endpoint import Endpoint
from isospace.encoding.served.model import ServedModel

DIMENSION = 384
KEY = "a-key-for-the-benchmark"


@dataclass(frozen=True)
class Scenario:
    """A server: seconds per request, requests in progress at a time, the number that it serves best, and limits."""

    seconds: float
    slots: int = 1000
    best: int = 1000
    limited: float = 0.0
    requests: int = 1000
    levels: tuple[int, ...] = (4, 8, 16, 32, 64)


SCENARIOS = {
    "8 at a time, 0.1 s": Scenario(0.1, slots=8, requests=600),
    "any number, 0.8 s": Scenario(0.8, requests=2000, levels=(32, 64)),
    "slower beyond 12, 0.2 s": Scenario(0.2, best=12, requests=1500, levels=(8, 12, 16, 64)),
    "slower beyond 12, 0.2 s, more requests": Scenario(0.2, best=12, requests=5000, levels=(10, 12, 14)),
    "8 at a time, 0.1 s, 30 % answered 429": Scenario(0.1, slots=8, limited=0.3, requests=600, levels=(8, 16, 64)),
    "any number, 0.8 s, 30 % answered 429": Scenario(0.8, limited=0.3, requests=2000, levels=(64,)),
}


def texts_of(count: int) -> list[str]:
    return [f"This is the text number {number}, and it says nothing else." for number in range(count)]


class Server:
    """Answers `/v1/embeddings` as a scenario says; it parses as little as possible."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.slots = asyncio.Semaphore(scenario.slots)
        self.in_progress = 0
        self.rng = random.Random(5)
        vectors = np.random.default_rng(5).standard_normal((64, DIMENSION)).astype("<f4")
        self.vectors = [base64.b64encode(vector.tobytes()).decode() for vector in vectors]

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                status, answer = await self.answer(body)
                start = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n\r\n"
                writer.write(start.encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def answer(self, body: bytes) -> tuple[str, bytes]:
        if self.rng.random() < self.scenario.limited:
            error = {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}
            return "429 Too Many Requests", json.dumps({"error": error}).encode()
        texts = json.loads(body)["input"]
        self.in_progress += 1
        try:
            async with self.slots:
                best, now = self.scenario.best, self.in_progress
                slower = 1.0 if now <= best else now / (best * (best / now) ** 0.7)
                await asyncio.sleep(self.scenario.seconds * slower * self.rng.uniform(0.9, 1.1))
        finally:
            self.in_progress -= 1
        data = [
            {"object": "embedding", "index": row, "embedding": self.vectors[(row + len(text)) % len(self.vectors)]}
            for row, text in enumerate(texts)
        ]
        usage = {"prompt_tokens": 12 * len(texts), "total_tokens": 12 * len(texts)}
        return "200 OK", json.dumps({"object": "list", "data": data, "model": "simulated", "usage": usage}).encode()


async def serve(scenario: Scenario) -> None:
    server = await asyncio.start_server(Server(scenario).connected, "127.0.0.1", 0, backlog=256, limit=1 << 22)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def with_isospace(url: str, model: str, texts: list[str], batch: int) -> tuple[float, dict[str, Any]]:
    """Return the seconds, and what the client counted."""
    endpoint = Endpoint(url, deadline_seconds=3600)
    with ServedClient(ServedModel("openai", model, max_batch_texts=batch), endpoint) as client:
        started = time.perf_counter()
        answer = client.embed(texts, "query")
        seconds = time.perf_counter() - started
        assert not answer.refused
        counted = {"requests": answer.requests, "limited": answer.limited, "concurrency": client.concurrency}
        return seconds, counted


def with_openai(url: str, model: str, texts: list[str], batch: int, level: int) -> float:
    """Return the seconds of OpenAI's client with a fixed number of requests at a time."""
    from openai import AsyncOpenAI

    async def embed() -> float:
        # 60 s a request, and more retries than its 2, with which it would give up.
        async with AsyncOpenAI(base_url=url, api_key=KEY, max_retries=30, timeout=60) as client:
            turns = asyncio.Semaphore(level)

            async def one(first: int) -> None:
                async with turns:
                    answer = await client.embeddings.create(model=model, input=texts[first : first + batch])
                assert len(answer.data) == len(texts[first : first + batch])

            started = time.perf_counter()
            await asyncio.gather(*(one(first) for first in range(0, len(texts), batch)))
            return time.perf_counter() - started

    return asyncio.run(embed())


def compare(
    url: str, model: str, requests: int, batch: int, levels: tuple[int, ...], rounds: int, texts: list[str]
) -> None:
    """Print the rates of all clients, in texts per second: medians over the rounds."""
    rates: dict[str, list[float]] = {}
    for number in range(rounds):
        seconds, counted = with_isospace(url, model, texts[: requests * batch], batch)
        rates.setdefault("isospace", []).append(requests * batch / seconds)
        print(f"  round {number + 1}: isospace {seconds:.1f} s, {counted}", flush=True)
        for level in levels:
            # Few requests at a time take long, and need fewer for a rate.
            share = min(requests, max(20, 40 * level))
            seconds = with_openai(url, model, texts[: share * batch], batch, level)
            rates.setdefault(f"openai {level}", []).append(share * batch / seconds)
    medians = {name: statistics.median(found) for name, found in rates.items()}
    best = max((name for name in medians if name != "isospace"), key=lambda name: medians[name])
    for name, rate in medians.items():
        spread = f"{min(rates[name]):,.0f} to {max(rates[name]):,.0f}"
        print(f"  {name:12} {rate:9,.0f} texts/s ({spread})", flush=True)
    print(f"  isospace / {best}: {medians['isospace'] / medians[best]:.3f}", flush=True)


def simulate(names: list[str], rounds: int, batch: int) -> None:
    for name in names or SCENARIOS:
        scenario = SCENARIOS[name]
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.served", "--serve", name], stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
            print(f"{name}: {scenario.requests} requests of {batch} texts", flush=True)
            texts = texts_of(scenario.requests * batch)
            compare(url, "simulated", scenario.requests, batch, scenario.levels, rounds, texts)
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--scenarios", nargs="*", default=[])
    parser.add_argument("--serve")
    parser.add_argument("--url")
    parser.add_argument("--model", default="simulated")
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--levels", type=int, nargs="*", default=[1, 2, 4, 8, 16, 32, 64])
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(SCENARIOS[options.serve]))
    elif options.url:
        texts = (
            options.texts.read_text("utf-8").splitlines()
            if options.texts
            else texts_of(options.requests * options.batch)
        )
        requests = min(options.requests, len(texts) // options.batch)
        compare(options.url, options.model, requests, options.batch, tuple(options.levels), options.rounds, texts)
    else:
        simulate(options.scenarios, options.rounds, options.batch)


if __name__ == "__main__":
    main()
