"""Shards and fronts as commands: equal answers, and a shard that is killed while searches are under way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers.documents import configuration, sentences, write_jsonl
from tests.helpers.inline import embed_inline

pytestmark = pytest.mark.integration
KEY = "key-of-the-front-0123456789"
QUERIES = list(sentences(12, seed=4, words=5).values())
ASKED: list[dict[str, Any]] = [
    {"mode": "exact"},
    {"mode": "hybrid"},
    {"mode": "lexical", "group_by": "document", "per_document": 2},
    {"mode": "quantized", "representation": "binary", "filter": "title like '%1%'"},
    {"mode": "exact", "diversity": 0.5, "neighbors": 1},
    {"mode": "exact", "offset": 10},
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> str:
    folder = tmp_path_factory.mktemp("shards")
    source = write_jsonl(folder / "d.jsonl", sentences(300))
    embed_inline(configuration(tiny_model, source, folder / "store", runtime={"part_documents": 20}))
    return str(folder / "store")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def command(
    store: str, cache: Path, *arguments: str, port: int | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run `isospace serve` until the block ends; yields its URL and the process."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "isospace.cli",
            "serve",
            store,
            "c",
            "--port",
            str(port or 0),
            "--watch",
            "1",
            *arguments,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={
            **os.environ,
            "PYTHONUNBUFFERED": "1",
            "ISOSPACE_CACHE": str(cache),
            "ISOSPACE_API_KEYS": KEY,
            "ISOSPACE_SHARD_KEY": KEY,
        },
    )
    try:
        assert process.stdout is not None
        url = next(line.split()[-1] for line in process.stdout if line.startswith("listening on"))
        yield url, process
    finally:
        process.kill()
        process.communicate()


def client_of(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=60, headers={"Authorization": f"Bearer {KEY}"}, trust_env=False)


@dataclass(frozen=True)
class World:
    """One process, two shards, and two fronts: one that fails without a shard, and one that answers in part."""

    whole: httpx.Client
    strict: httpx.Client
    partial: httpx.Client
    shards: list[str]
    second: subprocess.Popen[str]
    restart: Callable[[], object]


@pytest.fixture
def world(store: str, tmp_path: Path) -> Iterator[World]:
    ports = [free_port(), free_port()]
    with ExitStack() as stack:

        def shard(number: int) -> tuple[str, subprocess.Popen[str]]:
            arguments = ("--shard", f"{number}/2")
            return stack.enter_context(command(store, tmp_path / "shards", *arguments, port=ports[number - 1]))

        whole, _ = stack.enter_context(command(store, tmp_path / "whole"))
        (one, _), (two, second) = shard(1), shard(2)
        strict, _ = stack.enter_context(command(store, tmp_path / "none", "--shards", f"{one},{two}"))
        given = ("--shards", two, "--shards", one, "--allow-partial")
        partial, _ = stack.enter_context(command(store, tmp_path / "none", *given))
        # A front opens no parts.
        assert not (tmp_path / "none" / "snapshots").exists()
        clients = [stack.enter_context(client_of(url)) for url in (whole, strict, partial)]
        yield World(clients[0], clients[1], clients[2], [one, two], second, lambda: shard(2))


def test_commands_answer_alike_and_survive_a_killed_shard(world: World) -> None:
    require_equal_answers(world)
    seen = answers_while_a_shard_is_killed(world)
    require_right_answers(world, seen)
    assert world.shards[1] in world.strict.get("/healthz").text
    assert f'isospace_shard_up{{shard="2/2 at {world.shards[1]}"}} 0.0' in world.strict.get("/metrics").text
    # It comes back, and nobody restarts the fronts.
    world.restart()
    for front in (world.strict, world.partial):
        wait_until_whole(front)
    require_equal_answers(world)
    assert world.strict.get("/healthz").text == "ok"


def test_a_shard_answers_only_those_who_have_its_key(world: World) -> None:
    url = world.shards[0]
    assert httpx.post(f"{url}/shard/v1/ping", json={}).status_code == 401
    with client_of(url) as client:
        assert client.post("/shard/v1/ping", json={}).json()["of"] == 2
        assert client.post("/search", json={"query": "a"}).status_code == 404


def require_equal_answers(world: World) -> None:
    for options in ASKED:
        body = {"query": QUERIES, "k": 6, **options}
        expected = world.whole.post("/search", json=body).json()
        for front in (world.strict, world.partial):
            answer = front.post("/search", json=body).json()
            assert answer["results"] == expected["results"]
            assert answer["snapshot_id"] == expected["snapshot_id"]
            assert answer["partial"] is None


def answers_while_a_shard_is_killed(world: World) -> list[httpx.Response]:
    seen: list[httpx.Response] = []
    stop = threading.Event()

    def load(front: httpx.Client) -> None:
        while not stop.is_set():
            seen.append(front.post("/search", json={"query": QUERIES[0], "mode": "exact", "k": 6}))

    threads = [threading.Thread(target=load, args=(front,)) for front in (world.strict, world.partial)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    world.second.send_signal(signal.SIGKILL)
    world.second.wait(20)
    time.sleep(3)
    stop.set()
    for thread in threads:
        thread.join(60)
    return seen


def require_right_answers(world: World, seen: list[httpx.Response]) -> None:
    body = {"query": QUERIES[0], "mode": "exact", "k": 300}
    whole = world.whole.post("/search", json=body).json()["results"][0]["hits"]
    scores = {hit["chunk_id"]: hit["score"] for hit in whole}
    failed = [response.json()["error"] for response in seen if response.status_code != 200]
    assert {response.status_code for response in seen} == {200, 503}
    assert all(one["code"] == "shard_unavailable" and world.shards[1] in one["message"] for one in failed)
    answers = [response.json() for response in seen if response.status_code == 200]
    for answer in answers:
        assert all(scores[hit["chunk_id"]] == hit["score"] for hit in answer["results"][0]["hits"])
    complete = [answer["results"][0]["hits"] for answer in answers if answer["partial"] is None]
    partial = [answer["partial"] for answer in answers if answer["partial"] is not None]
    assert complete
    assert all([hit["chunk_id"] for hit in hits] == [hit["chunk_id"] for hit in whole[:6]] for hits in complete)
    assert partial
    assert all(one["missing_shards"] == ["2/2"] and 0.1 < one["searched"] < 0.9 for one in partial)


def wait_until_whole(front: httpx.Client) -> None:
    ends = time.monotonic() + 30
    while True:
        answer = front.post("/search", json={"query": QUERIES[0], "mode": "hybrid"})
        if answer.status_code == 200 and answer.json()["partial"] is None:
            return
        assert time.monotonic() < ends
        time.sleep(0.2)
