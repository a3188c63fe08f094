"""Break runs in every way that a night knows, and hold the invariants after each.

    python -m benchmarks.chaos [--runs 100] [--seed 0] [--only NAME ...]

Each run changes the corpus, starts the flow under a fault, and looks at the store as the fault left it: every committed
snapshot verifies, every alias leads to one. Then the line runs once more, undisturbed: the snapshot has every document of the
source, in its present version, once, and nothing else. A Prefect server and an S3-speaking server run on loopback. Clock
jumps need libfaketime, a full disk needs the right to mount a tmpfs; without them those faults are left out, and said to be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from benchmarks.kill import start_server
from isospace.alias import aliases, resolve
from isospace.config import PipelineConfig
from isospace.parquet import read_parquet
from isospace.snapshot import deleted_documents, read_manifest, sequences
from isospace.store import Store, open_store
from isospace.verify import verify_snapshot
from tests.conftest import sentences
from tests.inline import embed_inline
from tests.isospace.store.conftest import s3_server
from tests.isospace.store.faulty_server import FaultyServer, faulty_server
from tests.tiny import build_tiny_model

_FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
_LONGEST = 240.0
ISOSPACE = "from isospace.cli import main; main()"


@dataclass
class World:
    """Servers, model, corpus, and what happened so far."""

    folder: Path
    chance: random.Random
    environment: dict[str, str]
    server: subprocess.Popen[bytes]
    proxy: FaultyServer
    usual: float = 12.0
    documents: dict[str, str] = field(default_factory=dict)
    version: int = 0
    started: int = 0

    def change(self) -> None:
        """Add, change and remove some documents of the source."""
        self.version += 1
        names = sorted(self.documents)
        for name in self.chance.sample(names, min(6, len(names))):
            if self.chance.random() < 0.3 and len(self.documents) > 200:
                del self.documents[name]
            else:
                self.documents[name] = next(iter(sentences(1, seed=self.chance.randrange(10**6)).values()))
        self.documents |= {
            f"v{self.version}-{n}": text
            for n, text in enumerate(sentences(40, seed=self.chance.randrange(10**6)).values())
        }
        rows = [json.dumps({"doc_id": n, "text": t, "title": f"title {n}"}) for n, t in sorted(self.documents.items())]
        path = self.folder / "d.jsonl"
        path.with_suffix(".new").write_text("\n".join(rows) + "\n")
        path.with_suffix(".new").replace(path)

    def config(self, store: str, **runtime: object) -> PipelineConfig:
        """Return a pipeline over the corpus."""
        recipe = {
            "documents": {"title_column": "title"}, "encoder": {"model": str(self.folder / "tiny")},
            "chunking": {"overlap_tokens": 4}, "transform": {"fit": {"kind": "center"}},
        }  # fmt: skip
        where = {
            "store": store, "collection": "c", "source": str(self.folder / "d.jsonl"), "device": "cpu",
            "shard_tokens": 400, "part_documents": 60, "report_chunks": 0,
        }  # fmt: skip
        return PipelineConfig.model_validate({"recipe": recipe, "runtime": {**where, **runtime}})

    def start(self, config: PipelineConfig, flow: str = "embed_corpus", **environment: str) -> subprocess.Popen[bytes]:
        """Start the flow as a user does."""
        path = self.folder / f"config-{self.version}-{self.chance.randrange(10**6)}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        command = [sys.executable, "-m", f"flows.{flow}", str(path)]
        return self.command(command, **environment)

    def command(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in a group of its own."""
        self.started += 1
        with (self.folder / f"run-{self.started:03}.log").open("wb") as log:
            return subprocess.Popen(
                command, env={**self.environment, **environment}, stdout=log, stderr=log, start_new_session=True
            )


Fault = Callable[[World, str], str]
FAULTS: dict[str, tuple[int, Fault]] = {}


def fault(name: str, weight: int) -> Callable[[Fault], Fault]:
    """Register a fault; it returns what came of the run."""

    def register(action: Fault) -> Fault:
        FAULTS[name] = (weight, action)
        return action

    return register


def ended(run: subprocess.Popen[bytes]) -> str:
    """Wait for a run; one that never ends is a finding."""
    try:
        status = run.wait(_LONGEST)
    except subprocess.TimeoutExpired:
        kill_group(run)
        return "never ended"
    return "went on" if status == 0 else "failed" if status > 0 else "died"


