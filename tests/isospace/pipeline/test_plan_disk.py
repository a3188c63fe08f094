"""What a plan says of the disk before and after a run, and what is there afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from isospace.collection.disk_usage import disk_usage
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_disk import DiskPlan
from isospace.pipeline.plan_report import PlanReport, plan_only
from isospace.search.serving_memory import ServingMemory
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline


def planned(config: PipelineConfig) -> DiskPlan:
    report = plan_only(config)
    assert report.disk is not None
    return report.disk


def test_a_plan_foresees_what_a_run_leaves(configure: Configure, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "d.jsonl", sentences(200, words=24))
    config = configure(source, recipe={"transform": {"representations": ["float32", "int8"]}})
    store = open_store(config.runtime.store)
    foreseen = planned(config)
    assert dict(foreseen.before) == {}
    seen: list[PlanReport] = []
    from unittest.mock import patch

    from isospace.pipeline import stages

    def noted(*arguments: object) -> PlanReport:
        seen.append(real(*arguments))  # type: ignore[arg-type]
        return seen[-1]

    real = stages.report_plan
    with patch.object(stages, "report_plan", noted):
        embed_inline(config)
    actual = disk_usage(store, "c")
    # Of files this small, headers are a large part.
    for kind in ("raw vectors", "segments", "documents and chunks", "encoders"):
        assert foreseen.after[kind] == pytest.approx(actual[kind], rel=0.6), kind
    # The run has written its documents and chunks when it plans: they are not there before it, and counted once.
    (report,) = seen
    assert report.disk is not None
    assert report.disk.before.get("documents and chunks", 0) == 0
    assert report.disk.after["documents and chunks"] == foreseen.after["documents and chunks"]

    unchanged = planned(config)
    assert unchanged.before == unchanged.after == {kind: size for kind, size in actual.items() if size}
    write_jsonl(source, sentences(220, words=24))
    grown = planned(config)
    rise = grown.after["raw vectors"] - grown.before["raw vectors"]
    assert rise == 20 * 4 * 16
    assert grown.after["segments"] - grown.before["segments"] == 20 * (4 * 16 + 16)
    assert grown.after["encoders"] == grown.before["encoders"]
    # Search files are built anew for every snapshot, and the earlier ones stay until a vacuum.
    assert grown.after["search files"] > grown.before["search files"] > 0
    assert grown.memory.vectors == 220 * 4 * 16


def test_rows_say_what_is_there_now_and_after_the_run() -> None:
    memory = ServingMemory(200_000_000, 0, 3_000_000)
    disk = DiskPlan(
        {"segments": 1_000, "reports": 5}, {"segments": 3_500, "reports": 5, "raw vectors": 12_300_000}, memory
    )
    assert disk.rows() == [
        ("disk, segments", "1.0 kB now, about 3.5 kB after the run"),
        ("disk, reports", "5 bytes"),
        ("disk, raw vectors", "about 12.3 MB after the run"),
        ("disk in all", "1.0 kB now, about 12.3 MB after the run"),
        ("memory to serve", "about 203.0 MB: libraries 200.0 MB, vectors 3.0 MB"),
    ]
