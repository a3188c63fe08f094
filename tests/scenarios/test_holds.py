"""A held alias: every kind of run commits and leaves it, says so everywhere, and moves it after the release."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from isospace.collection.alias import aliases, hold, release, rollback
from isospace.collection.status import list_snapshots
from isospace.operations.maintenance.compact import compact_collection
from isospace.operations.maintenance.forget import forget
from isospace.pipeline import commit, embed
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.outcome import concluding_line, outcome
from isospace.pipeline.run_report import RunReport, run_markdown
from isospace.pipeline.selection import Budget
from isospace.storage.store import Store, open_store
from isospace.transform.spec import TransformSpec
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


@pytest.fixture
def config(configure: Configure, tmp_path: Path) -> PipelineConfig:
    return configure(tmp_path / "d.jsonl", runtime={"report_chunks": 0})


def grown(config: PipelineConfig, count: int) -> RunReport:
    write_jsonl(Path(config.runtime.source), sentences(count))
    return embed_inline(config)


def production(store: Store) -> int:
    return aliases(store, "c")["production"].snapshot


def test_no_run_moves_what_was_rolled_back_until_it_is_released(
    config: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(config.runtime.store)
    for count in (30, 31):
        grown(config, count)
    rollback(store, "c", "production", reason="worse", author="anna")
    with caplog.at_level(logging.WARNING, "isospace"):
        report = grown(config, 32)
    said = "production is held at 1: worse (by anna, "
    assert (report.snapshot, report.committed, report.promoted) == (3, True, None)
    assert any(message.startswith(said) for message in caplog.messages)
    for text in (report.held, run_markdown(report), outcome(report, store)):
        # A sentence of its own begins with a capital letter.
        assert said[1:] in text
        assert f"; release it with `isospace release {store.url} c`" in text
    assert [len(one.held) for one in list_snapshots(store, "c")] == [1, 0, 0]

    other = TransformSpec.model_validate({"representations": ["int8"]})
    changed = config.model_copy(update={"recipe": config.recipe.model_copy(update={"transform": other})})
    refitted = embed.refit_space(changed)
    assert (refitted.committed, refitted.promoted, refitted.held[: len(said)]) == (True, None, said)
    write_jsonl(Path(config.runtime.source), sentences(34))
    filled = embed.backfill(changed, budget=Budget(tokens=10_000))
    assert (filled.committed, filled.promoted, filled.held[: len(said)]) == (True, None, said)
    assert production(store) == 1

    release(store, "c", "production")
    unchanged = embed_inline(changed)
    assert (unchanged.committed, unchanged.promoted, unchanged.held) == (False, "production", "")
    assert production(store) == filled.snapshot


def test_a_run_says_why_it_does_not_bring_back_what_was_rolled_back(
    config: PipelineConfig, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(config.runtime.store)
    for count in (30, 31, 32):
        grown(config, count)
    rollback(store, "c", "production", reason="worse", hold=False)
    # The source as it was; and once more as a snapshot of its own, after another one.
    for current, number in ((2, 3), (4, 5)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "isospace"):
            report = grown(config, 32)
        said = f"production stays at {current}: snapshot {number} has content that was rolled back; promote it yourself"
        said += f": `isospace promote {store.url} c --snapshot {number} --reason '…'`"
        assert (report.snapshot, report.promoted, report.held, report.stays) == (number, None, "", said)
        assert said in caplog.messages
        for text in (outcome(report, store), concluding_line(report), run_markdown(report)):
            # A sentence of its own begins with a capital letter.
            assert said[1:] in text
        assert replace(report, warnings=()).tone == "plain"
        moved = grown(config, 31)
        assert (moved.promoted, moved.stays) == ("production", "")
    unchanged = grown(config, 31)
    assert (unchanged.promoted, unchanged.stays) == (None, "")
    assert "  alias      unchanged" in outcome(unchanged, store)


def test_a_hold_that_comes_while_a_run_is_at_its_end_is_kept(config: PipelineConfig) -> None:
    store = open_store(config.runtime.store)
    grown(config, 30)
    real = commit.promotion_problem

    def late(*arguments: object) -> str:
        hold(store, "c", "production", reason="stop")
        return real(*arguments)  # type: ignore[arg-type]

    with patch("isospace.pipeline.commit.promotion_problem", late):
        report = grown(config, 31)
    assert (report.snapshot, report.promoted) == (2, None)
    assert report.held.startswith("production is held at 1: stop (by ")
    assert production(store) == 1


def test_a_hold_outlives_a_compaction_and_an_erasure(config: PipelineConfig, tmp_path: Path) -> None:
    store = open_store(config.runtime.store)
    for count in (30, 31):
        grown(config, count)
    hold(store, "c", "production", reason="fair", author="anna")
    assert compact_collection(store, "c").aliases == ("production",)
    forget(store, "c", ["d00003"], tmp_path / "scratch", reason="asked")
    (kept,) = [one for one in list_snapshots(store, "c") if one.held]
    assert (kept.snapshot, kept.documents) == (3, 30)
    assert kept.held[0].startswith("production is held at 3: fair (by anna, ")
    assert grown(config, 33).promoted is None
    assert production(store) == 3
