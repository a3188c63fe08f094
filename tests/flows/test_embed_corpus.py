"""The flow itself, under Prefect: outcome, artifacts, errors, and kill -9."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from isospace.collection.snapshot import latest_manifest, sequences
from isospace.errors import FitError
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.search.open_index import open_index
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl

pytestmark = pytest.mark.usefixtures("prefect_server")


def artifacts(key: str) -> list[str]:
    import httpx
    from prefect.settings import get_current_settings

    body = {"limit": 50, "sort": "CREATED_DESC", "artifacts": {"key": {"any_": [key]}}}
    answer = httpx.post(f"{get_current_settings().api.url}/artifacts/filter", json=body, timeout=30)
    return [str(artifact["data"]) for artifact in answer.raise_for_status().json()]


@pytest.fixture
def told() -> Iterator[list[logging.LogRecord]]:
    """What reaches the logs of runs and of their tasks."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)


def test_the_flow_embeds_and_shows_what_it_did(
    configure: Configure, tmp_path: Path, told: list[logging.LogRecord]
) -> None:
    from flows.embed_corpus import embed_corpus

    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(120)), runtime={"shard_tokens": 900})
    report = embed_corpus(config)
    lines = Counter(record.__dict__.get("task_run_name") for record in told)
    # Each task says what it begins, and what it did.
    assert {"prepare encoder", "scan source", "encode shard 0", "commit snapshot", "write report"} <= set(lines)
    assert [name for name, count in lines.items() if count < 2] == []
    last = told[-1].getMessage()
    assert last.startswith("c: committed snapshot 1 (")
    assert "120 documents in 120 chunks, 120 texts encoded in " in last
    assert [r.getMessage() for r in told if re.search(r"Finished in state|\bNone\b|[0-9a-f]{64}", r.getMessage())] == []
    assert (report.documents, report.encoded, report.committed, report.promoted) == (120, 120, True, "production")
    again = embed_corpus(config)
    assert (again.encoded, again.committed, again.snapshot_id) == (0, False, report.snapshot_id)
    assert open_index(config.runtime.store, "c").search("the cell", k=3)[0]
    assert any("to encode | 120 texts" in text for text in artifacts("c-plan"))
    assert any("mean cosine" in text and "evenness" in text for text in artifacts("c-checks"))
    assert 100.0 in [float(text) for text in artifacts("c-encoding")]
    assert (Path(config.runtime.store) / "reports" / report.run_id / "report.json").is_file()


def test_an_error_is_itself_and_leaves_nothing_visible(
    configure: Configure, tmp_path: Path, told: list[logging.LogRecord]
) -> None:
    from flows.embed_corpus import embed_corpus

    transform = {"fit": {"kind": "zca"}}
    config = configure(write_jsonl(tmp_path / "d.jsonl", sentences(30)), recipe={"transform": transform})
    with pytest.raises(FitError, match="allow_small_sample") as raised:
        embed_corpus(config)
    # Once, in the task where it happened, without a traceback.
    (red,) = [record for record in told if record.levelno >= logging.ERROR]
    assert (red.__dict__["task_run_name"], red.getMessage(), red.exc_info) == ("plan encoding", str(raised.value), None)
    state = embed_corpus(config, return_state=True)
    assert (state.name, state.message) == ("Failed", str(raised.value))
    assert sequences(open_store(config.runtime.store), "c") == []


def command(config: PipelineConfig, folder: Path) -> tuple[list[str], dict[str, str]]:
    from prefect.settings import get_current_settings

    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    environment = {**os.environ, "PREFECT_API_URL": str(get_current_settings().api.url), "PYTHONPATH": str(Path.cwd())}
    return [sys.executable, "-m", "flows.embed_corpus", str(file)], environment


def test_the_command_line_says_what_is_wrong_in_one_line(configure: Configure, tmp_path: Path) -> None:
    for overrides, status, message in [
        ([], 1, "cannot be used"),
        (["--set", "recipe.colour=red"], 2, "unknown key recipe.colour"),
        (["--set", "runtime.source=/nowhere"], 1, "no such file or folder"),
        (["--set"], 2, "expected one argument"),
    ]:
        (tmp_path / "d.jsonl").write_text("this is not json\n")
        line, environment = command(configure(tmp_path / "d.jsonl"), tmp_path)
        result = subprocess.run(
            [*line, *overrides], env=environment, capture_output=True, text=True, check=False, timeout=180
        )
        assert result.returncode == status, result.stderr
        assert message in result.stderr
        assert "Traceback" not in result.stderr + result.stdout


def digests(store: Path) -> dict[str, str]:
    # A listing depends on when the source was listed.
    files = [p for p in store.rglob("*") if p.suffix in {".parquet", ".safetensors"}]
    kept = [p for p in files if not {"plans", "listings"} & set(p.parts)]
    return {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in kept}


def test_kill_9_and_the_same_command_again_end_where_an_undisturbed_run_does(
    configure: Configure, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", sentences(3000, words=30))
    runtime = {"shard_tokens": 8000, "part_documents": 400}
    undisturbed = configure(path, runtime={**runtime, "store": str(tmp_path / "undisturbed")})
    line, environment = command(undisturbed, tmp_path)
    started = time.monotonic()
    subprocess.run(line, env=environment, check=True, capture_output=True, timeout=300)
    duration = time.monotonic() - started
    expected = latest_manifest(open_store(tmp_path / "undisturbed"), "c")
    assert expected is not None

    disturbed = configure(path, runtime=runtime)
    line, environment = command(disturbed, tmp_path)
    chance = random.Random(11)
    for _ in range(3):
        process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(duration * chance.uniform(0.4, 0.95))
        process.send_signal(signal.SIGKILL)
        process.wait()
        store = open_store(disturbed.runtime.store)
        # Nothing half-written: either no snapshot, or a whole one.
        if sequences(store, "c"):
            assert open_index(store, "c", "1").manifest.documents == 3000
    subprocess.run(line, env=environment, check=True, capture_output=True, timeout=300)
    found = latest_manifest(open_store(disturbed.runtime.store), "c")
    assert found is not None
    assert found.snapshot_id == expected.snapshot_id
    assert [p.segment.sha256 for p in found.parts] == [p.segment.sha256 for p in expected.parts]
    assert digests(tmp_path / "store") == digests(tmp_path / "undisturbed")
    assert verify_snapshot(open_store(disturbed.runtime.store), "c").failures == ()
