"""The command as a user calls it: a process, its output, its exit status."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

COMMANDS = ["plan", "status", "show", "search", "verify", "promote", "rollback"]


def isospace(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from isospace.cli.main import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS)], ids=" ".join)
def test_help_everywhere(arguments: list[str]) -> None:
    result = isospace(*arguments)
    assert result.returncode == 0
    assert "Usage" in result.stdout


def test_every_command(configure: Configure, tmp_path: Path) -> None:
    documents = sentences(30)
    path = write_jsonl(tmp_path / "d.jsonl", documents)
    config = configure(path, recipe={"chunking": {"include_title": False, "overlap_tokens": 4}})
    store = config.runtime.store
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    planned = isospace("plan", str(file), "--json")
    assert json.loads(planned.stdout)["texts_to_encode"] == 30
    embed_inline(config)
    write_jsonl(path, documents | {"new": "one more text"})
    embed_inline(config)

    status = json.loads(isospace("status", store, "--json").stdout)
    assert [(row["snapshot"], row["aliases"]) for row in status] == [(1, []), (2, ["production"])]
    assert json.loads(isospace("show", store, "c").stdout)["sequence"] == 2
    found = json.loads(isospace("search", store, "c", documents["d00005"], "-k", "2", "--json").stdout)
    assert found["results"][0]["hits"][0]["doc_id"] == "d00005"
    assert "d00005" in isospace("search", store, "c", documents["d00005"], "-k", "1").stdout
    assert isospace("verify", store, "c").returncode == 0
    assert "production is now snapshot 1" in isospace("rollback", store, "c", "--reason", "test").stdout
    assert (
        "staging is now snapshot 2" in isospace("promote", store, "c", "--snapshot", "2", "--alias", "staging").stdout
    )
    assert "c" in isospace("status", store, "c").stdout

    victim = next((tmp_path / "store").rglob("segments/*/*.parquet"))
    data = bytearray(victim.read_bytes())
    data[100] ^= 1
    victim.write_bytes(data)
    result = isospace("verify", store, "c", "--snapshot", "staging")
    assert result.returncode == 1
    assert victim.name in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["status", "/nonexistent/store"], 1, "holds no collection"),
        (["search", "/nonexistent/store", "c", "query"], 1, "no snapshot"),
        (["search", "/nonexistent/store", "c"], 2, "QUERY"),
        (["search", "/nonexistent/store", "c", "x", "-k", "0"], 2, "-k"),
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
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_failures_are_one_line_and_an_exit_status(arguments: list[str], status: int, message: str) -> None:
    result = isospace(*arguments)
    assert result.returncode == status
    assert message in result.stderr
    assert "Traceback" not in result.stderr
