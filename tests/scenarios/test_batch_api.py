"""Documents through a Batch API: a batch expires, another fails in part, the run is killed, and the result is whole."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from isospace.collection.raw_vectors import read_vectors
from isospace.collection.snapshot import latest_manifest
from isospace.collection.vector_files import vector_parts
from isospace.encoding.engine import Engine
from isospace.encoding.registry.register import prepare_encoder
from isospace.encoding.spec import EndpointSpec, ServedEncoderSpec
from isospace.pipeline import embed
from isospace.pipeline.batch_stage import ENCODE_BATCHES
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.local_executor import LocalExecutor, LogReporter
from isospace.pipeline.run_report import RunReport
from isospace.storage.store import open_store
from tests.helpers.batch_provider import BatchProvider, Fate
from tests.helpers.documents import sentences, write_jsonl

# Whole runs of some seconds each.
pytestmark = pytest.mark.integration

DOCUMENTS = sentences(40)
REFUSED = "d00007"
ENCODER = {"kind": "served", "protocol": "openai", "model": "fake-1", "max_tokens": 512}
SIZES: dict[str, Any] = {"poll_seconds": 0.001, "max_texts": 14, "request_texts": 4, "price_per_million_tokens": 500.0}
BUSY = {"status_code": 503, "request_id": "r", "body": {"error": {"message": "overloaded", "type": "server_error"}}}


class Killed(BaseException):
    """Ends a run at a place where it waits, as a kill would."""


class Watching(LogReporter):
    """Keeps what was said, and calls a function while the run waits."""

    def __init__(self, while_waiting: Callable[[], object] = lambda: None) -> None:
        self.lines: list[str] = []
        self.while_waiting = while_waiting

    def info(self, message: str) -> None:
        self.lines.append(message)

    def warning(self, message: str) -> None:
        self.lines.append(message)

    def progress(self, stage: str, done: float, total: float, detail: str) -> None:
        self.while_waiting()


@pytest.fixture
def provider() -> Iterator[BatchProvider]:
    with BatchProvider(key="sk-secret-of-batches") as running:
        yield running


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that has the encoder, whose registration takes longer than a run."""
    folder = tmp_path_factory.mktemp("registered")
    with BatchProvider() as other:
        engine = Engine(endpoint=EndpointSpec(url=other.url("openai")))
        prepare_encoder(open_store(folder), ServedEncoderSpec.model_validate(ENCODER), engine)
    return folder


@pytest.fixture
def configured(
    tmp_path: Path, provider: BatchProvider, monkeypatch: pytest.MonkeyPatch, registered: Path
) -> Callable[..., Any]:
    monkeypatch.setenv("BATCH_KEY", "sk-secret-of-batches")
    write_jsonl(tmp_path / "d.jsonl", DOCUMENTS)

    def build(store: str = "store", *, batch: dict[str, Any] | None = None, **runtime: Any) -> PipelineConfig:
        if not (tmp_path / store).exists():
            shutil.copytree(registered, tmp_path / store)
        endpoint = {
            "url": provider.url("openai"),
            "key_env": "BATCH_KEY",
            "deadline_seconds": 1.5,
            "price_per_million_tokens": 1000.0,
            "batch": SIZES if batch is None else {**SIZES, **batch},
        }
        return PipelineConfig.model_validate(
            {
                "recipe": {
                    "encoder": ENCODER,
                    "chunking": {"kind": "none"},
                    "transform": {"representations": ["float32"], "fit": {"kind": "none"}},
                    "lexical": {"kind": "none"},
                },
                "runtime": {
                    "store": str(tmp_path / store),
                    "collection": "c",
                    "source": str(tmp_path / "d.jsonl"),
                    "shard_tokens": 200,
                    "report_chunks": 0,
                    "endpoint": endpoint,
                    **runtime,
                },
            }
        )

    return build


def run(config: PipelineConfig, reporter: LogReporter | None = None) -> RunReport:
    return embed.embed_corpus(config, LocalExecutor(reporter or LogReporter()))