def kill_group(run: subprocess.Popen[bytes]) -> None:
    """End a run with all its children, none of which can say anything."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


@fault("kill -9 of the flow", 24)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store))
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(world.chance.uniform(0.25, 1.1) * world.usual)
        return ended(run)
    kill_group(run)
    return "died"


@fault("kill -9 of a worker process", 12)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store, workers={"kind": "processes", "count": 2}))
    return _kill_child(world, run, lambda line: "spawn_main" in line)


@fault("kill -9 of a Ray worker", 5)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store, workers={"kind": "ray", "count": 2}), RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    return _kill_child(world, run, lambda line: line.startswith("ray::"))


def _kill_child(world: World, run: subprocess.Popen[bytes], is_it: Callable[[str], bool]) -> str:
    """Kill one worker some time after it is there."""
    killed = False
    while run.poll() is None and not killed:
        time.sleep(0.2)
        with contextlib.suppress(psutil.Error):
            children = [
                c
                for c in psutil.Process(run.pid).children(recursive=True)
                if is_it(" ".join(c.cmdline() or [c.name()]))
            ]
            if children:
                time.sleep(world.chance.uniform(0.0, 3.0))
                world.chance.choice(children).kill()
                killed = True
    return ended(run) if killed else "was too fast"


@fault("Prefect server restarted", 8)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store))
    time.sleep(world.chance.uniform(0.3, 0.8) * world.usual)
    world.server.kill()
    world.server.wait()
    time.sleep(world.chance.uniform(0.0, 4.0))
    port = world.environment["PREFECT_API_URL"].split(":")[2].split("/")[0]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
    world.server = subprocess.Popen(
        command, env=world.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return ended(run)


@fault("S3 errors, slow-downs and lost answers", 12)
def _(world: World, store: str) -> str:
    def unlucky(method: str, path: str) -> bool:
        return world.chance.random() < 0.08

    world.proxy.refuse(6, status=500, matches=unlucky)
    world.proxy.slow_down(6, matches=unlucky)
    world.proxy.lose_answer(6, matches=lambda method, path: method in ("PUT", "POST") and unlucky(method, path))
    world.proxy.cut_body(3, matches=lambda method, path: method == "GET" and unlucky(method, path))
    try:
        return ended(world.start(world.config(store), AWS_ENDPOINT_URL=world.proxy.url))
    finally:
        world.proxy.heal()


@fault("S3 gone for good in mid-run", 3)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store), AWS_ENDPOINT_URL=world.proxy.url)
    time.sleep(world.chance.uniform(0.4, 0.8) * world.usual)
    world.proxy.refuse(1 << 30, status=503)
    time.sleep(20.0)
    kill_group(run)
    world.proxy.heal()
    return "died"


@fault("disk full", 8)
def _(world: World, store: str) -> str:
    disk = Path(store).parent
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    ballast.write_bytes(b"\0" * max(free - world.chance.randrange(4_096, 400_000), 0))
    try:
        return ended(world.start(world.config(store)))
    finally:
        ballast.unlink()


@fault("clock jumps", 8)
def _(world: World, store: str) -> str:
    jump = world.chance.choice(["+40d", "-40d", "+3h", "-3h"])
    return ended(
        world.start(world.config(store), LD_PRELOAD=_FAKETIME, FAKETIME=jump, FAKETIME_DONT_FAKE_MONOTONIC="1")
    )


@fault("two writers", 10)
def _(world: World, store: str) -> str:
    first = world.start(world.config(store, reason="nightly"))
    time.sleep(world.chance.uniform(0.0, 2.0))
    second = world.start(world.config(store, reason="backfill"), "backfill")
    return " and ".join(sorted({ended(first), ended(second)}))


@fault("two writers on two Prefect servers", 4)
def _(world: World, store: str) -> str:
    """Without a common server nobody takes turns: of two that commit at once one plans again."""
    first = world.start(world.config(store))
    # The core alone, without any server, at the same time.
    while first.poll() is None and not any(Path(store).glob("leases/runs/*.json")):
        time.sleep(0.1)
    time.sleep(world.chance.uniform(0.0, 3.0))
    outcome = "went on"
    try:
        embed_inline(world.config(store))
    except Exception as error:
        outcome = f"was told: {type(error).__name__}"
    return f"{ended(first)} and {outcome}"


@fault("kill -9 of a compaction", 6)
def _(world: World, store: str) -> str:
    embed_inline(world.config(store))
    run = world.command([sys.executable, "-c", ISOSPACE, "compact", store, "c", "--part-documents", "200"])
    time.sleep(world.chance.uniform(0.5, 3.0))
    kill_group(run)
    return "died"


@fault("vacuum during a run, killed", 6)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store))
    time.sleep(world.chance.uniform(0.0, 0.9) * world.usual)
    sweep = world.command([sys.executable, "-c", ISOSPACE, "vacuum", store, "--retention-days", "0", "--vectors"])
    with contextlib.suppress(subprocess.TimeoutExpired):
        sweep.wait(world.chance.uniform(0.5, 4.0))
    kill_group(sweep)
    return ended(run)


def broken(store: Store) -> list[str]:
    """Return what does not hold of what is committed."""
    found = []
    for number in sequences(store, "c"):
        failures = verify_snapshot(store, "c", str(number)).failures
        # A database or word index is made after the commit, by the same run or the next one.
        found += [f"snapshot {number}: {f}" for f in failures if "/serving/" not in f and "/lexical/" not in f]
        manifest = read_manifest(store, "c", number)
        ids = [i for part in manifest.parts for i in live(store, part, deleted_documents(store, manifest.deletions))]
        if len(ids) != len(set(ids)) or len(ids) != manifest.chunks:
            found.append(f"snapshot {number}: {len(ids)} chunks, {len(set(ids))} different, {manifest.chunks} recorded")
    for name in aliases(store, "c"):
        resolve(store, "c", name)
    return found


def live(store: Store, part: object, gone: dict[str, set[str]]) -> list[str]:
    """Return the chunk ids of a part that count, as its segment has them."""
    rows = read_parquet(store, part.segment.path, columns=["chunk_id", "doc_id"]).to_pylist()  # type: ignore[attr-defined]
    left_out = gone.get(part.name, set())  # type: ignore[attr-defined]
    return [row["chunk_id"] for row in rows if row["doc_id"] not in left_out]


def incomplete(world: World, store: Store) -> list[str]:
    """Return what the latest snapshot lacks, has too much, or has in another version than the source."""
    manifest = read_manifest(store, "c", sequences(store, "c")[-1])
    gone = deleted_documents(store, manifest.deletions)
    found: list[tuple[str, str]] = []
    for part in manifest.parts:
        rows = read_parquet(store, part.documents.path, columns=["doc_id", "text"]).to_pylist()
        found += [(row["doc_id"], row["text"]) for row in rows if row["doc_id"] not in gone.get(part.name, ())]
    if sorted(found) == sorted(world.documents.items()):
        return []
    there, wanted = dict(found), world.documents
    lost, stale = set(wanted) - set(there), [n for n in there if there[n] != wanted.get(n)]
    return [f"{len(lost)} documents lost, {len(stale)} stale or too many, {len(found) - len(there)} doubled"]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a small tmpfs; None where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=False)


def main() -> None:
    """Run the faults, print the table, exit with 1 if an invariant broke."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", default=[])
    given = parser.parse_args()
    chance = random.Random(given.seed)
    folder = Path(tempfile.mkdtemp(prefix="isospace-chaos-"))
    build_tiny_model(folder / "tiny")
    os.environ["ISOSPACE_CACHE"] = str(folder / "cache")
    server, environment = start_server(folder)
    with (
        s3_server() as endpoint,
        faulty_server(int(endpoint.rsplit(":", 1)[1])) as proxy,
        small_disk(folder / "small") as disk,
    ):
        world = World(folder, chance, {**environment, "HF_HUB_OFFLINE": "1"}, server, proxy)
        world.environment |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        try:
            bad = _rounds(world, given.runs, given.only, disk)
        finally:
            world.server.terminate()
            world.server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    sys.exit(1 if bad else 0)


