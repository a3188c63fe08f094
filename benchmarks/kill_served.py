"""Kill runs with an encoder behind an API at random moments, run them again, and count what was sent twice.

    python -m benchmarks.kill_served [--kills 10] [--seed 0] [--latency 0.4]

The provider is a server on loopback that answers after a while, so that requests are in flight at every moment. Each
kill has a separate store. The second run must commit the snapshot of an undisturbed run, the provider must not have
received more texts twice than were in flight at the kill, and the report must say so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from isospace.collection.snapshot import latest_manifest
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.storage.store import open_store
from tests.helpers.documents import sentences, write_jsonl
from tests.helpers.fake_provider import FakeProvider, Received
from tests.helpers.fake_provider_answers import texts_in
from tests.helpers.provider_faults import stored_vectors

DOCUMENTS = 2000
# An answer that the provider sent so shortly before the kill may still be on its way to the client, or to its file.
_UNWRITTEN_SECONDS = 0.05


@dataclass(frozen=True)
class Trial:
    """What became of a killed run and the run after it."""

    moment: float
    answered: int
    in_flight: int
    unwritten: int
    lost_age: float
    twice: int
    reported: int
    is_same: bool

    @property
    def holds(self) -> bool:
        """Whether the promise was kept."""
        return self.is_same and self.twice <= self.in_flight + self.unwritten and self.twice <= self.reported


def command(folder: Path, name: str, provider: FakeProvider) -> list[str]:
    """Write a configuration, and return the command that runs it."""
    recipe: dict[str, Any] = {
        "documents": {"title_column": "title"},
        "encoder": {"kind": "served", "protocol": "openai", "model": "fake-1", "max_tokens": 400},
        "chunking": {"overlap_tokens": 0},
        "transform": {"fit": {"kind": "none"}, "representations": ["float32"]},
    }
    runtime: dict[str, Any] = {
        "store": str(folder / name),
        "collection": "c",
        "source": str(folder / "d.jsonl"),
        "endpoint": {"url": provider.url("openai"), "max_concurrency": 8, "max_batch_texts": 9},
        "shard_tokens": 20_000,
        "report_chunks": 0,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"recipe": recipe, "runtime": runtime}))
    return [sys.executable, "-m", "isospace.cli", "run", str(path)]


def documents_in(received: list[Received], known: set[str]) -> list[str]:
    """Return the texts of documents in requests, without those of the probes."""
    return [text for one in received if one.method == "POST" for text in texts_in(one.body) if text in known]


def killed(folder: Path, number: int, provider: FakeProvider, known: set[str], wait: float) -> Trial:
    """Run, kill after the first texts and a while, run again, and compare."""
    provider.received.clear()
    line, url = command(folder, f"kill{number}", provider), str(folder / f"kill{number}")
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not documents_in(provider.received, known):
        time.sleep(0.01)
    time.sleep(wait)
    moment = time.monotonic()
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3 * provider.latency)
    first = list(provider.received)
    in_flight = documents_in([one for one in first if one.at > moment], known)
    unwritten = documents_in([one for one in first if moment - _UNWRITTEN_SECONDS < one.at <= moment], known)
    subprocess.run(line, check=True, capture_output=True)
    sent = documents_in(provider.received, known)
    assert set(sent) == known
    [report] = [json.loads(path.read_text()) for path in (Path(url) / "reports").rglob("report.json")]
    expected = latest_manifest(open_store(folder / "undisturbed"), "c").snapshot_id
    store = open_store(url)
    is_same = (
        latest_manifest(store, "c").snapshot_id == expected
        and stored_vectors(store) == stored_vectors(open_store(folder / "undisturbed"))
        and not verify_snapshot(store, "c").failures
    )
    later = documents_in(provider.received[len(first) :], known)
    again = set(later)
    # How long before the kill the provider had sent what was asked for again nevertheless.
    ages = [moment - one.at for one in first if one.at <= moment and again & set(documents_in([one], known))]
    answered = len(documents_in(first, known)) - len(in_flight)
    twice = len(sent) - len(known)
    return Trial(
        wait,
        answered,
        len(in_flight),
        len(unwritten),
        max(ages, default=0.0),
        twice,
        report["run"]["resent_texts"],
        is_same,
    )


def main() -> None:
    """Print a row for each kill; exit with 1 if one breaks the promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.4)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with (
        tempfile.TemporaryDirectory(prefix="isospace-kill-") as name,
        FakeProvider(latency=arguments.latency) as provider,
    ):
        folder, documents = Path(name), sentences(DOCUMENTS)
        os.environ |= {"ISOSPACE_CACHE": str(folder / "cache"), "ISOSPACE_ENDPOINT": provider.url("openai")}
        known = {f"title {name} {text}" for name, text in documents.items()}
        write_jsonl(folder / "d.jsonl", documents)
        started = time.monotonic()
        subprocess.run(command(folder, "undisturbed", provider), check=True, capture_output=True)
        times = [one.at for one in provider.received if documents_in([one], known)]
        seconds = max(times) - min(times)
        print(f"undisturbed: {time.monotonic() - started:.1f} s, of these {seconds:.1f} s with the provider\n")
        print(
            "| kill | after s | texts answered then | in flight then | sent twice | answered before, ms | "
            "report: up to | same snapshot |"
        )
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
        broken = 0
        for number in range(1, arguments.kills + 1):
            trial = killed(folder, number, provider, known, chance.uniform(0.0, 0.95) * seconds)
            broken += not trial.holds
            print(
                f"| {number} | {trial.moment:.1f} | {trial.answered} | {trial.in_flight} | {trial.twice} | "
                f"{1000 * trial.lost_age:.0f} | "
                f"{trial.reported} | {'yes' if trial.is_same else 'NO'} |" + ("" if trial.holds else " broken"),
                flush=True,
            )
    if broken:
        sys.exit(1)


if __name__ == "__main__":
    main()
