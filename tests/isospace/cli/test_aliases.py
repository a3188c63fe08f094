"""Rolled back, held, and released on the command line, as an operator does it at night."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from isospace.collection import snapshot
from isospace.collection.disk_usage import size_text
from isospace.collection.snapshot import Manifest
from isospace.storage.store import Store
from tests.isospace.cli.conftest import Call


@pytest.fixture
def own(built: Path, tmp_path: Path) -> str:
    """A store with two snapshots that a test may change."""
    return str(shutil.copytree(built, tmp_path / "store"))


def test_a_rollback_is_held_shown_and_released(call: Call, own: str) -> None:
    done = call("rollback", own, "c", "--reason", "worse on long queries", "--author", "anna")
    held = "production is held at 1: worse on long queries (by anna, "
    remedy = f"; release it with `isospace release {own} c`"
    assert done.out.startswith("production is now snapshot 1 (")
    for shown in (done.out, call("status", own, "c").out, call("aliases", own, "c").out):
        line = next(line for line in shown.splitlines() if line.startswith(held))
        assert line.endswith(remedy)
    listed = json.loads(call("aliases", own, "c", "--json").out)["production"]
    assert (listed["snapshot"], listed["moved"]["action"]) == (1, "rollback")
    assert (listed["held"]["reason"], listed["held"]["author"]) == ("worse on long queries", "anna")
    rows = json.loads(call("status", own, "--json").out)
    assert [len(row["held"]) for row in rows] == [1, 0]

    refused = call("promote", own, "c", "--snapshot", "2")
    assert refused.status == 1
    assert refused.err.startswith(f"error: {held}")
    assert refused.err.rstrip().endswith(f"{remedy}, or promote with --release.")

    released = call("release", own, "c", "--reason", "fixed")
    assert released.out.splitlines() == [
        "production is released, and names snapshot 1",
        "The latest snapshot is 2. If the next run finds nothing new, production stays at 1: snapshot 2 has content "
        f"that was rolled back; promote it yourself: `isospace promote {own} c --snapshot 2 --reason '…'`",
    ]
    assert "has another space" not in released.err
    assert call("release", own, "c").out.startswith("production was not held")
    assert "is held" not in call("status", own, "c").out
    assert call("promote", own, "c", "--snapshot", "2", "--reason", "again").status == 0


def test_a_release_warns_if_the_next_run_would_bring_another_space(
    call: Call, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = snapshot.read_manifest

    def refitted(store: Store, collection: str, number: int) -> Manifest:
        read = real(store, collection, number)
        return read.model_copy(update={"space_id": "5" * 64}) if number == 2 else read

    call("rollback", own, "c", "--reason", "another model")
    monkeypatch.setattr(snapshot, "read_manifest", refitted)
    assert "snapshot 2 has another space than snapshot 1." in call("release", own, "c").err


def test_hold_and_promote_with_release(call: Call, own: str) -> None:
    assert call("promote", own, "c", "--snapshot", "1", "--alias", "canary", "--author", "ben").status == 0
    assert call("hold", own, "c", "canary").err.startswith("error: a hold needs a reason")
    done = call("hold", own, "c", "canary", "--reason", "fair", "--author", "anna")
    assert done.out.startswith("canary is held at 1: fair (by anna, ")
    assert done.out.rstrip().endswith(f"`isospace release {own} c canary`")
    assert call("promote", own, "c", "--snapshot", "2", "--alias", "canary").status == 1
    moved = call("promote", own, "c", "--snapshot", "2", "--alias", "canary", "--release", "--author", "cleo")
    assert moved.out.startswith("canary is now snapshot 2")
    listed = json.loads(call("aliases", own, "c", "--json").out)["canary"]
    assert (listed["held"], listed["moved"]["author"]) == (None, "cleo")


def test_a_rollback_without_a_hold(call: Call, own: str) -> None:
    done = call("rollback", own, "c", "--no-hold", "--json")
    assert (json.loads(done.out)["snapshot"], json.loads(done.out)["held"]) == (1, "")


def test_an_alias_that_names_nothing(call: Call, own: str) -> None:
    assert "names no snapshot to be held at" in call("hold", own, "c", "absent", "--reason", "x").err
    refused = call("release", own, "c", "absent")
    assert refused.status == 1
    assert refused.err.startswith("error: alias 'absent' of collection 'c': names no snapshot")


@pytest.mark.parametrize(
    ("rules", "ending"), [([], " to it."), (["norms within 1e-6"], " to it, if it passes its gate.")]
)
def test_a_release_says_if_the_next_run_moves_the_alias(
    call: Call, own: str, monkeypatch: pytest.MonkeyPatch, rules: list[str], ending: str
) -> None:
    real = snapshot.read_manifest

    def judged(store: Store, collection: str, number: int) -> Manifest:
        read = real(store, collection, number)
        return read.model_copy(update={"recipe": {**read.recipe, "gate": {"rules": rules}}})

    for options in (["--remove", "production", "--yes"], []):
        call("aliases", own, "c", *options)
    call("promote", own, "c", "--snapshot", "1", "--hold", "--reason", "as it was")
    monkeypatch.setattr(snapshot, "read_manifest", judged)
    assert json.loads(call("release", own, "c", "--json").out)["stays"] == ""
    last = call("release", own, "c").out.splitlines()[-1]
    assert last == f"The latest snapshot is 2. A run moves production{ending}"


def test_status_states_disk_and_memory_with_units(call: Call, own: str) -> None:
    shown = call("status", own, "c").out
    sizes = dict(re.findall(r"^(raw vectors|segments|encoders|in all) +(\S+ [kM]?B)", shown, re.MULTILINE))
    assert sizes.keys() == {"raw vectors", "segments", "encoders", "in all"}
    assert re.search(r"^2 \(production\) +about 2\d\d\.\d MB: libraries 200\.0 MB, the encoder ", shown, re.MULTILINE)
    (row, _) = json.loads(call("status", own, "--json").out)
    assert row["collection_disk"]["segments"] > 0
    assert row["serving_memory"]["total"] > row["serving_memory"]["encoder"] > 0
    assert "the store takes" not in shown
    files = sum(path.stat().st_size for path in Path(own).rglob("*") if path.is_file())
    assert call("status", own).out.rstrip().endswith(f"the store takes {size_text(files)} in all")
    for path in Path(own).glob("spaces/*/space.json"):
        path.write_bytes(path.read_bytes()[:-9])
    damaged = call("status", own, "c")
    assert damaged.status == 0
    assert re.search(r"^2 \(production\) +unknown: its space is damaged", damaged.out, re.MULTILINE)


def test_a_set_is_removed(call: Call, own: str) -> None:
    queries = Path(own) / "q.txt"
    queries.write_text("the cell\n")
    assert call("sets", "add", own, "c", "asked", str(queries)).status == 0
    assert call("sets", "remove", own, "c", "asked").out == "c: removed evaluation set asked, 1 version in 2 files\n"
    again = call("sets", "remove", own, "c", "asked")
    assert (again.status, again.err) == (1, "error: evaluation set 'asked' of collection 'c': not found. Sets: none.\n")


def test_an_alias_is_removed_and_the_command_says_what_follows(call: Call, own: str) -> None:
    for alias, number in (("next", "2"), ("old", "1")):
        assert call("promote", own, "c", "--snapshot", number, "--alias", alias).status == 0
    done = call("aliases", own, "c", "--remove", "next", "--reason", "no better", "--author", "anna")
    assert done.out.splitlines() == [
        "next is removed; it named snapshot 2",
        "A vacuum keeps snapshot 2: production.",
        "A run with `runtime.promote_to: next` makes the alias again.",
    ]
    assert set(json.loads(call("aliases", own, "c", "--json").out)) == {"production", "old"}
    refused = call("aliases", own, "c", "--remove", "production")
    assert (refused.status, "Give --yes" in refused.err) == (2, True)
    shown = json.loads(call("aliases", own, "c", "--remove", "production", "--yes", "--json").out)
    assert (shown["snapshot"], shown["snapshot_retained"]) == (2, "latest")
    assert "was removed at" in call("search", own, "c", "cell").err
    last = call("aliases", own, "c", "--remove", "old").out
    assert "`isospace vacuum` removes snapshot 1, after its retention." in last


def test_a_snapshot_by_number_is_shown_with_what_aliases_did(call: Call, own: str) -> None:
    call("rollback", own, "c", "--reason", "bad")
    by_alias, by_number = (json.loads(call("show", own, "c", "--snapshot", s).out) for s in ("production", "2"))
    assert [entry["snapshot"] for entry in by_alias["alias_history"]] == [1, 2, 1]
    assert [(entry["alias"], entry["snapshot"]) for entry in by_number["alias_history"]] == [("production", 2)]


def test_a_rollback_within_one_space_names_the_last_snapshot_of_another(
    call: Call, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after nightly runs with a new model: the snapshot before has that model, too."""
    assert "has the same model" not in call("rollback", own, "c", "--no-hold").err
    call("promote", own, "c", "--snapshot", "2")
    numbers, real = snapshot.sequences, snapshot.read_manifest

    def read(store: Store, collection: str, number: int) -> Manifest:
        if number == 0:
            return real(store, collection, 1).model_copy(update={"sequence": 0, "space_id": "5" * 64})
        return real(store, collection, number)

    monkeypatch.setattr(snapshot, "sequences", lambda store, collection: [0, *numbers(store, collection)])
    monkeypatch.setattr(snapshot, "read_manifest", read)
    said = call("rollback", own, "c", "--reason", "worse").err
    assert said.startswith("snapshot 1 has the same model and transform as snapshot 2. The last one before with others")
    assert f"is 0; if you want that: isospace promote {own} c --snapshot 0 --hold --reason" in said


