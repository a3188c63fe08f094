"""The command as a user calls it: its help, its output, its exit status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner

import isospace
from isospace.cli.main import PANELS, app
from isospace.storage.leases import run_lease
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline
from tests.isospace.cli.conftest import Call

COMMANDS = [
    [name, *([command.name] if command.name else [])]
    for commands in PANELS.values()
    for name, group in commands.items()
    for command in (group.registered_commands if isinstance(group, typer.Typer) else [typer.models.CommandInfo()])
]
RUN = [sys.executable, "-c", "from isospace.cli.main import main; main()"]


def test_version_and_panels(call: Call) -> None:
    assert call("--version").out == f"isospace {isospace.__version__}\n"
    shown = call("--help")
    assert shown.status == 0
    places = [shown.out.index(f"─ {panel} ") for panel in PANELS]
    assert places == sorted(places)
    for name in (name for commands in PANELS.values() for name in commands):
        assert re.search(rf"^│ {name} ", shown.out, re.MULTILINE)
    assert call().out == shown.out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_a_sentence_of_help_and_describes_every_option(command: list[str]) -> None:
    group = typer.main.get_command(app)
    for name in command:
        group = group.commands[name]  # type: ignore[attr-defined]
    assert re.fullmatch(r"[A-Z][^\n]*[^\s.]\.", group.help or ""), group.help
    assert len(group.params) > 1
    for parameter in group.params:
        # An argument of Click has no help of its own in some versions of Typer.
        assert getattr(parameter, "help", None), f"{parameter.name} has no help"
    assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0


def test_one_option_names_a_snapshot() -> None:
    with_snapshot = set()
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--baseline" not in options
        assert ("--alias" in options) == (name in ("promote", "rollback"))
        with_snapshot |= {name} if "--snapshot" in options else set()
    expected = (
        "search serve show verify quarantine evaluate compare gate verdicts lengths frontier promote audit export "
        "distill publish"
    )
    assert with_snapshot == set(expected.split())


def test_a_collection_from_plan_to_damage(configure: Configure, tmp_path: Path, call: Call) -> None:
    documents = sentences(30)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, recipe={"chunking": {"include_title": False, "overlap_tokens": 4}})
    store = config.runtime.store
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert json.loads(call("plan", str(file), "--json").out)["texts_to_encode"] == 30
    embed_inline(config)
    write_jsonl(path, documents | {"new": "one more text"})
    embed_inline(config)

    status = json.loads(call("status", store, "--json").out)
    assert [(row["snapshot"], row["aliases"]) for row in status] == [(1, []), (2, ["production"])]
    assert json.loads(call("show", store, "c").out)["sequence"] == 2
    found = json.loads(call("search", store, "c", documents["d00005"], "-k", "2", "--json").out)
    assert found["results"][0]["hits"][0]["doc_id"] == "d00005"
    assert json.loads(call("verify", store, "c", "--json").out)["failures"] == []
    assert "production is now snapshot 1" in call("rollback", store, "c", "--reason", "test").out
    moved = json.loads(call("promote", store, "c", "--snapshot", "2", "--alias", "staging", "--json").out)
    assert (moved["alias"], moved["snapshot"], moved["moved"]) == ("staging", 2, True)
    again = call("promote", store, "c", "--snapshot", "2", "--alias", "staging")
    assert "staging was already snapshot 2" in again.out
    assert "staging" in call("status", store, "c").out

    victim = next((tmp_path / "store").rglob("segments/*/*.parquet"))
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    result = call("verify", store, "c", "--snapshot", "staging")
    assert result.status == 1
    assert victim.name in result.err
    assert json.loads(call("verify", store, "c", "--snapshot", "staging", "--json").out)["failures"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["status", "/nonexistent/store"], 1, "holds no collection"),
        (
            ["search", "/nonexistent/store", "c", "query"],
            1,
            "no snapshot in /nonexistent/store. Collections there: none",
        ),
        (["search", "/nonexistent/store", "c"], 2, "expected either queries, or chunks"),
        (["search", "/nonexistent/store", "c", "x", "-k", "0"], 2, "-k"),
        (["search", "/nonexistent/store", "c", "x", "--mode", "bogus"], 2, "'bogus' is not one of 'auto', 'exact'"),
        (["search", "/nonexistent/store", "c", "x", "--backend", "tf"], 2, "'tf' is not one of 'auto', 'openvino'"),
        (["search", "/nonexistent/store", "c", "x", "--device", "tpu"], 2, "expected auto, cpu, cuda, or cuda:N"),
        (["search", "/nonexistent/store", "c", "x", "--filter", "a ==="], 2, "filter 'a ==='"),
        (["search", "/nonexistent/store", "c", "x", "--set", "depth"], 2, "--set depth: expected KEY=VALUE"),
        (["search", "/nonexistent/store", "c", "x", "--set", "deep=1"], 2, "Known: k, mode"),
        (["search", "/nonexistent/store", "c", "x", "--reranker", "/nowhere"], 2, "/nowhere"),
        (["serve", "/nonexistent/store", "c", "--keys", "/nowhere"], 2, "--keys /nowhere: cannot be read"),
        (["serve", "/nonexistent/store", "c", "--host", "0.0.0.0"], 2, "no API keys are set"),
        (["serve", "/nonexistent/store", "c", "--shadow", "candidate"], 2, "Give --log SHARE"),
        (["sets", "make", "/nonexistent/store", "c", "s", "--kind", "words"], 2, "'words' is not one of 'auto'"),
        (["sets", "add", "/nonexistent/store", "c", "s", "/nowhere.csv"], 2, "/nowhere.csv"),
        (["sets"], 2, "Missing command"),
        (["frontier", "/nonexistent/store", "c", "--queries", "/nowhere.csv"], 2, "/nowhere.csv"),
        (["evaluate", "/nonexistent/store", "c", "--metrics", "bleu"], 2, "bleu"),
        (["evaluate", "/nonexistent/store", "c", "--search", "mode=x"], 2, "mode = 'x'"),
        (["audit", "/nonexistent/store", "c", "--threshold", "x=1"], 2, "--threshold"),
        (["compare", "/nonexistent/store", "c"], 2, "--against"),
        (["promote", "/nonexistent/store", "c"], 2, "--snapshot"),
        (["export", "/nonexistent/store", "c", "oracle:x"], 2, "unknown system"),
        (["forget", "/nonexistent/store", "c", "d", "--allow"], 1, "The folder does not exist"),
        (["vacuum", "/nonexistent/store", "c"], 1, "collection 'c': not in"),
        (["plan", "nowhere.yaml"], 2, "cannot be read"),
        (
            ["plan", "configs/demo.yaml", "--set", "recipe.transform.fit.kind=whiten"],
            2,
            "recipe.transform.fit.kind",
        ),
        (["plan", "configs/demo.yaml", "--set", "runtime.source=/nonexistent"], 1, "no such file or folder"),
        (["promote", "/nonexistent", "c", "--snapshot", "1", "--alias", "../x"], 2, "expected 1 to 100 letters"),
        (["status", "gopher://x"], 2, "unknown scheme"),
        (["frobnicate"], 2, "frobnicate"),
        (["--frobnicate"], 2, "frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_an_error_is_one_line_and_an_exit_status(call: Call, arguments: list[str], status: int, message: str) -> None:
    result = call(*arguments)
    assert result.out == ""
    # On a busy machine, a command prints in the meantime that it is running.
    (line,) = [line for line in result.err.splitlines() if ": running for " not in line]
    assert line.startswith("error: ")
    assert message in line
    assert result.status == status


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    call: Call, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "isospace.service.server", raising=False)
    monkeypatch.delitem(sys.modules, "isospace.service.start", raising=False)
    result = call("serve", store, "c")
    assert result.status == 1
    assert re.fullmatch(r"error: the package uvicorn is not installed\. Run: pip install .*\[serve\]'\n", result.err)


def test_an_interrupted_command_says_so_on_one_line(store: str) -> None:
    with run_lease(open_store(store), "c", "embed"):
        process = subprocess.Popen(
            [*RUN, "vacuum", store, "--wait-minutes", "5"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert process.stderr is not None
        assert "waiting for at most 5 minutes" in process.stderr.readline()
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "error: interrupted.\n")


def test_quarantined_inputs_are_listed_with_their_reasons(call: Call, store: str) -> None:
    found = json.loads(call("quarantine", store, "c", "--json").out)
    assert [(one["doc_id"], one["reason"]) for one in found] == [
        ("number", "has int where text was expected, in the column text"),
        (None, "holds no text"),
    ]
    shown = call("quarantine", store, "c", "--snapshot", "1").out
    assert "c, snapshot 1: 2 inputs quarantined" in shown
    for one in json.loads(call("quarantine", store, "c", "--snapshot", "1", "--json").out):
        assert one["uri"] in shown
        assert one["reason"] in shown


def test_tables_keep_what_is_copied_at_80_columns(call: Call, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    rows = json.loads(call("status", store, "--json").out)
    lines = call("status", store).out.splitlines()
    assert max(map(len, lines)) <= 80
    for row in rows:
        assert any(row["snapshot_id"][:8] in line for line in lines)
        assert any(line.startswith(row["space_id"][:8]) for line in lines)


def test_reports_are_named_by_a_path_that_can_be_opened(call: Call, built: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(built, tmp_path / "store")
    result = call("gate", str(copy), "c", "--snapshot", "2", "--rule", "norms within 1e-6")
    assert result.status == 0
    (path,) = re.findall(r"^report: (.+)$", result.out, re.MULTILINE)
    assert Path(path).read_bytes().startswith(b"<!doctype html>")
    rejected = call("gate", str(copy), "c", "--snapshot", "2", "--rule", "norms within 1e-12")
    assert rejected.status == 1
    assert rejected.err == "error: snapshot 2 was rejected by 1 of 1 rules.\n"


def test_what_is_kept_in_order_speaks_json(call: Call, built: Path, tmp_path: Path) -> None:
    store = str(shutil.copytree(built, tmp_path / "store"))
    planned = json.loads(call("compact", store, "c", "--dry-run", "--json").out)
    assert (planned["snapshot"], planned["parts_before"], planned["parts_after"]) == (2, 2, 1)
    done = json.loads(call("compact", store, "c", "--json").out)
    assert (done["snapshot"], done["parts_after"], done["aliases"]) == (3, 1, ["production"])
    held = json.loads(call("forget", store, "c", "d00001", "nobody", "--dry-run", "--json").out)
    assert (held["doc_ids"], held["unknown"]) == (["d00001"], ["nobody"])
    receipt = json.loads(call("forget", store, "c", "d00001", "--json").out)
    assert receipt["found"] == ["d00001"]
    order = json.loads(call("forget", store, "c", "d00001", "--allow", "--json").out)
    assert (order["action"], order["doc_ids"]) == ("allow", ["d00001"])
    kept = json.loads(call("vacuum", store, "c", "--dry-run", "--json").out)
    assert kept["removed"] is False
    shown = call("vacuum", store, "--retention-days", "0", "--dry-run").out
    listed = [line.split()[1] for line in shown.splitlines() if line.split()[1:2] and line.split()[1].startswith("/")]
    assert listed
    assert all(Path(path).is_file() for path in listed)


def test_sets_and_exports_speak_json(call: Call, built: Path, tmp_path: Path) -> None:
    store, queries = str(shutil.copytree(built, tmp_path / "store")), str(built.parent / "q.txt")
    added = json.loads(call("sets", "add", store, "c", "mine", queries, "--json").out)
    assert (added["name"], added["queries"], added["kind"]) == ("mine", 2, "unjudged")
    assert call("evaluate", store, "c", "--set", "mine").status == 2
    made = json.loads(call("sets", "make", store, "c", "pseudo", "--size", "20", "--json").out)
    assert made["kind"] == "pseudo"
    assert [one["name"] for one in json.loads(call("sets", "list", store, "c", "--json").out)] == ["mine", "pseudo"]
    measured = json.loads(call("evaluate", store, "c", "--set", "pseudo", "--json").out)
    assert 0.0 < measured["figures"]["all"]["nDCG@10"] <= 1.0
    compared = json.loads(call("compare", store, "c", "--against", "1", "--set", "pseudo", "--json").out)
    assert (compared["before"], compared["after"]) == (1, 2)
    exported = json.loads(call("export", store, "c", f"faiss:{tmp_path / 'index'}", "--json").out)
    assert exported["rows"] == 41
    assert json.loads(call("query-log", store, "c", "--json").out)["queries"] == 0