def snapshot_of(config: PipelineConfig) -> str:
    manifest = latest_manifest(open_store(config.runtime.store), "c")
    assert manifest is not None
    return manifest.snapshot_id


def raw_vectors(config: PipelineConfig) -> dict[bytes, np.ndarray]:
    store = open_store(config.runtime.store)
    encoder_id = next(iter(store.folders("vectors")))
    found: dict[bytes, np.ndarray] = {}
    for path in vector_parts(store, encoder_id):
        hashes, vectors = read_vectors(store, path, encoder_id)
        found |= dict(zip(hashes, vectors, strict=True))
    return found


def files_of(config: PipelineConfig, ending: str = ".json") -> list[str]:
    store = open_store(config.runtime.store)
    return [stat.path for stat in store.walk("collections/c/plans/batches") if stat.path.endswith(ending)]


def test_a_batch_expires_another_fails_in_part_and_a_killed_run_pays_nothing_twice(
    provider: BatchProvider, configured: Callable[..., PipelineConfig]
) -> None:
    refused = DOCUMENTS[REFUSED]
    provider.rejects = lambda text: "flagged" if refused in text else None
    usual = configured("usual", batch={"enabled": False})
    run(usual)

    provider.fates = [
        Fate(),
        Fate("expired", expired=lambda number: number > 0),
        Fate(failing=lambda number: BUSY if number == 1 else None),
    ]
    provider.held = True
    config = configured()

    def kill() -> None:
        states = [stored.answer["status"] for stored in provider.batches.values()]
        if "in_progress" in states and set(states) == {"in_progress"}:
            raise Killed

    first = Watching(kill)
    with pytest.raises(Killed):
        run(config, first)
    plan = embed.plan_run(config)
    assert (plan.texts_to_encode, plan.under_way, plan.money) == (40, 40, 0.0)
    submitted = provider.calls["POST batches"]
    assert submitted == len(provider.batches) == len(files_of(config)) > 3

    provider.held = False
    second = Watching()
    report = run(config, second)
    # Expired requests, the failed one, and that with the refused text were submitted again, and nothing else.
    again = list(provider.batches.values())[submitted:]
    assert {line["body"]["model"] for stored in again for line in stored.lines} == {"fake-1"}
    counted = {text: times for text, times in provider.paid.items() if text in DOCUMENTS.values()}
    assert set(counted.values()) == {1}
    assert counted.keys() == set(DOCUMENTS.values()) - {refused}
    assert provider.calls["POST batches"] == len(provider.batches)
    assert (report.encoded, report.quarantined, report.left) == (39, 1, 0)
    assert report.billed_tokens == provider.billed
    assert report.money == pytest.approx(500.0 * provider.billed / 1e6)
    # The same vectors and the same snapshot as through single requests; nothing stays at the provider or in the store.
    assert snapshot_of(config) == snapshot_of(usual)
    expected = raw_vectors(usual)
    assert expected.keys() == raw_vectors(config).keys()
    assert all(np.array_equal(vector, expected[key]) for key, vector in raw_vectors(config).items())
    assert provider.files == {}
    assert [path for path in files_of(config) if "refused" not in path] == []
    said = " ".join([*first.lines, *second.lines])
    for word in ("submitted batch_1:", "batch_2 is expired", "continues to wait for", "flagged"):
        assert word in said
    assert "sk-secret" not in said
    # Waiting takes no slot of a concurrency limit.
    assert ENCODE_BATCHES.tags == ()
    # The next run has nothing to do.
    calls = provider.calls["POST batches"]
    assert run(config).encoded == 0
    assert provider.calls["POST batches"] == calls


