"""Kill or suspend every operation at every write to its store, run it again, and check the store.

    python -m benchmarks.crash_points [--documents 12] [--operation forget …] [--every 1]

Kills come before a write, at half of it, and after it. After a kill, every alias must lead to a whole snapshot that
answers in every mode, and the latest content must be that from before or after the operation. After another run of the
operation, the store must hold what an undisturbed operation leaves, and nothing else. For a third of the kills the
clock is set back or forward by two days before that. A suspended process finds that its lease has expired, that
another operation has been carried out meanwhile, and goes on.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

from tests.helpers import crash_points as points
from tests.helpers.tiny import build_tiny_model

# What is done while an operation is suspended.
MEANWHILE = ("embed an earlier version", "forget", "vacuum", "compact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=12)
    parser.add_argument("--operation", nargs="*", default=list(points.OPERATIONS))
    parser.add_argument("--every", type=int, default=1, help="take every n-th write only")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    root = Path(tempfile.mkdtemp(prefix="isospace-crash-"))
    os.environ["ISOSPACE_CACHE"] = str(root / "cache")
    try:
        base = points.build(root / "base", build_tiny_model(root / "tiny"), arguments.documents)
        print("| operation | writes | kills | broken | suspensions | refused | broken |", flush=True)
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |", flush=True)
        broken = sum(table_row(base, operation, root, arguments.every) for operation in arguments.operation)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    raise SystemExit(broken > 0)


def table_row(base: points.World, operation: str, root: Path, every: int) -> int:
    before = points.content(base.store)
    after, writes = points.undisturbed(base.copy(root / "undisturbed"), operation)
    kills = [(at, moment) for at in range(1, writes + 1, every) for moment in points.MOMENTS]
    broken = 0
    for number, (at, moment) in enumerate(kills):
        found = after_kill(base.copy(root / "world"), operation, at, moment, number, before, after)
        broken += report(f"{operation}, killed {moment} write {at}", found)
    ends: Counter[str] = Counter()
    lost = 0
    others = [name for name in MEANWHILE if name != operation]
    for at in range(1, writes + 1, every):
        for meanwhile in others:
            world = base.copy(root / "world")
            end, found = after_suspension(world, operation, at, meanwhile)
            ends[end] += 1
            lost += report(f"{operation}, suspended at write {at} while: {meanwhile}; {end}", found)
    refused = ends.total() - ends["done"]
    print(
        f"| {operation} | {writes} | {len(kills)} | {broken} | {ends.total()} | {refused} | {lost} |",
        flush=True,
    )
    return broken + lost


def after_kill(
    world: points.World,
    operation: str,
    at: int,
    moment: points.Moment,
    number: int,
    before: points.Content,
    after: points.Content,
) -> list[str]:
    write = points.killed(world, operation, at, moment)
    found = [f"{write}: {fault}" for fault in points.faults(world.store, before, after)]
    if number % 3 == 0:
        # Linked files: their times must not change in the other worlds.
        world = unlinked(world)
        points.shift(world.store, 2.0 if number % 2 else -2.0)
    points.OPERATIONS[operation](world)
    again = [*points.faults(world.store, before, after), *points.left_behind(world.store, operation, after)]
    return found + [f"{write}, run again: {fault}" for fault in again]


def after_suspension(world: points.World, operation: str, at: int, meanwhile: str) -> tuple[str, list[str]]:
    before = points.content(world.store)
    try:
        end = points.suspended(world, operation, at, meanwhile)
    except Exception as error:
        return "crashed", [repr(error)]
    points.bury(world.store)
    return end, points.faults(world.store, before, points.content(world.store))


def unlinked(world: points.World) -> points.World:
    folder = world.folder.with_name("unlinked")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(world.folder, folder)
    return points.World(folder, world.model)


def report(what: str, found: list[str]) -> bool:
    for fault in found[:4]:
        print(f"    {what}: {fault}", flush=True)
    return bool(found)


if __name__ == "__main__":
    started = time.monotonic()
    try:
        main()
    finally:
        print(f"\n{time.monotonic() - started:.0f} s")
