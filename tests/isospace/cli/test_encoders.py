"""The encoders of a store, listed on a narrow terminal, and removed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from isospace.cli import encoders as shown
from isospace.operations.encoders import StoredEncoder, list_encoders
from isospace.storage.paths import list_encoders as stored_ids
from isospace.storage.store import open_store
from tests.isospace.cli.conftest import Call

USERS = tuple(f"collection-of-texts-{number}/production (documents)" for number in range(4))
LINEAGE = {"name": "my-static-model", "base": "9f" * 32}
LISTED = [
    StoredEncoder("1a" * 32, 384, 256, "float32", LINEAGE, (), kind="static"),
    StoredEncoder("9f" * 32, 1_024, 512, "bfloat16", None, USERS),
    StoredEncoder("5c" * 32, 30_522, 512, "float32", None, ("a" * 90,), kind="sparse"),
]


def test_eighty_columns_are_enough(call: Call, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("isospace.operations.encoders.list_encoders", lambda _: LISTED)
    assert call("encoders", store).out.splitlines() == [
        "1a1a1a1a1a1a1a1a  static, 384 dimensions, float32",
        "  made      my-static-model, from 9f9f9f9f9f9f9f9f",
        "  used by   no alias",
        "",
        "9f9f9f9f9f9f9f9f  dense, 1,024 dimensions, bfloat16",
        "  used by   collection-of-texts-0/production (documents),",
        "            collection-of-texts-1/production (documents),",
        "            collection-of-texts-2/production (documents),",
        "            collection-of-texts-3/production (documents)",
        "",
        "5c5c5c5c5c5c5c5c  sparse, 30,522 terms, float32",
        # A name is never broken.
        f"  used by   {'a' * 90}",
    ]


def test_the_encoders_of_a_store_and_their_users_are_listed(
    call: Call, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    [one] = list_encoders(open_store(store))
    assert call("encoders", store).out == (
        f"{one.encoder_id[:16]}  dense, 16 dimensions, float32\n  used by   c/production\n"
    )
    assert json.loads(call("encoders", store, "--json").out) == [json.loads(json.dumps(one.as_dict()))]


@pytest.fixture
def unused(built: Path, tmp_path: Path) -> tuple[str, str]:
    """A store of one's own, and the ID of an encoder there that no snapshot needs."""
    store = open_store(shutil.copytree(built, tmp_path / "store"))
    store.write(f"encoders/{'7b' * 32}/encoder.json", b"x" * 1_200)
    return store.url, "7b" * 32


def test_an_unused_encoder_is_removed_and_the_bytes_are_told(call: Call, unused: tuple[str, str]) -> None:
    store, encoder_id = unused
    removed = call("encoders", store, "--remove", encoder_id[:8])
    assert (removed.status, removed.out) == (0, f"encoder {encoder_id[:12]}…: removed 1 file, 1,200 bytes (1.2 kB)\n")
    [left] = stored_ids(open_store(store))
    refused = call("encoders", store, "--remove", left)
    assert refused.status == 2
    assert f"encoder {left[:12]}…: is needed by snapshots 1, 2 of collection 'c' (production); expected" in refused.err
    assert stored_ids(open_store(store)) == [left]


def test_it_asks_on_a_terminal(call: Call, unused: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    store, encoder_id = unused
    asked: list[str] = []

    def refuse(question: str, **_: object) -> None:
        asked.append(question)
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr(shown.typer, "confirm", refuse)
    assert call("encoders", store, "--remove", encoder_id).status == 130
    assert asked == [f"encoder {encoder_id[:12]}…: would remove 1 file, 1,200 bytes (1.2 kB)\nRemove it, for good?"]
    assert encoder_id in stored_ids(open_store(store))
    removed = json.loads(call("encoders", store, "--remove", encoder_id, "--yes", "--json").out)
    assert (removed["encoder_id"], removed["bytes"], removed["done"]) == (encoder_id, 1_200, True)
    assert len(asked) == 1
