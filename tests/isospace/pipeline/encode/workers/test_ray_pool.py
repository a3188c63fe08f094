"""Workers on a local Ray cluster, started and ended by the tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from isospace.errors import EncoderError, WorkerError
from isospace.pipeline.config import WorkersSpec
from isospace.pipeline.encode.workers.pool import open_pool
from isospace.pipeline.encode.workers.ray_pool import RayPool
from tests.conftest import Configure, sentences, write_jsonl
from tests.isospace.pipeline.encode.workers.test_pool import Prepared, encode_all, prepare, worker_pid

ray = pytest.importorskip("ray")
# Ray starts helpers that outlive it by a moment, and leaves files open in them.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", namespace="isospace")
    yield
    ray.shutdown()


@pytest.fixture
def prepared(configure: Configure, tmp_path: Path, cluster: None) -> Prepared:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(160))
    (tmp_path / "scratch").mkdir()
    return prepare(configure(source, runtime={"shard_tokens": 1200}), tmp_path / "scratch")


def test_two_actors_load_once_each_and_a_killed_one_costs_its_shard(
    prepared: Prepared, configure: Configure, tmp_path: Path
) -> None:
    spec = WorkersSpec(kind="ray", count=2, shard_seconds=60)
    pool = open_pool(spec, prepared.work, lambda: prepared.encoder)
    try:
        assert isinstance(pool, RayPool)
        first = pool.encode(prepared.run, prepared.plan.shards[0])
        assert psutil.Process().pid != worker_pid(first)
        os.kill(worker_pid(first), signal.SIGKILL)
        encoded, lost = encode_all(pool, prepared, attempts=6)
        assert all("a Ray worker was lost" in message for message in lost)
        assert sum(e.loaded for e in encoded) <= 1  # the one that replaced it; the others loaded before the first shard
        assert len({e.worker for e in encoded if e.chunks}) >= 1
    finally:
        pool.close()

    (tmp_path / "scratch2").mkdir()
    other = configure(tmp_path / "d.jsonl", runtime={"store": str(tmp_path / "other"), "shard_tokens": 5000})
    alone = prepare(other, tmp_path / "scratch2")
    inside = open_pool(WorkersSpec(), alone.work, lambda: alone.encoder)
    encode_all(inside, alone)
    assert alone.vectors() == prepared.vectors()


def test_an_actor_that_never_answers_is_replaced(prepared: Prepared) -> None:
    spec = WorkersSpec(kind="ray", count=1, start_seconds=15, shard_seconds=1)
    pool = open_pool(spec, prepared.work, lambda: prepared.encoder)
    try:
        pid = worker_pid(pool.encode(prepared.run, prepared.plan.shards[0]))
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(WorkerError, match="did not answer within 16 s"):
            pool.encode(prepared.run, prepared.plan.shards[1])
        assert time.monotonic() - started < 40
        encode_all(pool, prepared, attempts=6)
        assert len(prepared.vectors()) == prepared.plan.to_encode
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    finally:
        pool.close()


def test_what_a_cluster_lacks_is_found_before_the_first_shard(prepared: Prepared) -> None:
    asks_gpu = replace(prepared.work, engine=replace(prepared.work.engine, backend="torch", device="cuda"))
    with pytest.raises(EncoderError, match=r"2 workers need 2 GPU, and the cluster has 2 CPU, 0 GPU"):
        open_pool(WorkersSpec(kind="ray", count=2), asks_gpu, lambda: prepared.encoder)
    with pytest.raises(EncoderError, match=r"5 workers need 5 CPU, and the cluster has 2 CPU"):
        open_pool(WorkersSpec(kind="ray", count=5), prepared.work, lambda: prepared.encoder)
