from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from isospace.collection.alias import aliases
from isospace.collection.snapshot import sequences
from isospace.pipeline import resources
from isospace.pipeline.resources import forget_encoders
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


MODELS = {"torch", "openvino", "transformers", "sentence_transformers"}
OTHERS = {"prefect", "matplotlib", "sklearn", "scipy", "pandas", "polars", "faiss", "fastapi"}


def run_and_list_modules(config: Path, *arguments: str) -> tuple[dict[str, Any], set[str]]:
    """Run the command in a process of its own; return its report, and what it imported."""
    code = "import sys; from isospace.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(config), "--json", *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    return json.loads(done.stdout), set(done.stderr.splitlines()[-1].split())


def test_a_run_with_nothing_to_do_loads_no_model(call: Call, config: Path) -> None:
    assert call("run", str(config)).status == 0
    report, modules = run_and_list_modules(config)
    assert (report["encoded"], report["committed"]) == (0, False)
    assert "duckdb" in modules
    assert modules & (MODELS | OTHERS | {"bm25s"}) == set()


def test_a_run_with_a_change_loads_only_what_computes_it(call: Call, config: Path, tmp_path: Path) -> None:
    assert call("run", str(config)).status == 0
    write_jsonl(tmp_path / "d.jsonl", {**sentences(60), "new": "one more text"})
    report, modules = run_and_list_modules(config)
    assert (report["encoded"], report["committed"]) == (1, True)
    assert {"openvino", "tokenizers"} <= modules
    assert modules & (MODELS | OTHERS) == {"openvino"}


def test_a_run_that_only_removes_documents_loads_no_model_for_its_page(
    call: Call, config: Path, tmp_path: Path
) -> None:
    assert call("run", str(config)).status == 0
    write_jsonl(tmp_path / "d.jsonl", sentences(59))
    report, modules = run_and_list_modules(config, "--set", "runtime.report_chunks=1000")
    assert (report["removed"], report["committed"]) == (1, True)
    assert (tmp_path / "store" / "reports" / report["run_id"] / "report.html").is_file()
    assert "matplotlib" in modules
    assert modules & MODELS == set()


def contents(folder: Path) -> dict[str, tuple[int, int, str]]:
    """Return size, time, and content of all files but the reports of runs, and leases."""
    return {
        path.relative_to(folder).as_posix(): (
            path.stat().st_size, path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest()
        )
        for path in folder.rglob("*")
        if path.is_file() and not {"reports", "leases"} & set(path.relative_to(folder).parts)
    }  # fmt: skip


def test_a_run_with_nothing_to_do_writes_nothing_but_its_report(call: Call, config: Path, tmp_path: Path) -> None:
    assert call("run", str(config)).status == 0
    store = tmp_path / "store"
    before, reports = contents(store), set((store / "reports").iterdir())
    assert before
    assert call("run", str(config)).status == 0
    assert contents(store) == before
    (added,) = set((store / "reports").iterdir()) - reports
    # The quotes are of the input that could not be used.
    assert {path.name for path in added.iterdir()} == {"report.json", "quotes.json"}


def changed_byte(path: Path) -> None:
    """Change one byte, and keep size and time of the file."""
    data, stat = bytearray(path.read_bytes()), path.stat()
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_changed_model_is_noticed_by_a_run_with_nothing_else_to_do(
    call: Call, config: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "model")
    asked = ["run", str(config), "--set", f"recipe.encoder.model={model}", "--json"]
    first = json.loads(call(*asked).out)
    # The same size and time: only its content tells.
    changed_byte(next(model.rglob("*.safetensors")))
    second = json.loads(call(*asked).out)
    assert second["committed"]
    assert second["space_id"] != first["space_id"]
    assert second["encoded"] == first["encoded"]


@pytest.mark.parametrize("name", ["graph.bin", "reference.safetensors"])
def test_a_damaged_export_is_noticed_and_made_again_before_it_is_used(
    call: Call, config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    assert call("run", str(config)).status == 0
    changed_byte(export_file(tmp_path / "store", name))
    forget_encoders()
    write_jsonl(tmp_path / "d.jsonl", {**sentences(60), "new": "one more text"})
    done = call("run", str(config))
    assert done.status == 0, done.err
    assert f"{name}: has SHA-256" in caplog.text
    assert "is exported again" in caplog.text
    caplog.clear()
    forget_encoders()
    write_jsonl(tmp_path / "d.jsonl", sentences(59))
    assert call("run", str(config)).status == 0
    assert "SHA-256" not in caplog.text


def test_a_damaged_tokenizer_counts_no_text(call: Call, config: Path, tmp_path: Path) -> None:
    assert call("run", str(config)).status == 0
    changed_byte(export_file(tmp_path / "store", "tokenizer.json"))
    forget_encoders()
    resources._COUNTERS.clear()
    write_jsonl(tmp_path / "d.jsonl", {**sentences(60), "new": "one more text"})
    done = call("run", str(config))
    assert done.status == 1
    assert "tokenizer.json: has SHA-256" in done.err


def export_file(store: Path, name: str) -> Path:
    """Return a file of an export in the store; its record is beside the folders."""
    (path,) = [path for path in (store / "encoders").rglob(f"exports/*/*/{name}")]
    return path


def test_unchanged_files_are_read_again_on_request_only(
    call: Call, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files count as settled as soon as they are written, and nothing of this one is quarantined.
    monkeypatch.setattr("isospace.pipeline.scan.files._SETTLED_SECONDS", -60.0)
    source = Path(yaml.safe_load(config.read_text())["runtime"]["source"])
    write_jsonl(source, sentences(60))
    assert "not read again" not in call("run", str(config)).err
    assert "1 file not read again" in call("run", str(config)).err
    assert "not read again" not in call("run", str(config), "--read-everything").err
