"""Entries of an alias: what is written of them, and what they say."""

from __future__ import annotations

import getpass
from typing import Any

import pytest

from isospace.collection.alias_entry import AliasEntry, describe_hold, login_name, release_command
from isospace.storage.store import open_store


def entry(**changes: Any) -> AliasEntry:
    given = {"alias": "production", "number": 1, "action": "promote", "snapshot": 4, "snapshot_id": "a", "reason": ""}
    return AliasEntry.model_validate({**given, "at": "2026-11-29T10:00:00+00:00", **changes})


def test_an_entry_of_a_run_is_written_as_before_there_were_holds() -> None:
    fields = {"alias", "number", "action", "snapshot", "snapshot_id", "reason", "at", "forced"}
    assert entry().model_dump(mode="json").keys() == fields


@pytest.mark.parametrize("hold", [True, False, None])
def test_what_an_entry_says_of_a_hold_is_read_back(hold: bool | None) -> None:
    written = entry(action="release", hold=hold, author="anna")
    assert AliasEntry.model_validate(written.model_dump(mode="json")) == written


def test_a_hold_is_described_in_one_line() -> None:
    holding = entry(action="hold", hold=True, reason="worse on\nlong queries. ", author="anna")
    assert describe_hold(holding, 4) == "production is held at 4: worse on long queries (by anna, 2026-11-29)"
    assert describe_hold(entry(action="rollback", hold=True), 3) == (
        "production is held at 3: no reason was given (2026-11-29)"
    )


def test_the_command_that_releases_an_alias_can_be_pasted(tmp_path) -> None:
    store = open_store(tmp_path / "my store")
    assert release_command(store, "c", "production") == f"isospace release '{store.url}' c"
    assert release_command(store, "c", "canary").endswith(" c canary")


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "anna")
    assert login_name() == "anna"

    def nobody() -> str:
        raise KeyError("uid")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert login_name() == "unknown"
