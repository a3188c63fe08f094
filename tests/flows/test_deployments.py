"""What prefect.yaml deploys: valid as it is, and alive on a real server with PostgreSQL and a worker."""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from isospace.collection.snapshot import latest_manifest
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config_files import load_config
from isospace.storage.store import open_store
from tests.conftest import sentences, write_jsonl

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
DSN = os.environ.get("ISOSPACE_TEST_POSTGRES")


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=[str(deployment["name"]) for deployment in DEPLOYMENTS])
def test_its_entrypoint_takes_its_parameters(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.utilities.schema_tools import validate

    monkeypatch.chdir(ROOT)
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    flow.validate_parameters(deployment["parameters"])
    validate(deployment["parameters"], flow.parameters.model_dump(), raise_on_error=True)
    assert deployment["work_pool"]["name"] in ("cpu", "gpu")
    assert "isospace" in deployment["tags"]
    assert all("timezone" in schedule for schedule in deployment.get("schedules", []))


def test_it_keeps_the_collection_of_the_demo() -> None:
    runtime = load_config(ROOT / "configs/demo.yaml").runtime
    for deployment in DEPLOYMENTS:
        parameters = deployment["parameters"]
        if "config" in parameters:
            wanted = "finetune_demo" if deployment["name"] == "finetune-encoder" else "demo"
            assert parameters["config"] == f"configs/{wanted}.yaml"
        else:
            collections = parameters.get("collections", [parameters.get("collection")])
            assert (parameters["store"], collections) == (runtime.store, [runtime.collection])


def test_whatever_writes_runs_one_at_a_time() -> None:
    writing = {
        "embed-corpus",
        "embed-corpus-gpu",
        "backfill",
        "refit-space",
        "compact-collection",
        "vacuum-store",
        "finetune-encoder",
    }
    limited = {d["name"] for d in DEPLOYMENTS if d.get("concurrency_limit", {}).get("limit") == 1}
    assert limited == writing
    assert {d["name"] for d in DEPLOYMENTS} - writing == {"audit-collection"}


def _until(found: Callable[[], Any], seconds: float, what: str) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.5)
    raise AssertionError(f"{what}: not within {seconds:.0f} s")


@pytest.fixture
def night(tmp_path: Path, tiny_model: Path) -> Iterator[tuple[str, Path]]:
    """A checkout whose deployments keep a small collection, with a server on PostgreSQL and a worker."""
    import psycopg

    assert DSN is not None
    name = f"prefect_{os.getpid()}"
    with psycopg.connect(DSN, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    checkout = tmp_path / "checkout"
    for part in ("flows", "tasks", "isospace", "configs"):
        shutil.copytree(ROOT / part, checkout / part)
    write_jsonl(checkout / "d.jsonl", sentences(60))
    config = yaml.safe_load((ROOT / "configs/demo.yaml").read_text())
    config["recipe"] |= {"encoder": {"model": str(tiny_model)}, "gate": {}, "chunking": {"overlap_tokens": 4}}
    config["runtime"] |= {"source": "d.jsonl", "device": "cpu", "shard_tokens": 300}
    (checkout / "configs/demo.yaml").write_text(yaml.safe_dump(config))
    shutil.copy(ROOT / "prefect.yaml", checkout)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = DSN.replace("postgresql://", "postgresql+asyncpg://").rsplit("/", 1)[0] + f"/{name}"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "ISOSPACE_CHECKOUT": str(checkout),
        "PYTHONPATH": str(checkout),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    prefect = [sys.executable, "-m", "prefect"]

    def start(*command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*prefect, *command], env=environment, cwd=checkout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    running = [start("server", "start", "--host", "127.0.0.1", "--port", str(port))]
    api = f"http://127.0.0.1:{port}/api"
    try:
        _until(lambda: _answers(api), 120.0, "the server")
        prepare = [sys.executable, "-m", "flows.prepare_server", "--encode-limit", "2"]
        subprocess.run(prepare, env=environment, cwd=checkout, check=True, capture_output=True)
        subprocess.run([*prefect, "deploy", "--all"], env=environment, cwd=checkout, check=True, capture_output=True)
        running.append(start("worker", "start", "--pool", "cpu", "--type", "process"))
        yield api, checkout
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(60)
        with psycopg.connect(DSN, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def _runs(api: str, name: str) -> list[dict[str, Any]]:
    body = {"deployments": {"name": {"any_": [name]}}, "sort": "EXPECTED_START_TIME_ASC", "limit": 50}
    runs: list[dict[str, Any]] = httpx.post(f"{api}/flow_runs/filter", json=body, timeout=30).json()
    return runs


@pytest.mark.integration
@pytest.mark.skipif(DSN is None, reason="needs PostgreSQL: set ISOSPACE_TEST_POSTGRES to a DSN (see .ci/postgres)")
def test_a_schedule_fires_and_a_backfill_is_cancelled_and_done_again(night: tuple[str, Path]) -> None:
    api, checkout = night
    deployments = {d["name"]: d for d in httpx.post(f"{api}/deployments/filter", json={}, timeout=30).json()}
    assert set(deployments) == {d["name"] for d in DEPLOYMENTS}
    # In a few seconds, in place of next night.
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    schedule = [{"schedule": {"interval": 86_400.0, "anchor_date": soon}, "active": True}]
    httpx.post(
        f"{api}/deployments/{deployments['embed-corpus']['id']}/schedules", json=schedule, timeout=30
    ).raise_for_status()
    done = _until(
        lambda: [r for r in _runs(api, "embed-corpus") if r["state_type"] in ("COMPLETED", "FAILED", "CRASHED")],
        120.0,
        "a scheduled run",
    )
    assert done[0]["state_type"] == "COMPLETED", done[0]["state"]["message"]
    assert done[0]["name"] == "embed scifact-demo: scheduled"
    assert "auto-scheduled" in done[0]["tags"]
    store = open_store(checkout / ".demo/store")
    assert verify_snapshot(store, "scifact-demo").failures == ()
    # A backfill of documents that came since, cancelled under way, started again.
    write_jsonl(checkout / "d.jsonl", sentences(1_500))
    backfill = deployments["backfill"]
    parameters = {**backfill["parameters"], "reason": "what came since"}
    url = f"{api}/deployments/{backfill['id']}/create_flow_run"
    first = httpx.post(url, json={"parameters": parameters}, timeout=30).json()["id"]
    task_runs = {"flow_runs": {"id": {"any_": [first]}}, "task_runs": {"name": {"like_": "encode"}}}
    _until(
        lambda: len(httpx.post(f"{api}/task_runs/filter", json=task_runs, timeout=30).json()) > 3, 120.0, "its shards"
    )
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    httpx.post(f"{api}/flow_runs/{first}/set_state", json=cancelling, timeout=30).raise_for_status()
    state = lambda which: httpx.get(f"{api}/flow_runs/{which}", timeout=30).json()["state_type"]  # noqa: E731
    _until(lambda: state(first) == "CANCELLED", 90.0, "the cancellation")
    assert verify_snapshot(store, "scifact-demo").failures == ()
    encoded = sum(1 for _ in store.walk("vectors"))
    assert encoded > 1
    second = httpx.post(url, json={"parameters": parameters}, timeout=30).json()["id"]
    _until(lambda: state(second) in ("COMPLETED", "FAILED", "CRASHED"), 240.0, "the second backfill")
    assert state(second) == "COMPLETED"
    manifest = latest_manifest(store, "scifact-demo")
    assert manifest is not None
    assert manifest.documents == 1_500
    assert verify_snapshot(store, "scifact-demo").failures == ()
