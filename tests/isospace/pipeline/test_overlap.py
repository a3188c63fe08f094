"""Runs that encode the first parts while others are chunked."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import isospace.pipeline.encode.workers.pool as pool
from isospace.collection.snapshot import latest_manifest, sequences
from isospace.errors import CheckError
from isospace.pipeline import overlap, stages
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.encode import waves
from isospace.pipeline.parallel import background
from isospace.pipeline.run_report import RunReport
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

DOCUMENTS = 90
# Parts of ten documents; some texts are in several.
PARTS = 9


@pytest.fixture
def source(tmp_path: Path) -> Path:
    texts = sentences(DOCUMENTS)
    names = list(texts)
    for repeated in range(5, DOCUMENTS, 11):
        texts[names[repeated]] = texts[names[0]]
    return write_jsonl(tmp_path / "d.jsonl", texts)


@pytest.fixture
def config(configure: Configure, source: Path, encoder_store: Path, tmp_path: Path) -> PipelineConfig:
    return in_store("store", configure, source, encoder_store, tmp_path)


def in_store(name: str, configure: Configure, source: Path, encoder_store: Path, tmp_path: Path) -> PipelineConfig:
    shutil.copytree(encoder_store, tmp_path / name)
    runtime = {"store": str(tmp_path / name), "part_documents": DOCUMENTS // PARTS, "shard_tokens": 100}
    return configure(source, recipe={"transform": {"fit": {"kind": "none"}}}, runtime=runtime)


@pytest.fixture
def small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waves, "FIRST_BYTES", 1)


def vectors(config: PipelineConfig) -> dict[str, bytes]:
    root = Path(config.runtime.store) / "vectors"
    return {path.name: path.read_bytes() for path in root.rglob("*.parquet")}


def snapshot_id(config: PipelineConfig) -> str:
    manifest = latest_manifest(open_store(config.runtime.store), "c")
    assert manifest is not None
    return manifest.snapshot_id


def counted(report: RunReport) -> tuple[int, ...]:
    return report.documents, report.chunks, report.encoded, report.tokens, report.reused


def test_encoding_begins_before_the_last_part_is_chunked_and_changes_nothing(
    config: PipelineConfig,
    configure: Configure,
    source: Path,
    encoder_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = embed_inline(config)
    monkeypatch.setattr(waves, "FIRST_BYTES", 1)
    begun, chunked = threading.Event(), Counter[str]()
    real_encode, real_chunk = pool.encode_shard, stages.write_chunks

    def encode(*arguments: Any) -> Any:
        begun.set()
        return real_encode(*arguments)

    def chunk(run: Any, documents: Any, counter: Any) -> Any:
        chunked["begun"] += 1
        if chunked["begun"] == PARTS:
            assert begun.wait(120), "the last part is chunked, and no text is encoded yet"
        return real_chunk(run, documents, counter)

    monkeypatch.setattr(pool, "encode_shard", encode)
    monkeypatch.setattr(stages, "write_chunks", chunk)
    other = in_store("other", configure, source, encoder_store, tmp_path)
    report = embed_inline(other)
    assert snapshot_id(other) == snapshot_id(config)
    assert counted(report) == counted(expected)


def test_a_run_that_continues_a_failed_one_ends_with_the_same_files(
    config: PipelineConfig,
    configure: Configure,
    source: Path,
    encoder_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_waves: None,
) -> None:
    embed_inline(config)
    other = in_store("other", configure, source, encoder_store, tmp_path)
    real, encoded = pool.encode_shard, Counter[str]()

    def failing(*arguments: Any) -> Any:
        encoded["shards"] += 1
        if encoded["shards"] % 7 == 0:
            raise CheckError("the seventh shard")
        return real(*arguments)

    monkeypatch.setattr(pool, "encode_shard", failing)
    for _ in range(50):
        try:
            embed_inline(other)
        except CheckError:
            assert sequences(open_store(other.runtime.store), "c") == []
        else:
            break
    assert encoded["shards"] > 7
    assert vectors(other) == vectors(config)
    assert snapshot_id(other) == snapshot_id(config)


@pytest.mark.parametrize("where", ["chunk", "plan", "encode"])
def test_a_failure_in_one_of_the_stages_ends_them_all(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, small_waves: None, where: str
) -> None:
    seen = Counter[str]()
    name = {"chunk": "write_chunks", "plan": "plan_shards", "encode": "encode_shard"}[where]
    module = pool if where == "encode" else stages
    real = getattr(module, name)

    def failing(*arguments: Any, **keywords: Any) -> Any:
        seen[where] += 1
        if seen[where] == 4:
            raise CheckError(f"the fourth {where}")
        return real(*arguments, **keywords)

    monkeypatch.setattr(module, name, failing)
    before = threading.active_count()
    with pytest.raises(CheckError, match=f"the fourth {where}"):
        embed_inline(config)
    assert threading.active_count() <= before
    monkeypatch.setattr(module, name, real)
    assert embed_inline(config).documents == DOCUMENTS


def test_a_failure_is_noticed_while_the_next_wave_is_planned(
    config: PipelineConfig, monkeypatch: pytest.MonkeyPatch, small_waves: None
) -> None:
    noticed, waves_planned = threading.Event(), Counter[str]()
    real = stages.plan_shards

    class Watched(background.Background[Any]):
        def __exit__(self, *raised: object) -> None:
            noticed.set()
            super().__exit__(*raised)

    def slow(*arguments: Any, **keywords: Any) -> Any:
        waves_planned["begun"] += 1
        if waves_planned["begun"] == 2:
            assert noticed.wait(30), "the failure waits for the next wave"
        return real(*arguments, **keywords)

    def failing(*_: Any) -> Any:
        raise CheckError("a shard")

    monkeypatch.setattr(overlap, "Background", Watched)
    monkeypatch.setattr(stages, "plan_shards", slow)
    monkeypatch.setattr(pool, "encode_shard", failing)
    # One shard in each wave, so that there is room for more while it is encoded.
    runtime = config.runtime.model_copy(update={"shard_tokens": 100_000})
    with pytest.raises(CheckError, match="a shard"):
        embed_inline(config.model_copy(update={"runtime": runtime}))
    assert waves_planned["begun"] == 2


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which stages planned."""
    names: list[str] = []
    for name in ("PLAN", "PLAN_WAVE"):
        stage = getattr(stages, name)

        def work(*arguments: Any, stage: Any = stage, **keywords: Any) -> Any:
            names.append(stage.name)
            return stage.work(*arguments, **keywords)

        monkeypatch.setattr(stages, name, replace(stage, work=work))
    return names


@pytest.mark.parametrize("runtime", [{"budget": {"tokens": 10_000}}, {"mixed_bits": "refuse"}])
def test_what_has_to_be_known_before_is_planned_before(
    config: PipelineConfig, planned: list[str], small_waves: None, runtime: dict[str, Any]
) -> None:
    changed = PipelineConfig.model_validate(config.model_dump() | {"runtime": config.runtime.model_dump() | runtime})
    assert embed_inline(changed).documents == DOCUMENTS
    assert planned == ["plan encoding"]


def test_a_fit_that_the_first_wave_is_too_small_for_waits_for_all(
    config: PipelineConfig, planned: list[str], small_waves: None
) -> None:
    fitted = config.recipe.model_dump() | {
        "transform": {"fit": {"kind": "all_but_the_top"}, "sample": {"min_ratio": 1.0}}
    }
    changed = PipelineConfig.model_validate({"recipe": fitted, "runtime": config.runtime.model_dump()})
    assert embed_inline(changed).documents == DOCUMENTS
    assert planned == ["plan wave", "plan encoding"]
