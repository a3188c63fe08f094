"""The flow with worker processes: seen in its tasks, and whole although a worker is killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from isospace.operations.maintenance.verify import verify_snapshot
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")


def workers() -> list[int]:
    """Processes that this one has spawned to encode."""
    found = []
    for child in psutil.Process().children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child.pid)
        except psutil.Error:
            continue
    return found


def test_a_run_goes_on_although_a_worker_is_killed_in_the_midst(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.embed_corpus import embed_corpus

    runtime = {"shard_tokens": 1500, "workers": {"kind": "processes", "count": 2}}
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(1500)), runtime=runtime)
    store = open_store(config.runtime.store)
    killed: list[int] = []

    def kill_one() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if any(store.walk("vectors")) and (pids := workers()):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
                return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    report = embed_corpus(config)
    killer.join()
    assert killed
    assert (report.documents, report.committed) == (1500, True)
    assert verify_snapshot(store, "c").failures == ()
    assert not workers()  # they end with the run
