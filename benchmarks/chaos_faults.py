"""The faults of `benchmarks.chaos`: each disturbs a run, and returns how the run ended."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import yaml

from isospace.operations.maintenance.vacuum import vacuum
from isospace.pipeline.config import PipelineConfig
from isospace.storage.store import open_store
from tests.conftest import sentences
from tests.helpers.crash_points import silence
from tests.helpers.faulty_server import FaultyServer
from tests.helpers.inline import embed_inline

FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"
_LONGEST = 240.0
# The flow as if its corpus were large: the first parts are encoded while others are chunked, by processes.
LARGE = (
    "import runpy; from isospace.pipeline.encode import waves; "
    "from isospace.pipeline.parallel.local import LocalParts; "
    "waves.FIRST_BYTES = 1; LocalParts.__init__.__kwdefaults__['little'] = 0; "
    "runpy.run_module('flows.embed_corpus', run_name='__main__')"
)
ISOSPACE = "from isospace.cli.main import main; main()"


@dataclass
class World:
    """The servers, the model, the corpus, and the state of the test so far."""

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
        """Add, change, and remove some documents of the source."""
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
            "documents": {"title_column": "title"},
            "encoder": {"model": str(self.folder / "tiny")},
            "chunking": {"overlap_tokens": 4},
            "transform": {"fit": {"kind": "center"}},
        }
        where = {
            "store": store,
            "collection": "c",
            "source": str(self.folder / "d.jsonl"),
            "device": "cpu",
            "shard_tokens": 400,
            "part_documents": 60,
            "report_chunks": 0,
        }
        return PipelineConfig.model_validate({"recipe": recipe, "runtime": {**where, **runtime}})

    def start(
        self, config: PipelineConfig, flow: str = "embed_corpus", *, large: bool = False, **environment: str
    ) -> subprocess.Popen[bytes]:
        """Start the flow as a user does, or as `LARGE` says."""
        path = self.folder / f"config-{self.version}-{self.chance.randrange(10**6)}.yaml"
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        command = [sys.executable, *(["-c", LARGE] if large else ["-m", f"flows.{flow}"]), str(path)]
        return self.command(command, **environment)

    def command(self, command: list[str], **environment: str) -> subprocess.Popen[bytes]:
        """Start a command in a new process group."""
        self.started += 1
        with (self.folder / f"run-{self.started:03}.log").open("wb") as log:
            return subprocess.Popen(
                command,
                env={**self.environment, "PYTHONFAULTHANDLER": "1", **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


Fault = Callable[[World, str], str]
FAULTS: dict[str, tuple[int, Fault]] = {}


def fault(name: str, weight: int) -> Callable[[Fault], Fault]:
    """Register a fault, a function that returns how the run ended; `weight` is its relative frequency."""

    def register(action: Fault) -> Fault:
        FAULTS[name] = (weight, action)
        return action

    return register


def ended(run: subprocess.Popen[bytes]) -> str:
    """Wait for a run, and return how it ended; a run that never ends is reported as such."""
    try:
        status = run.wait(_LONGEST)
    except subprocess.TimeoutExpired:
        # The run writes the stacks of its threads to its log.
        run.send_signal(signal.SIGABRT)
        time.sleep(5.0)
        kill_group(run)
        return "never ended"
    return "completed" if status == 0 else "failed" if status > 0 else "died"


def kill_group(run: subprocess.Popen[bytes]) -> None:
    """Kill a run with all its children, so that none can clean up."""
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


@fault("kill -9 of the flow in waves", 12)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store, part_documents=15), large=True)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(world.chance.uniform(0.4, 1.2) * world.usual)
        return ended(run)
    kill_group(run)
    return "died"


@fault("kill -9 of a process that chunks", 8)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store, part_documents=15), large=True)
    return _kill_child(world, run, lambda line: "isospace.pipeline.parallel.child" in line)


@fault("kill -9 of a worker process", 12)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store, workers={"kind": "processes", "count": 2}))
    return _kill_child(world, run, lambda line: "spawn_main" in line)


@fault("kill -9 of a Ray worker", 5)
def _(world: World, store: str) -> str:
    run = world.start(world.config(store, workers={"kind": "ray", "count": 2}), RAY_ENABLE_UV_RUN_RUNTIME_ENV="0")
    # Not Ray's agents, which have similar names: without one, the node ends, and the process that started it.
    return _kill_child(world, run, lambda line: line.startswith("ray::_Actor"))


def _kill_child(world: World, run: subprocess.Popen[bytes], is_it: Callable[[str], bool]) -> str:
    """Kill one worker some time after it has started."""
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
    return ended(world.start(world.config(store), LD_PRELOAD=FAKETIME, FAKETIME=jump, FAKETIME_DONT_FAKE_MONOTONIC="1"))


@fault("two writers", 10)
def _(world: World, store: str) -> str:
    first = world.start(world.config(store, reason="nightly"))
    time.sleep(world.chance.uniform(0.0, 2.0))
    second = world.start(world.config(store, reason="backfill"), "backfill")
    return " and ".join(sorted({ended(first), ended(second)}))


@fault("two writers, one without a server", 4)
def _(world: World, store: str) -> str:
    """Two runs ignore the leases: if both commit at once, one plans again or fails with a conflict."""
    first = world.start(world.config(store))
    # Meanwhile, run the pipeline in this process, without a server.
    while first.poll() is None and not any(Path(store).glob("leases/runs/*.json")):
        time.sleep(0.1)
    time.sleep(world.chance.uniform(0.0, 3.0))
    outcome = "completed"
    try:
        embed_inline(world.config(store))
    except Exception as error:
        outcome = f"failed with {type(error).__name__}"
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


@fault("suspended run", 8)
def _(world: World, store: str) -> str:
    """Suspend a run beyond its lease; another one commits, and everything unnamed is removed."""
    run = world.start(world.config(store))
    time.sleep(world.chance.uniform(0.2, 1.0) * world.usual)
    return _suspended(world, store, run, lambda: _embed_and_vacuum(world, store))


@fault("suspended vacuum", 6)
def _(world: World, store: str) -> str:
    """Suspend a vacuum beyond its lease, while a run commits."""
    run = world.command([sys.executable, "-c", ISOSPACE, "vacuum", store, "--retention-days", "0", "--vectors"])
    time.sleep(world.chance.uniform(0.3, 2.5))
    return _suspended(world, store, run, lambda: ended(world.start(world.config(store))))


@fault("suspended compaction", 4)
def _(world: World, store: str) -> str:
    run = world.command([sys.executable, "-c", ISOSPACE, "compact", store, "c", "--part-documents", "200"])
    time.sleep(world.chance.uniform(0.3, 2.5))
    return _suspended(world, store, run, lambda: _embed_and_vacuum(world, store))


@fault("killed process that nobody reaps", 6)
def _(world: World, store: str) -> str:
    """Kill a run as in a container without an init: a vacuum and the next run must not wait for the dead process."""
    run = world.start(world.config(store))
    time.sleep(world.chance.uniform(0.2, 0.9) * world.usual)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    sweep = world.command([sys.executable, "-c", ISOSPACE, "vacuum", store, "--retention-days", "0"])
    outcome = f"vacuum {ended(sweep)}, next run {ended(world.start(world.config(store)))}"
    run.wait()
    return outcome


def _embed_and_vacuum(world: World, store: str) -> str:
    world.change()
    outcome = ended(world.start(world.config(store)))
    vacuum(open_store(store), world.folder / "scratch", retention_days=0, vectors=True)
    return outcome


def _suspended(world: World, store: str, process: subprocess.Popen[bytes], meanwhile: Callable[[], str]) -> str:
    """Stop a process group, make its lease look expired, do something else, and let it go on."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGSTOP)
    try:
        silence(open_store(store))
        other = meanwhile()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
    return f"{ended(process)}, the other {other}"
