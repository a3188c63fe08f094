"""Break runs by the faults of a real installation, and check the invariants of the store after each.

    python -m benchmarks.chaos [--runs 100] [--seed 0] [--only NAME ...]

Each run changes the corpus, starts the flow under a fault, and looks at the store as the fault left it: every committed
snapshot verifies, and every alias names one. Then the pipeline runs once more, undisturbed: the snapshot must hold
every document of the source exactly once, in its current version, and nothing else. A Prefect server and an S3 server
run on loopback. Clock jumps need libfaketime, a full disk needs the right to mount a tmpfs; without them those faults
are skipped with a notice. The stores are vacuumed after every tenth run, since runs would become slower otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.chaos_faults import FAKETIME, FAULTS, World, ended
from benchmarks.kill import start_server
from isospace.collection.alias import aliases, resolve
from isospace.collection.snapshot import deleted_documents, read_manifest, sequences
from isospace.operations.maintenance.vacuum import vacuum
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.storage.parquet import read_parquet
from isospace.storage.store import Store, open_store
from tests.helpers.faulty_server import faulty_server
from tests.helpers.inline import embed_inline
from tests.helpers.object_servers import s3_server
from tests.helpers.tiny import build_tiny_model

_WEEK = 10


def broken(store: Store) -> list[str]:
    """Return the violated invariants of the committed snapshots and aliases."""
    problems = []
    for number in sequences(store, "c"):
        failures = verify_snapshot(store, "c", str(number)).failures
        # Databases and lexical indexes are built after the commit, by the same run or the next one.
        problems += [f"snapshot {number}: {f}" for f in failures if "/serving/" not in f and "/lexical/" not in f]
        manifest = read_manifest(store, "c", number)
        ids = [i for part in manifest.parts for i in live(store, part, deleted_documents(store, manifest.deletions))]
        if len(ids) != len(set(ids)) or len(ids) != manifest.chunks:
            problems.append(
                f"snapshot {number}: {len(ids)} chunks, {len(set(ids))} different, {manifest.chunks} recorded"
            )
    for name in aliases(store, "c"):
        resolve(store, "c", name)
    return problems


def live(store: Store, part: object, gone: dict[str, set[str]]) -> list[str]:
    """Return the IDs of a part's live chunks, from its segment."""
    rows = read_parquet(store, part.segment.path, columns=["chunk_id", "doc_id"]).to_pylist()  # type: ignore[attr-defined]
    left_out = gone.get(part.name, set())  # type: ignore[attr-defined]
    return [row["chunk_id"] for row in rows if row["doc_id"] not in left_out]


def incomplete(world: World, store: Store) -> list[str]:
    """Return how the latest snapshot differs from the source: missing, surplus, or outdated documents."""
    manifest = read_manifest(store, "c", sequences(store, "c")[-1])
    gone = deleted_documents(store, manifest.deletions)
    live_documents: list[tuple[str, str]] = []
    for part in manifest.parts:
        rows = read_parquet(store, part.documents.path, columns=["doc_id", "text"]).to_pylist()
        live_documents += [(row["doc_id"], row["text"]) for row in rows if row["doc_id"] not in gone.get(part.name, ())]
    if sorted(live_documents) == sorted(world.documents.items()):
        return []
    there, wanted = dict(live_documents), world.documents
    lost, stale = set(wanted) - set(there), [n for n in there if there[n] != wanted.get(n)]
    return [f"{len(lost)} documents lost, {len(stale)} stale or too many, {len(live_documents) - len(there)} doubled"]


def last_words(world: World, first: int) -> list[str]:
    """Return the last log lines of the later runs that ended with an error."""
    logs = [world.folder / f"run-{number:03}.log" for number in range(first, world.started + 1)]
    texts = [log.read_text(errors="replace").strip().splitlines() for log in logs]
    return [next(line for line in reversed(text) if "rror" in line) for text in texts if "rror" in "".join(text[-3:])]


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mount a small tmpfs; None if that is not allowed."""
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
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
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
            bad = _rounds(world, arguments.runs, arguments.only, disk)
        finally:
            world.server.terminate()
            world.server.wait()
    if bad:
        print(f"kept for inspection: {folder}")
        sys.exit(1)
    shutil.rmtree(folder, ignore_errors=True)


def _rounds(world: World, runs: int, only: list[str], disk: Path | None) -> list[str]:
    chosen = {name: weight for name, (weight, _) in FAULTS.items() if not only or any(part in name for part in only)}
    if disk is None and chosen.pop("disk full", 0):
        print("skipped: disk full (no right to mount a tmpfs)")
    if not Path(FAKETIME).exists() and chosen.pop("clock jumps", 0):
        print("skipped: clock jumps (libfaketime is not installed)")
    stores = {"local": str(world.folder / "store"), "s3": "s3://bucket/chaos", "small": f"{disk}/store"}
    # Each fault as often as its weight says, in an order given by the seed.
    order = [
        name for name, weight in chosen.items() for _ in range(max(1, round(runs * weight / sum(chosen.values()))))
    ]
    world.chance.shuffle(order)
    world.change()
    for name, url in stores.items():
        if name != "small" or "disk full" in chosen:
            embed_inline(world.config(url))
    started = time.monotonic()
    assert ended(world.start(world.config(stores["local"]))) == "completed"
    world.usual = time.monotonic() - started
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in chosen}
    bad: list[str] = []
    for number, name in enumerate(order, start=1):
        url = stores["s3" if name.startswith("S3") else "small" if name == "disk full" else "local"]
        world.change()
        first = world.started + 1
        outcome = FAULTS[name][1](world, url)
        outcomes[name][outcome] += 1
        store = open_store(url)
        broken_invariants = broken(store) + (["a run never ended"] if "never" in outcome else [])
        embed_inline(world.config(url))
        broken_invariants += broken(store) + incomplete(world, store)
        if any("/serving/" in f or "/lexical/" in f for f in verify_snapshot(store, "c").failures):
            broken_invariants.append("search files were not rebuilt")
        bad += [f"run {number}, {name}: {one}" for one in broken_invariants]
        print(f"{number:3} {name:40} {outcome:24} {'; '.join(broken_invariants) or 'holds'}", flush=True)
        for words in last_words(world, first) if "failed" in outcome else []:
            print(f"      {words[:300]}", flush=True)
        if number % _WEEK == 0:
            bad += [f"run {number}, {name}: vacuumed: {one}" for one in _vacuumed(world, stores.values())]
    print("\n| fault | runs | outcomes | invariants broken |\n| --- | ---: | --- | ---: |")
    for name, counts in outcomes.items():
        summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.most_common())
        print(f"| {name} | {counts.total()} | {summary} | {sum(f', {name}:' in one for one in bad)} |")
    print(
        f"\n{len(order)} runs, seed order as given, an undisturbed flow takes {world.usual:.0f} s; broken: {len(bad)}"
    )
    return bad


def _vacuumed(world: World, urls: Iterable[str]) -> list[str]:
    failures = []
    for url in urls:
        store = open_store(url)
        if sequences(store, "c"):
            vacuum(store, world.folder / "scratch", retention_days=0, vectors=True)
            failures += broken(store)
    return failures


if __name__ == "__main__":
    main()
