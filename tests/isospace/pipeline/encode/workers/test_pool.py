"""Workers: real processes, killed, hung and replaced."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.vector_files import vector_part_path
from isospace.encoding.encoder import SentenceEncoder
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.errors import ConfigError, EncoderError, NoWorkersError, WorkerError
from isospace.pipeline.chunk import write_chunks
from isospace.pipeline.config import PipelineConfig, WorkersSpec, engine_of
from isospace.pipeline.encode.plan import plan_shards
from isospace.pipeline.encode.shards import EncodePlan
from isospace.pipeline.encode.workers.pool import Pool, open_pool, worker_engines
from isospace.pipeline.encode.workers.process import Work, WorkerProcess
from isospace.pipeline.encode.workers.process_pool import Processes
from isospace.pipeline.run import Run, start_run
from isospace.pipeline.scan.diff import scan_source
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl


@dataclass
class Prepared:
    """A run that is about to encode."""

    run: Run
    plan: EncodePlan
    encoder: SentenceEncoder
    work: Work

    def vectors(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for shard in self.plan.shards:
            path = vector_part_path(self.run.encoder_id, shard.shard_id)
            keys, vectors = read_vectors(self.run.store, path, self.run.encoder_id)
            found |= {key: vector.tobytes() for key, vector in zip(keys, vectors, strict=True)}
        return found


def prepare(config: PipelineConfig, scratch: Path) -> Prepared:
    store = open_store(config.runtime.store)
    encoder = prepare_encoder(store, config.recipe.encoder, engine_of(config.runtime))
    run = start_run(config, encoder.record, scratch)
    scan = scan_source(run)
    parts = [write_chunks(run, documents, encoder.counter()) for documents in scan.parts]
    plan = plan_shards(run, parts, limit=encoder.record.longest)
    return Prepared(run, plan, encoder, Work(config.runtime.store, run.encoder_id, engine_of(config.runtime)))


@pytest.fixture
def prepared(configure: Configure, encoder_store: Path, tmp_path: Path) -> Prepared:
    shutil.copytree(encoder_store, tmp_path / "store")
    source = write_jsonl(tmp_path / "d.jsonl", sentences(160))
    (tmp_path / "scratch").mkdir()
    return prepare(configure(source, runtime={"shard_tokens": 1200}), tmp_path / "scratch")


@pytest.fixture
def opened(prepared: Prepared) -> Iterator[Callable[..., Pool]]:
    pools = []

    def build(**spec: object) -> Pool:
        pools.append(open_pool(WorkersSpec.model_validate(spec), prepared.work, lambda: prepared.encoder))
        return pools[-1]

    yield build
    for pool in pools:
        pool.close()


def encode_all(pool: Pool, prepared: Prepared, attempts: int = 3) -> tuple[list, list[str]]:
    """What the flow does: as many shards at once as there are workers, lost ones tried again."""
    lost: list[str] = []

    def encode(shard):
        for _ in range(attempts):
            try:
                return pool.encode(prepared.run, shard)
            except WorkerError as error:
                lost.append(str(error))
        raise AssertionError(lost)

    with ThreadPoolExecutor(pool.size + 1) as threads:
        return list(threads.map(encode, prepared.plan.shards)), lost


def worker_pid(encoded) -> int:
    return int(encoded.worker.split()[1])


def test_two_processes_give_the_same_bits_as_none_and_load_once_each(
    prepared: Prepared, opened: Callable[..., Pool], configure: Configure, encoder_store: Path, tmp_path: Path
) -> None:
    pool = opened(kind="processes", count=2)
    encoded, lost = encode_all(pool, prepared)
    assert not lost
    assert len(prepared.plan.shards) > 4
    assert {e.worker for e in encoded} == {f"process {p} on {os.uname().nodename}" for p in map(worker_pid, encoded)}
    assert len({e.worker for e in encoded}) == 2
    assert not any(e.loaded for e in encoded)  # loaded before the first shard, and never again
    assert psutil.Process().pid not in map(worker_pid, encoded)

    other = configure(
        tmp_path / "d.jsonl",
        runtime={"shard_tokens": 700, "store": str(tmp_path / "other"), "part_documents": 31},
    )
    shutil.copytree(encoder_store, tmp_path / "other")
    (tmp_path / "scratch2").mkdir()
    alone = prepare(other, tmp_path / "scratch2")
    inside = open_pool(WorkersSpec(), alone.work, lambda: alone.encoder)
    encode_all(inside, alone)
    assert alone.vectors() == prepared.vectors()


def test_a_killed_worker_costs_its_shard_which_is_tried_again(prepared: Prepared, opened: Callable[..., Pool]) -> None:
    pool = opened(kind="processes", count=2)
    first = pool.encode(prepared.run, prepared.plan.shards[0])
    os.kill(worker_pid(first), signal.SIGKILL)
    encoded, lost = encode_all(pool, prepared)
    assert len(lost) <= 1
    assert all("died with exit code -9" in message for message in lost)
    assert sum(e.loaded for e in encoded) <= 1  # the one that replaced it, if it was not found dead before
    assert worker_pid(first) not in [worker_pid(e) for e in encoded if e.chunks]
    assert len(prepared.vectors()) == prepared.plan.to_encode


def test_a_worker_killed_in_mid_shard(prepared: Prepared, opened: Callable[..., Pool]) -> None:
    pool = opened(kind="processes", count=1)
    assert isinstance(pool, Processes)
    pid = worker_pid(pool.encode(prepared.run, prepared.plan.shards[0]))
    os.kill(pid, signal.SIGSTOP)  # it is given a shard and does not get to finish it
    killer = threading.Timer(1.0, os.kill, (pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(WorkerError, match=f"process {pid}, died with exit code -9"):
        pool.encode(prepared.run, prepared.plan.shards[1])
    encode_all(pool, prepared)
    assert len(prepared.vectors()) == prepared.plan.to_encode


@pytest.mark.integration
def test_a_worker_that_sleeps_for_ever_is_replaced(prepared: Prepared, opened: Callable[..., Pool]) -> None:
    pool = opened(kind="processes", count=2, shard_seconds=3.0)
    pid = worker_pid(pool.encode(prepared.run, prepared.plan.shards[0]))
    os.kill(pid, signal.SIGSTOP)
    encoded, lost = encode_all(pool, prepared)
    assert [message for message in lost if "did not answer within 3 s" in message]
    assert pid not in [worker_pid(e) for e in encoded if e.chunks]
    assert len(prepared.vectors()) == prepared.plan.to_encode
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(pid)


def test_a_worker_that_cannot_be_replaced_is_left_out_and_the_others_finish(
    prepared: Prepared, opened: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = opened(kind="processes", count=2)
    assert isinstance(pool, Processes)
    broken = pool.workers[0]
    real = WorkerProcess.call

    def call(self, function, *arguments, seconds):
        if self is broken:
            raise WorkerError("worker 0 died with exit code 1")
        return real(self, function, *arguments, seconds=seconds)

    monkeypatch.setattr(WorkerProcess, "call", call)
    _, lost = encode_all(pool, prepared)
    assert len(lost) == 1
    assert len(prepared.vectors()) == prepared.plan.to_encode
    monkeypatch.setattr(WorkerProcess, "call", lambda self, *a, seconds: call(broken, *a, seconds=seconds))
    with pytest.raises(WorkerError):
        pool.encode(prepared.run, prepared.plan.shards[0])
    for _ in range(3):  # for every task that waits
        with pytest.raises(NoWorkersError, match="all 2 workers were lost, and none could be replaced"):
            pool.encode(prepared.run, prepared.plan.shards[0])


def test_workers_end_when_their_parent_is_killed(prepared: Prepared, tmp_path: Path) -> None:
    program = f"""
