"""Kill the flow with SIGKILL at random moments, run it again, and compare with an undisturbed run.

    python -m benchmarks.kill [--kills 20]

Each kill has a separate store. All use one Prefect server on loopback.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import yaml

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.snapshot import latest_manifest, sequences
from isospace.collection.vector_files import vector_parts
from isospace.errors import NotFoundError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import sentences, write_jsonl
from tests.helpers.tiny import build_tiny_model

DOCUMENTS = 4000


def start_server(folder: Path) -> tuple[subprocess.Popen, dict[str, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PYTHONPATH": str(Path.cwd()),
    }
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(240):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=2)
            return server, environment
        except OSError:
            time.sleep(0.5)
    server.terminate()
    raise SystemExit("the Prefect server did not start within two minutes")


def flow(folder: Path, name: str) -> list[str]:
    recipe = {
        "documents": {"title_column": "title"},
        "encoder": {"model": str(folder / "tiny")},
        "chunking": {"overlap_tokens": 4},
        "transform": {"fit": {"kind": "zca", "epsilon": 1.0}},
    }
    runtime = {
        "store": str(folder / name),
        "collection": "c",
        "source": str(folder / "d.jsonl"),
        "device": "cpu",
        "shard_tokens": 6000,
        "part_documents": 400,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"recipe": recipe, "runtime": runtime}))
    return [sys.executable, "-m", "flows.embed_corpus", str(path)]


def digests(store: Path) -> dict[str, str]:
    # A listing depends on when the source was listed.
    files = [p for p in store.rglob("*") if p.suffix in {".parquet", ".safetensors"}]
    kept = [p for p in files if not {"plans", "listings"} & set(p.parts)]
    return {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def stored_texts(url: str) -> int:
    store = open_store(url)
    encoders = store.folders("vectors")
    return sum(len(read_vectors(store, path, e)[0]) for e in encoders for path in vector_parts(store, e))


def state_after_kill(url: str) -> str:
    store = open_store(url)
    if not sequences(store, "c"):
        try:
            open_index(store, "c")
        except NotFoundError:
            return "no snapshot"
        raise SystemExit("search found something where no snapshot is")
    index = open_index(store, "c", "1")
    if len(index.vectors) != index.manifest.chunks:
        raise SystemExit("search sees half a snapshot")
    return "whole snapshot"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="isospace-kill-") as name:
        folder = Path(name)
        build_tiny_model(folder / "tiny")
        write_jsonl(folder / "d.jsonl", sentences(DOCUMENTS, words=30))
        server, environment = start_server(folder)
        try:
            compare(arguments.kills, chance, folder, environment)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def compare(kills: int, chance: random.Random, folder: Path, environment: dict[str, str]) -> None:
    started = time.monotonic()
    subprocess.run(flow(folder, "undisturbed"), env=environment, check=True, capture_output=True)
    duration = time.monotonic() - started
    expected, files = latest_manifest(open_store(folder / "undisturbed"), "c"), digests(folder / "undisturbed")
    total = stored_texts(str(folder / "undisturbed"))
    print(f"undisturbed: {duration:.1f} s, {total} texts, snapshot {expected.snapshot_id[:16]}\n", flush=True)
    print("| kill | after s | texts stored then | visible then | encoded by the second run | same id and files |")
    print("| ---: | ---: | ---: | --- | ---: | --- |", flush=True)
    for number in range(1, kills + 1):
        command, url = flow(folder, f"kill{number}"), str(folder / f"kill{number}")
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        moment = duration * chance.uniform(0.25, 0.8)
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        stored, visible = stored_texts(url), state_after_kill(url)
        subprocess.run(command, env=environment, check=True, capture_output=True)
        found = latest_manifest(open_store(url), "c")
        report = max((Path(url) / "reports").rglob("report.json"), key=lambda p: p.stat().st_mtime)
        encoded = json.loads(report.read_text())["run"]["encoded"]
        same = found.snapshot_id == expected.snapshot_id and digests(Path(url)) == files
        same = same and not verify_snapshot(open_store(url), "c").failures
        print(f"| {number} | {moment:.1f} | {stored} | {visible} | {encoded} | {'yes' if same else 'NO'} |", flush=True)
        if not same or stored + encoded != total:
            raise SystemExit("differs")


if __name__ == "__main__":
    main()
