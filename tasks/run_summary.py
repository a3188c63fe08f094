"""What a run did and spent, as its last task tells it."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from isospace.encoding.throughput import record_rate
from isospace.evaluation.gate.verdicts import Verdict
from isospace.evaluation.reports.page import write_page
from isospace.operations.audit.run_page import run_page
from isospace.pipeline.checks import Checked
from isospace.pipeline.commit import Commit
from isospace.pipeline.encode.shards import Encoded
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.run import Run
from isospace.pipeline.run_report import RunReport, run_markdown, run_warnings, write_report
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment
from isospace.search.index import open_index
from tasks.reports import show_report
from tasks.resources import run_encoder, run_pool


@task(cache_policy=NO_CACHE)
def stop_here(run: Run, found: Scan, report: PlanReport, encoded: list[Encoded], left: int) -> RunReport:
    """Tell how far a run came that is committed whole or not at all."""
    base = run.base
    result = RunReport(
        run_id=run.run_id,
        collection=run.collection,
        snapshot=base.sequence if base else 0,
        snapshot_id=base.snapshot_id if base else "",
        space_id=base.space_id if base else "",
        committed=False,
        promoted=None,
        gate=None,
        documents=base.documents if base else 0,
        chunks=base.chunks if base else 0,
        **_spent(run, report, encoded),
        left=left,
        clipped=0,
        saturated=0,
        quarantined=found.quarantined,
        quarantine=found.quarantine.path if found.quarantine else None,
        warnings=(f"unfinished: {left:,} texts are left; the same run again goes on with them",),
    )
    create_markdown_artifact(key="run", markdown=run_markdown(result), description=f"Run {run.run_id}, unfinished")
    return result


@task(cache_policy=NO_CACHE)
def summarize(
    run: Run,
    found: Scan,
    report: PlanReport,
    encoded: list[Encoded],
    left: int,
    checked: Checked | None,
    segments: list[Segment],
    committed: Commit,
    verdict: Verdict | None,
    promoted: str | None,
) -> RunReport:
    """Write the report, and show it."""
    manifest = committed.manifest
    result = RunReport(
        run_id=run.run_id,
        collection=run.collection,
        snapshot=manifest.sequence,
        snapshot_id=manifest.snapshot_id,
        space_id=manifest.space_id,
        committed=committed.is_new,
        promoted=promoted,
        gate=verdict.describe() if verdict else None,
        documents=manifest.documents,
        chunks=manifest.chunks,
        **_spent(run, report, encoded),
        left=left,
        clipped=sum(s.clipped for s in segments),
        saturated=sum(s.saturated for s in segments),
        quarantined=found.quarantined,
        quarantine=found.quarantine.path if found.quarantine else None,
        warnings=run_warnings(run, found, checked),
    )
    path = write_report(run, result, report, checked, segments, committed)
    if not committed.is_new or manifest.chunks > run.config.runtime.report_chunks:
        create_markdown_artifact(key="run", markdown=run_markdown(result), description=path)
        return result
    try:
        with open_index(run.store, run.collection, str(manifest.sequence), encoder=run_encoder(run)) as index:
            drawn = run_page(run.store, result, report, checked, index.view)
        page = write_page(run.store, run.run_id, drawn, with_json=False)
    except Exception as error:
        # The snapshot is committed: a page that cannot be drawn, for lack of room or for odd data, undoes nothing.
        get_run_logger().warning("the report has no page: %s", error)
        create_markdown_artifact(key="run", markdown=run_markdown(result), description=path)
        return result
    pictures = ("Cosines of random pairs", "Map of the corpus")
    show_report(run.store, page, key="run", markdown=run_markdown(result), pictures=pictures)
    return result


def _spent(run: Run, report: PlanReport, encoded: list[Encoded]) -> dict[str, Any]:
    """Return what a run spent on encoding and what it did not have to, and remember how fast it was."""
    if encoded:
        pool = run_pool(run)
        seconds_of_all = sum(e.seconds for e in encoded) / pool.size
        record_rate(run.store, run.encoder_id, pool.place, sum(e.tokens for e in encoded), seconds_of_all)
    seconds, price = sum(e.seconds for e in encoded), run.config.runtime.price_per_device_hour
    return {
        "encoded": sum(e.chunks for e in encoded),
        "tokens": sum(e.tokens for e in encoded),
        "seconds": seconds,
        "reused": report.reused_texts,
        "money": None if price is None else price * seconds / 3600.0,
    }
