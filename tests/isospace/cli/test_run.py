from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from isospace.collection.alias import aliases
from isospace.collection.snapshot import sequences
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import prepared
from tests.isospace.cli.conftest import Call


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> Path:
    """A configuration file, its source with one unreadable row, and a store that has the encoder."""
    source = write_jsonl(tmp_path / "d.jsonl", sentences(60))
    with source.open("a") as stream:
        stream.write('{"doc_id": "blank", "text": ""}\n')
    built = configure(source, runtime={"report_chunks": 0, "part_documents": 25})
    prepared(open_store(built.runtime.store), built)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(built.model_dump(mode="json")))
    return path


def test_a_run_shows_its_stages_and_names_what_was_quarantined(call: Call, config: Path) -> None:
    done = call("run", str(config))
    assert done.status == 0, done.err
    names = (
        "scan source", "chunk", "plan encoding", "encode", "fit space", "segment", "check vectors", "commit snapshot",
        "move alias",
    )  # fmt: skip
    for stage in names:
        assert f" {stage}: " in done.err, stage
    assert "c: committed snapshot 1" in done.out
    assert "blank" in done.out or "#61" in done.out
    assert "holds no text" in done.out
    report = next(line.split()[-1] for line in done.out.splitlines() if line.startswith("  report"))
    assert Path(report).is_file()
    again = call("run", str(config), "--json")
    body = json.loads(again.out)
    assert (body["encoded"], body["committed"], body["snapshot"]) == (0, False, 1)


def test_a_dry_run_writes_nothing(call: Call, config: Path, tmp_path: Path) -> None:
    done = call("run", str(config), "--dry-run")
    assert done.status == 0, done.err
    assert "60" in done.out
    assert sequences(open_store(tmp_path / "store"), "c") == []


def test_refit_and_backfill(call: Call, config: Path, tmp_path: Path) -> None:
    assert call("run", str(config)).status == 0
    refitted = call("refit", str(config), "--set", "recipe.transform.fit.kind=none", "--json")
    assert json.loads(refitted.out)["snapshot"] == 2
    write_jsonl(tmp_path / "d.jsonl", sentences(70))
    fit = ["--set", "recipe.transform.fit.kind=none"]
    first = call("backfill", str(config), *fit, "--doc-id", "d00061", "--doc-id", "d00062", "--json")
    assert json.loads(first.out)["encoded"] == 2
    other = call("backfill", str(config), *fit, "--uri", "*#d0006[45]", "--reason", "two more", "--json")
    assert json.loads(other.out)["encoded"] == 2
    assert aliases(open_store(tmp_path / "store"), "c")["production"].snapshot == 4


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--set", "recipe.colour=red"], 2, "unknown key recipe.colour"),
        (["--set", "runtime.source=/nonexistent"], 1, "no such file or folder"),
        (["--set", "recipe.transform.fit.kind=zca"], 1, "expected at least"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_visible(
    call: Call, config: Path, tmp_path: Path, arguments: list[str], status: int, message: str
) -> None:
    done = call("run", str(config), *arguments)
    assert done.status == status
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert sequences(open_store(tmp_path / "store"), "c") == []


def test_a_sample_too_small_is_refused_before_a_text_is_encoded(call: Call, config: Path) -> None:
    done = call(
        "run", str(config), "--set", "recipe.transform.fit.kind=zca", "--set", "recipe.transform.sample.min_ratio=9"
    )
    assert done.status == 1
    assert " plan encoding: " in done.err
    assert "encoded" not in done.err
    automatic = "recipe.transform.fit={kind: auto, candidates: [{kind: zca}]}"
    few = call("run", str(config), "--set", automatic, "--set", "runtime.source=" + str(few_documents(config.parent)))
    assert (few.status, "encoded" in few.err) == (1, False)
    assert "documents are needed" in few.err


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(28, "No space left on device"), 1, "No space left on device"),
        (ConnectionResetError("the server went away"), 1, "the server went away"),
    ],
)
def test_what_happens_to_the_machine_is_one_line(
    call: Call, config: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, message: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("isospace.pipeline.stages.scan_source", fail)
    done = call("run", str(config))
    assert done.status == status
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "the same command continues from here" in line


@pytest.mark.parametrize("command", [["plan"], ["run", "--dry-run"], ["run"]])
@pytest.mark.parametrize(
    ("fit", "documents", "message"),
    [
        ("{kind: zca}", 60, "expected at least"),
        ("{kind: center, means: by_role}", 5, "documents are needed"),
        ("{kind: auto, candidates: [{kind: center}]}", 5, "documents are needed"),
    ],
)
def test_a_plan_refuses_what_the_fit_would_refuse(
    call: Call, config: Path, command: list[str], fit: str, documents: int, message: str
) -> None:
    source = write_jsonl(config.parent / "some.jsonl", sentences(documents))
    done = call(*command, str(config), "--set", f"recipe.transform.fit={fit}", "--set", f"runtime.source={source}")
    assert done.status == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "encoded" not in done.err


def few_documents(folder: Path) -> Path:
    return write_jsonl(folder / "few.jsonl", sentences(5))


def test_a_run_with_nothing_to_do_loads_no_model(call: Call, config: Path) -> None:
    assert call("run", str(config)).status == 0
    code = "import sys; from isospace.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(config), "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert json.loads(done.stdout)["encoded"] == 0
    modules = set(done.stderr.splitlines()[-1].split())
    assert "duckdb" in modules
    assert modules & {"torch", "openvino", "transformers", "sentence_transformers", "prefect", "matplotlib"} == set()