@pytest.mark.integration
def test_a_process_that_is_killed_while_it_waits_pays_nothing_twice(
    provider: BatchProvider, configured: Callable[..., PipelineConfig], tmp_path: Path
) -> None:
    provider.held = True
    config = configured()
    file = tmp_path / "config.json"
    file.write_text(config.model_dump_json())
    code = (
        "import pathlib, sys; from isospace.pipeline import config, embed;"
        "embed.embed_corpus(config.PipelineConfig.model_validate_json(pathlib.Path(sys.argv[1]).read_text()))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file)])
    try:
        while not (states := {one.answer["status"] for one in provider.batches.values()}) or states != {"in_progress"}:
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    submitted = len(provider.batches)
    provider.held = False
    report = run(config)
    assert (report.documents, report.encoded, len(provider.batches)) == (40, 40, submitted)
    assert {times for text, times in provider.paid.items() if text in DOCUMENTS.values()} == {1}
    assert provider.files == {}


def test_a_plan_shows_the_price_of_batches_and_their_time(
    provider: BatchProvider, configured: Callable[..., PipelineConfig]
) -> None:
    plan = embed.plan_run(configured())
    rows = dict(plan.rows())
    assert plan.money == pytest.approx(500.0 * plan.tokens / 1e6)
    assert "at 500 per million tokens (runtime.endpoint.batch.price_per_million_tokens)" in rows["cost"]
    assert rows["encoding time"].startswith("up to 24h in batches")
    # Without a price of batches, that of single requests is the most that it can cost.
    other = embed.plan_run(configured(batch={"price_per_million_tokens": None}))
    assert other.money == pytest.approx(1000.0 * plan.tokens / 1e6)
    assert "(runtime.endpoint.price_per_million_tokens)" in dict(other.rows())["cost"]
    assert provider.calls["POST batches"] == 0


def test_a_budget_of_money_counts_the_price_of_batches_and_the_next_run_goes_on(
    provider: BatchProvider, configured: Callable[..., PipelineConfig]
) -> None:
    whole = embed.plan_run(configured()).money or 0.0
    first = run(configured(budget={"money": 0.6 * whole}, part_documents=5))
    assert 0 < first.encoded < 40
    assert first.left == 40 - first.encoded
    assert first.money is not None
    assert first.money <= 0.6 * whole
    second = run(configured(part_documents=5))
    assert (second.documents, second.encoded, second.left) == (40, 40 - first.encoded, 0)
    assert {times for text, times in provider.paid.items() if text in DOCUMENTS.values()} == {1}


def test_single_requests_warn_of_batches_that_are_under_way(
    provider: BatchProvider, configured: Callable[..., PipelineConfig]
) -> None:
    provider.held = True
    with pytest.raises(Killed):
        run(configured(), Watching(lambda: _kill_if(bool(provider.batches))))
    reporter = Watching()
    run(configured(batch={"enabled": False}), reporter)
    assert any("Their texts are sent again now, and paid twice" in line for line in reporter.lines)


def _kill_if(condition: bool) -> None:
    if condition:
        raise Killed


@pytest.mark.parametrize(
    ("recipe", "runtime", "message"),
    [
        ({"protocol": "tei"}, {}, r"runtime.endpoint.batch is for recipe.encoder.protocol=openai, and here .*tei"),
        ({}, {"budget": {"minutes": 5}}, r"runtime.budget.minutes = 5: batches are submitted at once"),
        ({}, {"budget": {"money": 5}}, r"price is unknown; set runtime.endpoint"),
    ],
)
def test_what_batches_cannot_do_is_refused(recipe: dict[str, Any], runtime: dict[str, Any], message: str) -> None:
    encoder = {"kind": "served", "protocol": "openai", "model": "m", "max_tokens": 512, **recipe}
    where = {"store": "s", "collection": "c", "source": "d", "endpoint": {"url": "http://h", "batch": {}}, **runtime}
    with pytest.raises(ValidationError, match=message):
        PipelineConfig.model_validate({"recipe": {"encoder": encoder}, "runtime": where})
    where["endpoint"] = {"url": "http://h", "batch": {"enabled": False}, "price_per_million_tokens": 1.0}
    PipelineConfig.model_validate({"recipe": {"encoder": encoder}, "runtime": where})
