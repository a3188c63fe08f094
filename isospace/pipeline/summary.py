"""The last stage of a run: report what it did and spent."""

from __future__ import annotations

from typing import Any

from isospace.collection.alias import held_message
from isospace.encoding.throughput import record_rate
from isospace.evaluation.gate.verdicts import Verdict
from isospace.pipeline import openings
from isospace.pipeline.checks import CheckResult
from isospace.pipeline.commit import Commit
from isospace.pipeline.encode.shards import EncodedShard
from isospace.pipeline.executor import Reporter, Stage
from isospace.pipeline.plan_report import PlanReport
from isospace.pipeline.resources import run_encoder, run_pool
from isospace.pipeline.run import Run
from isospace.pipeline.run_report import RunReport, run_markdown, run_warnings, write_report
from isospace.pipeline.scan.diff import Scan
from isospace.pipeline.segment import Segment


def summarize(
    reporter: Reporter,
    run: Run,
    scan: Scan,
    plan: PlanReport,
    encoded: list[EncodedShard],
    left: int,
    checked: CheckResult | None,
    segments: list[Segment],
    committed: Commit,
    verdict: Verdict | None,
    promoted: str | None,
) -> RunReport:
    """Write and show the report of a run."""
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
        **_spent(run, plan, encoded),
        left=left,
        clipped=sum(s.clipped for s in segments),
        saturated=sum(s.saturated for s in segments),
        quarantined=scan.quarantined,
        quarantine=scan.quarantine.path if scan.quarantine else None,
        warnings=(*plan.warnings(), *run_warnings(run, scan, checked, committed)),
        notes=scan.notes,
        held=held_message(run.store, run.collection, run.config.runtime.promote_to),
    )
    path = write_report(run, result, plan, checked, segments, committed)
    reporter.info(f"wrote {path}")
    page = _draw_page(reporter, run, result, plan, checked) if committed.is_new else None
    markdown = run_markdown(result)
    if page is None:
        reporter.show_markdown("run", markdown, path)
    else:
        plots = ("Cosines of random pairs", "Map of the corpus")
        reporter.show_page(run.store, page, key="run", markdown=markdown, plots=plots)
    return result


def report_unfinished(
    reporter: Reporter, run: Run, scan: Scan, plan: PlanReport, encoded: list[EncodedShard], left: int
) -> RunReport:
    """Report on a run that rebuilds every part and is not finished, so that nothing is committed."""
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
        **_spent(run, plan, encoded),
        left=left,
        clipped=0,
        saturated=0,
        quarantined=scan.quarantined,
        quarantine=scan.quarantine.path if scan.quarantine else None,
        warnings=(f"unfinished: {left:,} texts are left; run the same command again to continue",),
        notes=scan.notes,
    )
    reporter.show_markdown("run", run_markdown(result), f"Run {run.run_id}, unfinished")
    reporter.info(f"nothing was committed: {left:,} texts are left for the next run")
    return result


def _draw_page(
    reporter: Reporter, run: Run, result: RunReport, plan: PlanReport, checked: CheckResult | None
) -> str | None:
    """Write the report as a page unless the snapshot is too large; return its path in the store."""
    if result.chunks > run.config.runtime.report_chunks:
        return None
    try:
        from isospace.evaluation.reports.page import write_page
        from isospace.pipeline.run_page import run_page
        from isospace.search.index import open_index

        with open_index(run.store, run.collection, str(result.snapshot), encoder=run_encoder(run)) as index:
            page = run_page(run.store, result, plan, checked, index.view)
        path = write_page(run.store, run.run_id, page, collection=run.collection, with_json=False)
        reporter.info(f"wrote {path}")
        return path
    except Exception as error:
        # The snapshot is committed: a page that cannot be written, for whatever reason, must not fail the run.
        reporter.warning(f"the page of the report could not be written: {error}")
        return None


def _spent(run: Run, plan: PlanReport, encoded: list[EncodedShard]) -> dict[str, Any]:
    """Return what a run spent on encoding and what it reused, and record its encoding rate."""
    tokens, seconds = sum(e.tokens for e in encoded), sum(e.seconds for e in encoded)
    if encoded:
        pool = run_pool(run)
        record_rate(run.store, run.encoder_id, pool.place, tokens, seconds / pool.size)
    price = run.config.runtime.price_per_device_hour
    return {
        "encoded": sum(e.chunks for e in encoded),
        "tokens": tokens,
        "seconds": seconds,
        "reused": plan.reused_texts,
        "money": None if price is None else price * seconds / 3600.0,
    }


SUMMARIZE = Stage("write report", summarize, opening=openings.summarize)
REPORT_UNFINISHED = Stage("write report", report_unfinished, opening=openings.summarize)
