"""Compaction and vacuum as flows and as commands."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from isospace.cli.main import app
from isospace.collection.alias import aliases, rollback
from isospace.collection.snapshot import sequences
from isospace.errors import BusyError, NotFoundError
from isospace.operations.maintenance import wait
from isospace.operations.maintenance.compact import CompactionResult
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store
from tests.conftest import configuration, sentences, write_jsonl
from tests.helpers.documents import copied
from tests.helpers.inline import embed_inline
from tests.isospace.operations.maintenance.test_vacuum import age


@pytest.fixture(scope="module")
def frayed_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """Four snapshots, each with three documents more in a part of their own."""
    folder = tmp_path_factory.mktemp("frayed")
    documents = sentences(30)
    config = configuration(tiny_model, folder / "d.jsonl", folder / "store")
    for version in range(4):
        write_jsonl(folder / "d.jsonl", documents)
        embed_inline(config)
        documents |= {f"new{version}-{n}": text for n, text in enumerate(sentences(3, seed=version + 1).values())}
    return config


@pytest.fixture
def frayed(frayed_once: PipelineConfig, tmp_path: Path) -> PipelineConfig:
    return copied(frayed_once, tmp_path)


@pytest.mark.usefixtures("prefect_server")
def test_the_flows(frayed: PipelineConfig) -> None:
    from flows.compact_collection import compact_collection
    from flows.vacuum_store import vacuum_store

    url = frayed.runtime.store
    store = open_store(url)
    plan = compact_collection(url, "c", dry_run=True)
    assert sequences(store, "c") == [1, 2, 3, 4]
    done = compact_collection(url, "c")
    assert isinstance(done, CompactionResult)
    assert (done.parts_before, done.parts_after, done.aliases) == (4, 1, ("production",))
    assert plan.describe().startswith("c, snapshot 4: 4 parts become 1")
    assert verify_snapshot(store, "c").failures == ()
    with open_index(url, "c") as index:
        assert index.search("number 0 3", k=3, mode="hybrid")[0]
    age(store, 30.0)
    found = vacuum_store(url, retention_days=0.0, dry_run=True)
    assert not found.done
    removed = vacuum_store(url, retention_days=0.0)
    assert removed.done
    assert [r.path for r in removed.removals] == [r.path for r in found.removals]
    assert aliases(store, "c")["production"].snapshot == 5
    assert verify_snapshot(store, "c").failures == ()


@pytest.mark.usefixtures("prefect_server")
def test_the_command_lines(
    frayed: PipelineConfig, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    from flows.command import compact, vacuum
    from flows.compact_collection import compact_collection
    from flows.vacuum_store import vacuum_store

    compact(compact_collection, [frayed.runtime.store, "c", "--dry-run"])
    assert "4 parts become 1" in capsys.readouterr().out
    with pytest.raises(SystemExit) as exit_:
        compact(compact_collection, [frayed.runtime.store, "nowhere"])
    assert exit_.value.code == 1
    # The log of the run has said it, which a terminal shows: the command does not repeat it.
    assert capsys.readouterr().err == ""
    assert [one.message for one in caplog.records if "no snapshot" in one.message][1:] == []
    assert "no snapshot" in caplog.text
    with pytest.raises(SystemExit) as exit_:
        vacuum(vacuum_store, [frayed.runtime.store, "--retention-days", "-1"])
    assert exit_.value.code == 2


def test_the_commands_of_the_core(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)

    def called(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "4 parts become 1" in called("compact", store.url, "c", "--dry-run")
    assert "4 parts became 1" in called("compact", store.url, "c")
    assert "nothing to compact" in called("compact", store.url, "c")
    preview = called("forget", store.url, "c", "d00001", "nobody", "--unknown-ok", "--dry-run")
    assert "1 of 2 documents are in the collection" in preview
    receipt = json.loads(
        called("forget", store.url, "c", "d00001", "nobody", "--unknown-ok", "--reason", "asked", "--json")
    )
    assert receipt["found"] == ["d00001"]
    assert "1 documents may be ingested again" in called("forget", store.url, "c", "d00001", "--allow")
    age(store, 30.0)
    listed = json.loads(called("vacuum", store.url, "--retention-days", "0", "--dry-run", "--json"))
    assert listed["removed"] is False
    assert "removed" in called("vacuum", store.url, "--retention-days", "0")
    assert verify_snapshot(store, "c").failures == ()
    with run_lease(store, "c", "embed"):
        refused = CliRunner().invoke(app, ["vacuum", store.url])
    assert isinstance(refused.exception, BusyError)


def test_what_a_vacuum_removed_cannot_be_returned_to_and_the_commands_say_so(frayed: PipelineConfig) -> None:
    store = open_store(frayed.runtime.store)
    age(store, 30.0)
    vacuumed = CliRunner().invoke(app, ["vacuum", store.url, "c", "--retention-days", "0"])
    assert "snapshots kept: 3 (production would be rolled back to it), 4 (production); removed: 1, 2" in vacuumed.stdout
    assert rollback(store, "c", "production", reason="bad").snapshot == 3
    gone = "was removed, by a vacuum or by `isospace forget`. Snapshots of c: 3, 4"
    for arguments, said in (
        (["rollback"], f"snapshot 2, which production named before, {gone}; promote one with `isospace promote "),
        (["promote", "--snapshot", "2", "--hold", "--reason", "x"], f"snapshot 2 of collection 'c' {gone}. Aliases: "),
        (["search", "query", "--snapshot", "1"], f"snapshot 1 of collection 'c' {gone}. Aliases: "),
    ):
        refused = CliRunner().invoke(app, [arguments[0], store.url, "c", *arguments[1:]])
        assert isinstance(refused.exception, NotFoundError)
        assert str(refused.exception).startswith(said)
    assert aliases(store, "c")["production"].snapshot == 3


def test_a_command_waits_for_a_run_that_ends_in_time(frayed: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(frayed.runtime.store)
    run = contextlib.ExitStack()
    run.enter_context(run_lease(store, "c", "embed"))
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: run.close())
    monkeypatch.setattr(wait, "time", clock)
    result = CliRunner().invoke(app, ["forget", store.url, "c", "d00001", "--wait-minutes", "5"])
    assert result.exit_code == 0, result.output
    assert "waiting for at most 5 minutes" in result.stderr
    assert "embed of collection c" in result.stderr
    assert "1 of 1 documents were in the collection" in result.stdout
    with run_lease(store, "c", "embed"):
        clock.sleep = lambda seconds: setattr(clock, "monotonic", lambda: time.monotonic() + 301)
        refused = CliRunner().invoke(app, ["forget", store.url, "c", "d00002", "--wait-minutes", "5"])
    assert isinstance(refused.exception, BusyError)