def test_promote_and_hold_in_one_command(call: Call, own: str) -> None:
    assert call("promote", own, "c", "--snapshot", "1", "--hold").err.startswith("error: a hold needs a reason")
    done = call("promote", own, "c", "--snapshot", "1", "--hold", "--reason", "the old model", "--author", "anna")
    assert [line[:28] for line in done.out.splitlines()] == [
        "production is now snapshot 1",
        "production is held at 1: the",
    ]
    assert call("promote", own, "c", "--snapshot", "1", "--hold", "--release", "--reason", "x").status == 2


def test_status_names_the_model_of_each_snapshot(call: Call, own: str) -> None:
    row = json.loads(call("status", own, "--json").out)[0]
    assert Path(row["model"]).name == "tiny"
    shown = call("status", own, "c").out.splitlines()
    assert any(line.startswith(row["space_id"][:8]) and line.rstrip().endswith("1, 2") for line in shown)


def test_a_collection_is_dropped(call: Call, own: str) -> None:
    refused = call("drop", own, "c")
    assert (refused.status, "holds 2 snapshots, which nothing restores. Give --yes" in refused.err) == (2, True)
    assert call("drop", own, "c", "--dry-run").out.startswith("c: would remove 2 snapshots in ")
    assert json.loads(call("drop", own, "c", "--yes", "--json").out)["snapshots"] == 2
    assert "holds no collection" in call("status", own).err
