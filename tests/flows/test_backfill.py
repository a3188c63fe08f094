"""Backfills: portions within a budget, chosen documents, another recipe; the line is that of every run."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from isospace.collection.snapshot import latest_manifest, sequences
from isospace.operations.maintenance.verify import verify_snapshot
from isospace.pipeline.config import PipelineConfig
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run_report import RunReport
from isospace.pipeline.selection import Budget, Selection
from isospace.storage.store import open_store
from tests.conftest import Configure, sentences, write_jsonl
from tests.helpers.inline import embed_inline

pytestmark = pytest.mark.usefixtures("prefect_server")


def run(config: PipelineConfig, **options: object) -> RunReport:
    from flows.backfill import backfill

    report = backfill(config, **options)
    assert isinstance(report, RunReport)
    return report


@pytest.fixture
def grown(configure: Configure, tmp_path: Path) -> PipelineConfig:
    """Forty documents are embedded, sixty more are in the source, five of the old ones are gone."""
    config = configure(
        write_jsonl(tmp_path / "d.jsonl", sentences(40)), runtime={"part_documents": 10, "shard_tokens": 100}
    )
    embed_inline(config)
    kept = dict(list(sentences(100).items())[5:])
    write_jsonl(tmp_path / "d.jsonl", kept)
    return config


def test_a_budget_leaves_the_rest_to_the_next_run(grown: PipelineConfig) -> None:
    store = open_store(grown.runtime.store)
    documents, left, encoded = [], [], 0
    for _ in range(20):
        report = run(grown, budget=Budget(tokens=500))
        assert verify_snapshot(store, "c").failures == ()
        documents.append(report.documents)
        left.append(report.left)
        encoded += report.encoded
        if not report.left:
            break
    assert len(left) > 2
    assert left == sorted(left, reverse=True)
    assert documents == sorted(documents)
    assert documents[-1] == 95
    # Nothing was encoded twice.
    assert encoded == 60
    again = run(grown)
    assert (again.committed, again.encoded, again.documents) == (False, 0, 95)


def test_it_ends_where_a_run_over_everything_does(grown: PipelineConfig, tmp_path: Path) -> None:
    while run(grown, budget=Budget(tokens=600)).left:
        pass
    whole = grown.model_copy(update={"runtime": grown.runtime.model_copy(update={"collection": "whole"})})
    write_jsonl(tmp_path / "d.jsonl", sentences(40))
    embed_inline(whole)
    write_jsonl(tmp_path / "d.jsonl", dict(list(sentences(100).items())[5:]))
    embed_inline(whole)
    ids = [
        manifest.snapshot_id
        for name in ("c", "whole")
        if (manifest := latest_manifest(open_store(grown.runtime.store), name))
    ]
    assert ids[0] == ids[1]


def test_another_recipe_is_committed_whole(grown: PipelineConfig) -> None:
    store = open_store(grown.runtime.store)
    chunking = grown.recipe.chunking.model_copy(update={"include_title": False})
    other = grown.model_copy(update={"recipe": grown.recipe.model_copy(update={"chunking": chunking})})
    first = run(other, budget=Budget(tokens=500))
    assert (first.committed, first.snapshot, first.documents) == (False, 1, 40)
    assert first.left > 0
    assert "unfinished" in first.warnings[0]
    assert sequences(store, "c") == [1]
    encoded = first.encoded
    for _ in range(20):
        report = run(other, budget=Budget(tokens=800))
        encoded += report.encoded
        if not report.left:
            break
    assert (report.committed, report.documents, encoded) == (True, 95, 95)
    assert verify_snapshot(store, "c").failures == ()


def test_chosen_documents_alone(grown: PipelineConfig) -> None:
    report = run(grown, selection=Selection(doc_ids=("d00000", "d00050", "d00051")), reason="asked for")
    assert (report.encoded, report.documents) == (2, 41)


def test_a_dry_run_writes_nothing(grown: PipelineConfig) -> None:
    from flows.backfill import backfill

    store = open_store(grown.runtime.store)
    before = {stat.path for stat in store.walk("")}
    plan = backfill(grown, selection=Selection(uri="*#d0009*"), dry_run=True)
    assert isinstance(plan, PlanReport)
    assert (plan.added, plan.texts_to_encode) == (10, 10)
    assert {stat.path for stat in store.walk("")} == before


def test_a_nightly_and_a_backfill_take_turns_and_lose_nothing(grown: PipelineConfig) -> None:
    from flows.backfill import backfill
    from flows.embed_corpus import embed_corpus

    reports: list[object] = []

    def timed(flow: object, *arguments: object, **options: object) -> None:
        report = flow(*arguments, **options)  # type: ignore[operator]
        reports.append(report)

    threads = [
        threading.Thread(target=timed, args=(backfill, grown), kwargs={"selection": Selection(uri="*#d0009*")}),
        threading.Thread(target=timed, args=(embed_corpus, grown)),
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert len(reports) == 2
    store = open_store(grown.runtime.store)
    manifest = latest_manifest(store, "c")
    assert manifest is not None
    assert manifest.documents == 95
    assert sum(report.encoded for report in reports if isinstance(report, RunReport)) == 60
    assert verify_snapshot(store, "c").failures == ()
    assert list(store.walk("leases")) == []


def test_a_suspended_run_stops_and_a_resumed_one_goes_on(
    grown: PipelineConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.exceptions import Pause
    from prefect.states import Suspended

    from tasks import executor, lanes

    store = open_store(grown.runtime.store)
    before = len(list(store.walk("vectors")))

    def suspended() -> None:
        if len(list(store.walk("vectors"))) > before + 2:
            raise Pause("the run was suspended", state=Suspended())

    with monkeypatch.context() as patched:
        patched.setattr(lanes, "_ASKING_SECONDS", 0.01)
        patched.setattr(executor, "_stop_if_suspended", suspended)
        with pytest.raises(Pause):
            run(grown)
    assert sequences(store, "c") == [1]
    assert list(store.walk("leases")) == []
    report = run(grown)
    assert (report.documents, report.committed) == (95, True)
    assert 0 < report.encoded < 60
