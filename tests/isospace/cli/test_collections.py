"""Every command that takes a collection says which ones there are if its name is misspelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from isospace.cli.cli_reference import leaf_commands
from isospace.storage.store import open_store
from tests.isospace.cli.conftest import Call

# What a command needs besides the store and the collection; `QUERIES` is a file of queries.
NEEDED = {
    "promote": ["--snapshot", "1"],
    "hold": ["--reason", "x"],
    "sets make": ["new"],
    "sets remove": ["new"],
    "compare": ["--against", "1"],
    "frontier": ["--queries", "QUERIES"],
    "forget": ["x"],
    "export": ["faiss:nowhere"],
    "search": ["cell"],
    "serve": ["--port", "0"],
    "drop": ["--yes"],
}
# A gate of a first run needs a set.
BEFORE_A_FIRST_RUN = {"sets add"}


def takes_a_collection(command: Any) -> bool:
    return any(p.param_type_name == "argument" and p.name.startswith("collection") for p in command.params)


COMMANDS = [leaf.path for leaf in leaf_commands() if takes_a_collection(leaf.command)]
VARIANTS = [
    [*name.split(), *["STORE", "cc"], *NEEDED.get(name, [])] for name in COMMANDS if name not in BEFORE_A_FIRST_RUN
]
VARIANTS += [
    ["aliases", "STORE", "cc", "--remove", "next"],
    ["compact", "STORE", "cc", "--dry-run"],
    ["forget", "STORE", "cc", "x", "--dry-run"],
    ["forget", "STORE", "cc", "x", "--allow"],
    ["forget", "STORE", "cc", "x", "--unknown-ok"],
    ["drop", "STORE", "cc", "--dry-run"],
    ["vacuum", "STORE", "c", "cc", "--dry-run"],
]


@pytest.mark.parametrize("arguments", VARIANTS, ids=" ".join)
def test_a_misspelled_collection_is_refused_with_those_that_there_are(
    call: Call, built: Path, arguments: list[str]
) -> None:
    given = {"STORE": str(built), "QUERIES": str(built.parent / "q.txt")}
    refused = call(*(given.get(argument, argument) for argument in arguments))
    assert (refused.status, refused.out) == (1, "")
    (line,) = [line for line in refused.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: collection 'cc': no")
    assert f" in {built}. Collections there: c." in line
    assert not (built / "collections" / "cc").exists()


def test_all_commands_are_tried() -> None:
    assert len(COMMANDS) >= 25
    assert NEEDED.keys() | BEFORE_A_FIRST_RUN <= set(COMMANDS)


def test_a_set_for_a_collection_without_a_snapshot_is_stored_with_a_word_of_warning(
    call: Call, built: Path, tmp_path: Path
) -> None:
    store, queries = str(tmp_path), str(built.parent / "q.txt")
    open_store(store).write("collections/c/snapshots/00000001.json", b"{}")
    added = call("sets", "add", store, "cc", "asked", queries)
    assert (added.status, added.out.startswith("asked, version 1")) == (0, True)
    assert added.err.startswith(f"collection 'cc': no snapshot in {store}. Collections there: c. The set asked waits")
    assert f"`isospace drop {store} cc`" in added.err
    assert call("sets", "add", store, "c", "asked", queries).err == ""
    # Its sets can be listed, but it has no aliases.
    assert "asked" in call("sets", "list", store, "cc").out
    assert "no snapshot" in call("aliases", store, "cc").err
