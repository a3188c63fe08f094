"""Change one line of the code at a time, and see whether the tests beside it fail.

    python -m benchmarks.mutants [--only WORD] [--parallel 1] [--seconds 300] [--check]

Each mutant of `mutants.yaml` is applied to a temporary copy of the tree, never to the tree itself. A mutant dies if a
test beside it fails. The run fails if a mutant's text is not in its file exactly once, if a test fails without a
mutation, or if more than one mutant in ten survives.
"""

from __future__ import annotations

import argparse
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import yaml

ROOT = Path(__file__).resolve().parents[1]
# What the tests beside the code need.
_COPIED = ("isospace", "tests", "configs", "docs", "flows", "tasks", "pyproject.toml")
_LIST = Path(__file__).with_name("mutants.yaml")
_LARGEST_SHARE = 0.1
Outcome: TypeAlias = Literal["killed", "survived", "timeout", "broken"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: in `file`, `old` becomes `new`; `tests` are beside it. `reason`: why it survives by design."""

    name: str
    file: str
    tests: tuple[str, ...]
    old: str
    new: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a mutant: `by` is the test that failed."""

    mutant: Mutant
    outcome: Outcome
    by: str
    seconds: float


def main() -> None:
    given = _arguments()
    chosen = [
        mutant for mutant in read_mutants(_LIST) if not given.only or any(word in mutant.name for word in given.only)
    ]
    if wrong := [problem for mutant in chosen if (problem := misplaced(ROOT, mutant))]:
        raise SystemExit("\n".join(wrong))
    if not chosen:
        raise SystemExit(f"no mutant has {' or '.join(given.only)} in its name")
    print(f"{len(chosen)} mutants, each of them in its place", flush=True)
    if given.check:
        return
    with ExitStack() as stack:
        trees: queue.Queue[Path] = queue.Queue()
        for _ in range(given.parallel):
            trees.put(copy_tree(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mutants-")))))
        _require_passing(trees, chosen, given.seconds)
        with ThreadPoolExecutor(given.parallel) as pool:
            results = list(pool.map(lambda mutant: _try(trees, mutant, given.seconds), chosen))
    raise SystemExit(summary(results))


def read_mutants(path: Path) -> list[Mutant]:
    """Read the list of mutants: groups of one file and its tests."""
    return [
        Mutant(name, f"isospace/{group['file']}", tuple(f"tests/isospace/{test}" for test in group["tests"]), *change)
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))
        for name, change in group["mutants"].items()
    ]


def misplaced(root: Path, mutant: Mutant) -> str:
    """Return what is wrong with a mutant; empty if its text is in its file exactly once, and the result is Python."""
    if missing := [name for name in (mutant.file, *mutant.tests) if not (root / name).exists()]:
        return f"{mutant.name}: {missing[0]} does not exist"
    text = (root / mutant.file).read_text(encoding="utf-8")
    if (found := text.count(mutant.old)) != 1:
        return f"{mutant.name}: {mutant.old!r} is {found} times in {mutant.file}; expected once"
    try:
        compile(text.replace(mutant.old, mutant.new), mutant.file, "exec")
    except SyntaxError as error:
        return f"{mutant.name}: {mutant.new!r} is not Python there: {error}"
    return ""


def copy_tree(folder: Path) -> Path:
    """Copy what the tests need into a folder, without what Python compiled: it would be stale."""
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    return folder


def summary(results: Sequence[Result]) -> int:
    """Print how many mutants died, and what the others are; return the exit status."""
    survivors = [result.mutant for result in results if result.outcome == "survived"]
    count = {outcome: sum(r.outcome == outcome for r in results) for outcome in ("killed", "timeout", "broken")}
    print(
        f"\n{len(results)} mutants: {count['killed']} killed, {count['timeout']} timed out, {len(survivors)} survived"
    )
    for mutant in survivors:
        print(f"  survived: {mutant.name} ({mutant.file}): {mutant.reason or 'NOT EXPLAINED'}")
    for result in results:
        if result.mutant.reason and result.outcome != "survived":
            print(f"  {result.mutant.name} was expected to survive, and did not: remove its reason")
    return int(count["broken"] > 0 or len(survivors) > _LARGEST_SHARE * len(results))


def _try(trees: queue.Queue[Path], mutant: Mutant, seconds: float) -> Result:
    tree = trees.get()
    path = tree / mutant.file
    plain = path.read_text(encoding="utf-8")
    try:
        path.write_text(plain.replace(mutant.old, mutant.new), encoding="utf-8")
        result = _tested(tree, mutant, seconds)
    finally:
        path.write_text(plain, encoding="utf-8")
        trees.put(tree)
    print(f"{result.outcome:9} {result.seconds:5.0f} s  {mutant.name}  {result.by}", flush=True)
    return result


def _tested(tree: Path, mutant: Mutant, seconds: float) -> Result:
    started = time.perf_counter()
    try:
        status, output = run_tests(tree, mutant.tests, seconds)
    except subprocess.TimeoutExpired:
        return Result(mutant, "timeout", "", time.perf_counter() - started)
    outcomes: dict[int, Outcome] = {0: "survived", 1: "killed", 2: "killed"}
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    by = failed[0][:160] if failed else "" if status == 0 else output[-160:]
    return Result(mutant, outcomes.get(status, "broken"), by, time.perf_counter() - started)


def _require_passing(trees: queue.Queue[Path], mutants: Sequence[Mutant], seconds: float) -> None:
    """Run the tests without any mutation; refuse to go on if one fails."""
    tree, tests = trees.get(), sorted({name for mutant in mutants for name in mutant.tests})
    started = time.perf_counter()
    status, output = run_tests(tree, tests, seconds * len(tests))
    trees.put(tree)
    if status:
        raise SystemExit(f"the tests fail without a mutation:\n{output[-4000:]}")
    print(f"{len(tests)} files of tests pass without a mutation in {time.perf_counter() - started:.0f} s", flush=True)


def run_tests(tree: Path, tests: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run tests in a copy of the tree; return pytest's exit status and output."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not integration", *tests]
    # A mutant may have the size and the time of the file that it replaces: compiled files would not be renewed.
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    with tempfile.TemporaryDirectory(prefix="mutants-tests-") as scratch:
        environment["TMPDIR"] = scratch
        process = subprocess.Popen(
            command,
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
            raise
    return process.returncode, output


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", default=[], help="mutants with this word in their name")
    parser.add_argument("--parallel", type=int, default=1, help="mutants tested at a time")
    parser.add_argument("--seconds", type=float, default=300.0, help="time limit of one mutant's tests")
    parser.add_argument("--check", action="store_true", help="only check that the text of every mutant is there")
    return parser.parse_args()


if __name__ == "__main__":
    main()