import sys, time
from isospace.pipeline.config import WorkersSpec
from isospace.encoding.engine import Engine
from isospace.pipeline.encode.workers.process import Work, WorkerProcess
from isospace.pipeline.encode.workers.pool import open_pool
if __name__ == "__main__":
    work = Work({prepared.work.store!r}, {prepared.work.encoder_id!r}, Engine(device="cpu"))
    pool = open_pool(WorkersSpec(kind="processes", count=2), work, lambda: None)
    print(*(worker._process.pid for worker in pool.workers), flush=True)
    time.sleep(300)
"""
    (tmp_path / "parent.py").write_text(program)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_worker_that_cannot_load_the_model_is_known_before_the_first_shard(prepared: Prepared) -> None:
    lost = replace(prepared.work, encoder_id="0" * 64)
    with pytest.raises(Exception, match=r"encoder\.json"):
        open_pool(WorkersSpec(kind="processes", count=2), lost, lambda: prepared.encoder)


def test_a_backend_outside_the_tolerance_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    """bfloat16 on this model is too coarse for an encoder whose identity is float32."""
    from isospace.encoding.spec import EncoderSpec

    store = open_store(tmp_path)
    with pytest.raises(
        EncoderError,
        match=r"bfloat16, batches of equal lengths: a probe has cosine 0\.\d+ with the encoder's reference",
    ):
        prepare_encoder(store, EncoderSpec(model=str(tiny_model)), Engine(backend="torch", compute="bfloat16"))
    named = prepare_encoder(store, EncoderSpec(model=str(tiny_model), precision="bfloat16"))
    plain = prepare_encoder(store, EncoderSpec(model=str(tiny_model)))
    assert named.record.encoder_id != plain.record.encoder_id
    assert np.isfinite(named.encode(["the cell"], "query")).all()


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine(backend="openvino", device="cuda:0"), "runs on the CPU"),
        (Engine(backend="onnx", compute="float16"), "need runtime.backend torch"),
    ],
)
def test_engines_that_do_not_go_together_are_refused(engine: Engine, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        worker_engines(engine, WorkersSpec())


def test_several_workers_in_one_process_are_refused(prepared: Prepared) -> None:
    with pytest.raises(ConfigError, match="count = 3 with kind in_process"):
        open_pool(WorkersSpec(kind="in_process", count=3), prepared.work, lambda: prepared.encoder)


def test_gpus_are_dealt_out_one_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.pipeline.encode.workers.pool.usable_gpus", lambda: 2)
    monkeypatch.setattr("isospace.encoding.engine.usable_gpus", lambda: 2)
    monkeypatch.setattr("isospace.encoding.engine.is_installed", lambda backend: True)
    assert [e.device for e in worker_engines(Engine(), WorkersSpec())] == ["cuda:0", "cuda:1"]
    assert [e.device for e in worker_engines(Engine(), WorkersSpec(count=3))] == ["cuda:0", "cuda:1", "cuda:0"]
    assert [e.device for e in worker_engines(Engine(device="cuda:1"), WorkersSpec())] == ["cuda:1"]
    assert [e.device for e in worker_engines(Engine(device="cpu"), WorkersSpec())] == ["cpu"]


def test_workers_on_the_cpu_share_its_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isospace.pipeline.encode.workers.pool.usable_cpus", lambda: 8)
    assert [e.threads for e in worker_engines(Engine(device="cpu"), WorkersSpec(count=2))] == [4, 4]


def test_auto_leaves_a_backend_that_the_model_does_not_go_with(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from isospace.encoding.loading import open_encoder
    from isospace.encoding.spec import EncoderSpec

    def refuse(kind, loaded, poolings):
        raise EncoderError(f"backend {kind}: the model cannot be exported")

    monkeypatch.setattr("isospace.encoding.registry.reference_vectors.export_graph", refuse)
    store, spec = open_store(tmp_path), EncoderSpec(model=str(tiny_model))
    with pytest.raises(EncoderError, match="cannot be exported"):
        prepare_encoder(store, spec, Engine(backend="openvino"))
    encoder = prepare_encoder(store, spec)
    assert encoder.backend.name == "torch"
    assert "torch runs the model: backend openvino" in caplog.text
    assert open_encoder(store, encoder.record.encoder_id).backend.name == "torch"


def test_an_interrupted_call_leaves_no_answer_for_the_next_one(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    import isospace.pipeline.encode.workers.process as module

    worker = WorkerProcess(0, prepared.work)
    try:
        assert worker.call(int, "1", seconds=60) == 1
        real = module.wait

        def interrupted(*arguments, **named):
            monkeypatch.setattr(module, "wait", real)
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.call(int, "2", seconds=60)
        assert worker.call(int, "3", seconds=60) == 3
    finally:
        worker.end()