def _rounds(world: World, runs: int, only: list[str], disk: Path | None) -> list[str]:
    chosen = {name: weight for name, (weight, _) in FAULTS.items() if not only or any(part in name for part in only)}
    if disk is None and chosen.pop("disk full", 0):
        print("left out: disk full (no right to mount a tmpfs)")
    if not Path(_FAKETIME).exists() and chosen.pop("clock jumps", 0):
        print("left out: clock jumps (libfaketime is not installed)")
    stores = {"local": str(world.folder / "store"), "s3": "s3://bucket/chaos", "small": f"{disk}/store"}
    # Every fault in its share, in an order that the seed decides.
    order = [
        name for name, weight in chosen.items() for _ in range(max(1, round(runs * weight / sum(chosen.values()))))
    ]
    world.chance.shuffle(order)
    world.change()
    for name, url in stores.items():
        if name != "small" or "disk full" in chosen:
            embed_inline(world.config(url))
    started = time.monotonic()
    assert ended(world.start(world.config(stores["local"]))) == "went on"
    world.usual = time.monotonic() - started
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    bad: list[str] = []
    for number, name in enumerate(order, start=1):
        url = stores["s3" if name.startswith("S3") else "small" if name == "disk full" else "local"]
        world.change()
        outcome = FAULTS[name][1](world, url)
        outcomes[name][outcome] += 1
        store = open_store(url)
        found = broken(store) + (["a run never ended"] if "never" in outcome else [])
        embed_inline(world.config(url))
        found += broken(store) + incomplete(world, store)
        if any("/serving/" in f or "/lexical/" in f for f in verify_snapshot(store, "c").failures):
            found.append("what a search needs was not made again")
        bad += [f"run {number}, {name}: {one}" for one in found]
        print(f"{number:3} {name:40} {outcome:24} {'; '.join(found) or 'holds'}", flush=True)
    print("\n| fault | runs | what came of them | invariants broken |\n| --- | ---: | --- | ---: |")
    for name, counts in outcomes.items():
        told = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"| {name} | {counts.total()} | {told} | {sum(f', {name}:' in one for one in bad)} |")
    print(
        f"\n{len(order)} runs, seed order as given, an undisturbed flow takes {world.usual:.0f} s; broken: {len(bad)}"
    )
    return bad


if __name__ == "__main__":
    main()
